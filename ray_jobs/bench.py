"""Benchmarks: ratios against a peer or a limit, all from one run on one machine."""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from finsent.data.dataset import DatasetVersion
from finsent.data.ingest import find_existing
from finsent.data.sources import find_sources
from finsent.errors import ConfigError
from finsent.files import make_dir
from finsent.settings import Settings
from finsent.training.task import Task, make_task
from ray_jobs import _bench_ingest, _bench_readback, ingest, train
from ray_jobs._cli import Call, Job, Result, main
from ray_jobs._ray import ray_session

log = logging.getLogger(__name__)

_TRAIN_ROWS = 800
_EPOCHS = 3  # the first two are measured from start to start, checkpoint and report included


def _rates(history: list[dict[str, Any]]) -> dict[str, float]:
    """Rows/s of whole epochs (with validation, checkpoint and report), and of their steps alone."""
    rows = sum(epoch["train_rows"] for epoch in history[:-1])
    return {
        "rows_per_second": rows / (history[-1]["began"] - history[0]["began"]),
        "step_rows_per_second": statistics.median(e["rows_per_second"] for e in history),
        "padding_share": history[-1]["padding_share"],
    }


def _tokens(version: DatasetVersion, split: str, task: Task, rows: int) -> Any:
    from finsent.training.tokens import tokenise

    table = version.read(split, ["key", "text", "label"])[:rows]
    return tokenise(table, task.backbone.source, task.backbone.revision, task.max_length)


def _run_torchrun(command: list[str], env: dict[str, str]) -> None:
    """Run torchrun to its end; when interrupted, let it end its workers before it goes.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    process = subprocess.Popen(command, env=env, stdout=sys.stderr)
    try:
        code = process.wait()
    finally:
        # Its workers are sessions of their own: only torchrun itself can end them.
        process.terminate()
        process.wait()
    if code:
        raise subprocess.CalledProcessError(code, command)


def _under_torchrun(task: Task, splits: dict[str, Any]) -> dict[str, float]:
    from finsent.training.standalone import HISTORY, write_spec

    with tempfile.TemporaryDirectory() as name:
        spec = write_spec(Path(name), task, splits)
        threads = {"OMP_NUM_THREADS": str(task.config.cpus_per_worker)}
        _run_torchrun(
            [
                sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc-per-node", str(task.config.num_workers),
                "-m", "finsent.training.standalone", str(spec),
            ],
            {**os.environ, **threads},
        )  # fmt: skip
        return _rates(json.loads((Path(name) / HISTORY).read_text()))


def _under_ray(settings: Settings, task: Task, splits: dict[str, Any]) -> dict[str, float]:
    with ray_session(settings), tempfile.TemporaryDirectory() as name:
        import ray.data

        from finsent.training.ray_trainer import fit_tokenised

        datasets = {split: ray.data.from_arrow(table) for split, table in splits.items()}
        return _rates(fit_tokenised(task, datasets, Path(name) / "bench").history)


def _prepare(settings: Settings, epochs: int) -> tuple[DatasetVersion, Task]:
    """The dataset version and the task that a round trains."""
    backbone = train.prepare(settings)
    files = find_sources(settings.data, settings.sources_dir)
    make_dir(settings.datasets_dir, "storage.root")
    version = find_existing(settings.data, settings.datasets_dir, files)
    if version is None:
        with ray_session(settings):
            version = ingest.step(settings, files, None)
    recipe = settings.train.model_copy(update={"epochs": epochs})
    return version, make_task(recipe, settings.model, backbone, version)


def _splits(version: DatasetVersion, task: Task, rows: int) -> dict[str, Any]:
    return {
        "train": _tokens(version, "train", task, rows),
        "validation": _tokens(version, "validation", task, max(rows // 8, 1)),
    }


def bench_train(call: Call) -> Result:
    """The training loop under Ray Train and under torchrun, in turn."""
    settings = call.settings
    version, task = _prepare(settings, _EPOCHS)
    splits = _splits(version, task, settings.bench.rows or _TRAIN_ROWS)
    found: dict[str, list[dict[str, float]]] = {"torchrun": [], "ray": []}
    for number in range(settings.bench.rounds):
        found["torchrun"].append(_under_torchrun(task, splits))
        found["ray"].append(_under_ray(settings, task, splits))
        log.info(
            "round %d of %d: torchrun %.1f rows/s, Ray %.1f rows/s",
            number + 1, settings.bench.rounds,
            found["torchrun"][-1]["rows_per_second"], found["ray"][-1]["rows_per_second"],
        )  # fmt: skip
    medians = {
        name: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }
    ray_rates, plain = medians["ray"], medians["torchrun"]
    return {
        "ray_over_torchrun": ray_rates["rows_per_second"] / plain["rows_per_second"],
        "ray_over_torchrun_steps": (
            ray_rates["step_rows_per_second"] / plain["step_rows_per_second"]
        ),
        "rows_per_second": ray_rates["rows_per_second"],
        "padding_share": ray_rates["padding_share"],
        "rows": splits["train"].num_rows,
        "workers": task.config.num_workers,
        "threads_per_worker": task.config.cpus_per_worker,
        "batch_size": task.config.batch_size,
        "backbone": task.backbone.name,
        "medians": medians,
        "rounds": found,
    }


def bench_readback(call: Call) -> Result:
    """Reading a dataset version back against training on it with one core."""
    settings = call.settings
    version, task = _prepare(settings, _EPOCHS)
    one_core = replace(
        task, config=task.config.model_copy(update={"num_workers": 1, "cpus_per_worker": 1})
    )
    splits = _splits(version, one_core, _bench_readback.TRAINED_ROWS)
    return _bench_readback.bench_readback(
        settings,
        task,
        version,
        lambda: _under_torchrun(one_core, splits)["step_rows_per_second"],
        lambda: ray_session(settings),
    )


def bench_ingest(call: Call) -> Result:
    """Ingest of synthetic rows, beside pandas and Polars."""
    return _bench_ingest.bench_ingest(call.settings)


_BENCHES = {"train": bench_train, "ingest": bench_ingest, "readback": bench_readback}


def run(call: Call) -> Result:
    """The job."""
    if len(call.arguments) != 1 or call.arguments[0] not in _BENCHES:
        raise ConfigError(f"bench {' '.join(call.arguments)!r}: write one of {', '.join(_BENCHES)}")
    return {"bench": call.arguments[0], **_BENCHES[call.arguments[0]](call)}


JOB = Job(
    name="bench",
    summary="""train: rows/s of the training loop under Ray Train against the same loop under \
torchrun, with the same processes, threads and batches.
ingest: synthetic rows from CSV to a dataset version, exact work only, against single-process \
pandas and Polars programs that do the same; then with near-duplicates.
readback: rows/s of a dataset version through the tokeniser into torch batches, against training \
on one core.
All in turn, in one run; medians of the rounds. `rows=N` is short for `bench.rows=N`.""",
    result="train: ray_over_torchrun (whole epochs: steps, validation, checkpoint, report), "
    "ray_over_torchrun_steps (steps alone), rows_per_second, padding_share, rows, workers, "
    "threads_per_worker, batch_size, backbone, medians, rounds; ingest: rows_per_second, "
    "peak_rss_bytes, over_pandas, over_polars and more; readback: readback_over_training, "
    "readback_rows_per_second, training_rows_per_second; run_dir, seconds",
    sections=("bench", "train", "model", "data", "storage", "run", "ray"),
    run=run,
    arguments="train|ingest|readback",
    home="bench",
)

if __name__ == "__main__":
    main(JOB)
