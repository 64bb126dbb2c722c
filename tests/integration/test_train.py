"""Training on a real Ray with two DDP workers and the tiny BERT."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from finsent.data.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.evaluation.metrics import scores
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.training.checkpoint import damage
from finsent.training.config import TrainConfig
from finsent.training.finished import drop_checkpoints
from finsent.training.outputs import read_journal
from finsent.training.task import Task
from finsent.training.tokens import tokenise

WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}


def rows(count: int, start: int) -> pa.Table:
    labels = [LABELS[i % 3] for i in range(start, start + count)]
    texts = [f"Item {i}: {WORDS[label]} {'again ' * (i % 9)}" for i, label in enumerate(labels)]
    return pa.table({"key": [f"{i:06d}" for i in range(start, start + count)], "text": texts,
                     "label": labels})  # fmt: skip


def tokens(table: pa.Table, tiny: Path) -> pa.Table:
    return tokenise(table, str(tiny), None, 64)


def task(tiny: Path, **settings: object) -> Task:
    recipe = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "seed": 7, **settings}
    return Task(TrainConfig(**recipe), Backbone("tiny", str(tiny)), {"max_length": 64})


def weights(model_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(model_dir / "model.safetensors")


@pytest.fixture(scope="module")
def splits(tiny: Path) -> dict[str, object]:
    """97 and 31 rows: neither divides by two workers, nor the last batch."""
    import ray.data

    return {
        "train": ray.data.from_arrow(tokens(rows(97, 0), tiny)).materialize(),
        "validation": ray.data.from_arrow(tokens(rows(31, 97), tiny)).materialize(),
    }


def test_two_workers_count_every_row_once(
    tiny: Path, splits: dict[str, object], tmp_path: Path
) -> None:
    from finsent.training.ray_trainer import fit_tokenised

    result = fit_tokenised(task(tiny, epochs=12), splits, tmp_path / "run")
    assert [m["validation_rows"] for m in result.history] == [31] * 12
    assert [m["train_rows"] for m in result.history] == [97] * 12
    assert result.best["macro_f1"] == max(m["macro_f1"] for m in result.history) > 0.9
    assert result.history[-1]["train_loss"] < 0.5 * result.history[0]["train_loss"]

    # The published directory is a classifier that scores, in one process, what training reported.
    engine = Engine(result.model_dir, EngineConfig())
    held_out = rows(31, 97)
    predicted = [LABELS.index(p.label) for p in engine.classify(held_out["text"].to_pylist())]
    truth = [LABELS.index(label) for label in held_out["label"].to_pylist()]
    matrix = torch.zeros(3, 3, dtype=torch.int64)
    for t, p in zip(truth, predicted, strict=True):
        matrix[t, p] += 1
    assert result.best["validation_confusion"] == matrix.tolist()
    assert scores(matrix.numpy())["macro_f1"] == pytest.approx(result.best["macro_f1"])
    assert not [*result.model_dir.parent.rglob("*.pt"), *result.model_dir.parent.rglob("*.bin")]
    # The best and the two newest checkpoints, no more.
    assert len([*(tmp_path / "run").glob("checkpoint_epoch_*")]) in (2, 3)


def test_other_front_ends_with_two_workers_train_the_same_model(
    tiny: Path, splits: dict[str, object], tmp_path: Path
) -> None:
    from finsent.training.ray_trainer import fit_tokenised

    found = {
        name: fit_tokenised(task(tiny, trainer=name), splits, tmp_path / name)
        for name in ("native", "transformers", "lightning")
    }
    native = found.pop("native")
    for name, other in found.items():
        assert [m["train_rows"] for m in other.history] == [97, 97], name
        assert other.best["macro_f1"] == native.best["macro_f1"], name
        mine, theirs = weights(native.model_dir), weights(other.model_dir)
        assert max(float((mine[key] - theirs[key]).abs().max()) for key in mine) < 1e-4, name
        assert (tmp_path / name / "training.png").is_file()


def test_a_killed_worker_costs_nothing_but_time(
    tiny: Path, splits: dict[str, object], tmp_path: Path
) -> None:
    from finsent.training.ray_trainer import fit_tokenised

    undisturbed = fit_tokenised(task(tiny, epochs=12), splits, tmp_path / "calm")

    run_dir = tmp_path / "killed"
    killed: list[int] = []

    def kill_one_worker() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not killed:
            if [*run_dir.glob("checkpoint_*/state.json")]:
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):  # of those before
                        if "RayTrainWorker" in " ".join(process.cmdline()):
                            process.kill()
                            killed.append(process.pid)
                            return
            time.sleep(0.01)  # polling a directory, with the deadline above

    killer = threading.Thread(target=kill_one_worker)
    killer.start()
    disturbed = fit_tokenised(task(tiny, epochs=12, checkpoint_every_steps=2), splits, run_dir)
    killer.join()
    assert killed
    assert [m["epoch"] for m in disturbed.history] == [*range(1, 13)]
    assert disturbed.best["epoch"] == undisturbed.best["epoch"]
    for name, tensor in weights(undisturbed.model_dir).items():
        torch.testing.assert_close(weights(disturbed.model_dir)[name], tensor, rtol=0, atol=1e-5)


def test_the_same_run_name_goes_on(tiny: Path, splits: dict[str, object], tmp_path: Path) -> None:
    from finsent.training.ray_trainer import fit_tokenised

    first = fit_tokenised(task(tiny, epochs=1), splits, tmp_path / "run")
    began = first.history[0]["began"]
    longer = fit_tokenised(task(tiny, epochs=2), splits, tmp_path / "run")
    assert [m["epoch"] for m in longer.history] == [1, 2]
    assert longer.history[0]["began"] == began  # taken from the checkpoint, not run again
    assert json.loads((longer.model_dir / "provenance.json").read_text())["max_length"] == 64


def test_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    tiny: Path, splits: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one before is of the middle of the second epoch."""
    from finsent.training.ray_trainer import fit_tokenised

    recipe = task(tiny, checkpoint_every_steps=4, log_every_steps=2)
    run = tmp_path / "run"
    calm = fit_tokenised(recipe, splits, run)
    shutil.copytree(calm.model_dir, tmp_path / "calm")
    last = run / "checkpoint_epoch_0002"
    with (last / "optimizer.safetensors").open("r+b") as stream:
        stream.truncate(1000)

    with caplog.at_level(logging.WARNING):
        resumed = fit_tokenised(recipe, splits, run)
    assert str(last) in caplog.text
    assert "optimizer.safetensors has 1000 bytes" in caplog.text
    assert [m["train_rows"] for m in resumed.history] == [97, 97]
    assert resumed.history[0] == calm.history[0]  # not trained again
    assert resumed.history[1]["began"] > calm.history[1]["began"]
    for name, tensor in weights(tmp_path / "calm").items():
        torch.testing.assert_close(weights(resumed.model_dir)[name], tensor, rtol=0, atol=1e-5)
    assert damage(last) is None  # written anew
    lines = read_journal(run)
    steps = [line["step"] for line in lines if line["kind"] == "step"]
    assert steps == sorted({*range(2, 27, 2), 13})
    assert (run / "training.png").stat().st_size > 10_000


def test_what_the_user_has_to_mend_comes_as_one_line_and_at_once(
    tiny: Path, splits: dict[str, object], tmp_path: Path
) -> None:
    from finsent.training.ray_trainer import fit_tokenised

    with pytest.raises(
        InputError, match=r"above train\.max_loss=0\.01; last good checkpoint: none"
    ):
        fit_tokenised(task(tiny, max_loss=0.01), splits, tmp_path / "run")


def test_what_a_killed_job_leaves_does_not_stop_the_next(
    tiny: Path, splits: dict[str, object], tmp_path: Path
) -> None:
    """Killed between a checkpoint and its entry in Ray's records, in a deletion, in a record."""
    from finsent.training.ray_trainer import fit, fit_tokenised

    run = tmp_path / "run"
    whole = fit_tokenised(task(tiny, epochs=3), splits, run)
    best = next(p for p in run.glob("checkpoint_*") if p.name.endswith(f"{whole.best['epoch']}"))
    third = run / "checkpoint_epoch_0003"
    assert third.is_dir()
    (run / "checkpoint_manager_snapshot.json").write_text('{"ray_version"')
    half = run / "checkpoint_epoch_0004"
    shutil.copytree(third, half)
    (half / "optimizer.safetensors").unlink()

    again = fit_tokenised(task(tiny, epochs=4), splits, run)
    assert [m["epoch"] for m in again.history] == [1, 2, 3, 4]
    assert again.history[:3] == whole.history
    assert (half / "optimizer.safetensors").is_file()
    assert best.is_dir() or again.best["epoch"] == 4
    assert again.best["macro_f1"] == max(m["macro_f1"] for m in again.history)

    done = fit_tokenised(task(tiny, epochs=4), splits, run)  # nothing is left to do
    assert (done.best, done.history) == (again.best, again.history)

    drop_checkpoints(run)
    recipe = replace(task(tiny, epochs=4), provenance={"max_length": 64, "config": {}})
    absent = DatasetVersion(tmp_path / "absent")  # which is not read
    assert fit(recipe, absent, run) == done


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_workers": 64, "batch_size": 64}, ["train.num_workers=64", "65 CPUs", "has 4"]),
        ({"cpus_per_worker": 2}, ["5 CPUs", "has 4"]),
        ({"use_gpu": "yes"}, ["train.use_gpu='yes'", "2 GPUs", "train.use_gpu=no"]),
    ],
)
def test_what_the_cluster_cannot_hold_fails_at_once(
    tiny: Path, tmp_path: Path, settings: dict[str, object], words: list[str]
) -> None:
    from finsent.training.ray_trainer import fit_tokenised

    if settings.get("use_gpu") and torch.cuda.is_available():
        pytest.skip("has a GPU")
    with pytest.raises(InputError) as caught:
        fit_tokenised(task(tiny, **settings), {}, tmp_path / "run")
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_is_tied_to_its_data(tiny: Path, tmp_path: Path) -> None:
    from finsent.training.ray_trainer import check_same_task

    def of(version: str, **settings: object) -> Task:
        plain = task(tiny, **settings)
        recipe = plain.config.model_dump(mode="json")
        provenance = {"max_length": 64, "dataset": {"version": version}, "config": recipe}
        return Task(plain.config, plain.backbone, provenance)

    check_same_task(of("aaa"), tmp_path)
    check_same_task(of("bbb"), tmp_path)  # nothing was trained yet
    (tmp_path / "trained.json").touch()  # its checkpoints were removed
    check_same_task(of("bbb", num_workers=1), tmp_path)
    with pytest.raises(InputError, match=r"another dataset \(bbb, now ccc\); choose another run"):
        check_same_task(of("ccc"), tmp_path)
    with pytest.raises(InputError, match="another config"):
        check_same_task(of("bbb", epochs=9), tmp_path)
