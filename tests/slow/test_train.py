"""Training by all front ends on a real Ray, and by torchrun itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.ranks import run_ranks
from tests.integration.test_torchrun import assert_same, outcome, prepare
from tests.integration.test_train import make_splits, task, weights


@pytest.mark.usefixtures("local_ray")
def test_other_front_ends_with_two_workers_train_the_same_model(
    tiny: Path,
    tmp_path: Path,
) -> None:
    """Fast, without Ray Train: of the name ..._with_two_processes_... in `test_torchrun.py`."""
    import ray.data

    from finsent.training.ray_trainer import fit_tokenized

    splits = make_splits(tiny).items()
    datasets = {name: ray.data.from_arrow(table).materialize() for name, table in splits}
    results = {
        name: fit_tokenized(task(tiny, trainer=name), datasets, tmp_path / name)
        for name in ("native", "transformers", "lightning")
    }
    native = results.pop("native")
    for name, other in results.items():
        assert [m.train_rows for m in other.history] == [97, 97], name
        assert other.best.macro_f1 == native.best.macro_f1, name
        assert_same(weights(other.model_dir), weights(native.model_dir), atol=1e-4)
        assert (tmp_path / name / "training.png").is_file()


def test_torchrun_itself(tiny: Path, tmp_path: Path) -> None:
    """Fast: all of `test_torchrun.py`, whose processes have the environment that torchrun gives."""
    from finsent.training.standalone import main

    folders = [tmp_path / name for name in ("torchrun", "ranks")]
    specs = [prepare(tiny, folder) for folder in folders]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "finsent.training.standalone",
        str(specs[0]),
    ]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=500)
    run_ranks(2, main, specs[1])
    actual, expected = (outcome(folder) for folder in folders)
    assert_same(actual.weights, expected.weights, atol=1e-5)
    assert [m["train_rows"] for m in actual.history] == [m["train_rows"] for m in expected.history]
