"""Training speed of the loop under torchrun, Ray Train and with one worker, and of peers."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.settings import BenchSettings, benchmark
from finsent.data.ingest.ingest import find_existing
from finsent.data.sources.files import find_sources
from finsent.data.versions.dataset import DatasetVersion
from finsent.ray_session import ray_session
from finsent.training.fine_tune import prepare_backbone
from finsent.training.task import Task, make_task
from ray_jobs import ingest
from ray_jobs._cli import Result, main, table_console

log = logging.getLogger(__name__)

ROWS = 800
EPOCHS = 3  # the first warms up; complete epochs are measured from start to start
VARIANTS = {
    "torchrun": "this loop, torchrun",
    "ray": "this loop, Ray Train",
    "one_worker": "this loop, one worker",
    "hf_trainer": "HF Trainer, default padding",
    "hf_grouped": "HF Trainer, grouped by length",
}
Rates = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """What all variants train: settings, task and tokenized rows."""

    settings: BenchSettings
    task: Task
    splits: dict[str, Any]


# --- the task -----------------------------------------------------------------------------------


def prepare(settings: BenchSettings, epochs: int) -> tuple[DatasetVersion, Task]:
    """Return the dataset version and the task of a round."""
    backbone = prepare_backbone(settings)
    if settings.train.dataset != "latest":
        version = DatasetVersion.find(
            settings.train.dataset,
            settings.workspace.versions(settings.data.name),
            "train.dataset",
        )
    else:
        version = _ingest_version(settings)
    recipe = settings.train.replaced(epochs=epochs)
    return version, make_task(recipe, settings.model, backbone, version)


def _ingest_version(settings: BenchSettings) -> DatasetVersion:
    files = find_sources(settings.data, settings.workspace.sources_dir)
    settings.workspace.versions(settings.data.name).check_writable()
    version = find_existing(settings.data, settings.workspace.versions(settings.data.name), files)
    if version is None:
        with ray_session(settings):
            version = ingest.step(settings, files, None)
    return version


def token_splits(version: DatasetVersion, task: Task, rows: int) -> dict[str, Any]:
    """Return tokenized tables: `rows` training rows, and an eighth as many validation rows."""
    return {
        "train": _tokens(version, "train", task, rows),
        "validation": _tokens(version, "validation", task, max(rows // 8, 1)),
    }


def _tokens(version: DatasetVersion, split: str, task: Task, rows: int) -> Any:
    from finsent.training.tokens import tokenize

    table = version.read(split, ["key", "text", "label"])[:rows]
    return tokenize(table, **task.tokenizer_arguments)


# --- the variants -------------------------------------------------------------------------------


def _rates(history: list[dict[str, Any]]) -> Rates:
    """Return rows/s of complete epochs, and of their steps without validation and checkpoint."""
    rows = sum(epoch["train_rows"] for epoch in history[:-1])
    return {
        "rows_per_second": rows / (history[-1]["began"] - history[0]["began"]),
        "step_rows_per_second": statistics.median(
            epoch["rows_per_second"] for epoch in history[1:]
        ),
        "padding_share": history[-1]["padding_share"],
    }


def under_torchrun(task: Task, splits: dict[str, Any]) -> Rates:
    """Train by finsent's loop in processes that torchrun starts."""
    from finsent.training.standalone import HISTORY_FILE, write_spec

    with tempfile.TemporaryDirectory() as name:
        spec = write_spec(Path(name), task, splits)
        _torchrun(task, "finsent.training.standalone", str(spec))
        return _rates(json.loads((Path(name) / HISTORY_FILE).read_text()))


def _hugging_face(task: Task, splits: dict[str, Any], sampling: str) -> Rates:
    from benchmarks.peers.hugging_face import HISTORY
    from finsent.training.standalone import write_spec

    with tempfile.TemporaryDirectory() as name:
        spec = write_spec(Path(name), task, splits)
        _torchrun(task, "benchmarks.peers.hugging_face", str(spec), sampling)
        epochs = json.loads((Path(name) / HISTORY).read_text())
    rates = (epoch["rows"] / epoch["seconds"] for epoch in epochs[1:])
    return {"step_rows_per_second": statistics.median(rates)}


def _torchrun(task: Task, *command: str) -> None:
    """Run torchrun to its end. When interrupted, wait until torchrun has ended its workers.

    Raises:
        subprocess.CalledProcessError: torchrun failed.
    """
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(task.config.max_workers),
        "-m",
        *command,
    ]
    threads = {"OMP_NUM_THREADS": str(task.config.cpus_per_worker)}
    process = subprocess.Popen(torchrun, env={**os.environ, **threads}, stdout=sys.stderr)
    try:
        code = process.wait()
    finally:
        # Each worker has its own session, so only torchrun can end the workers.
        process.terminate()
        process.wait()
    if code:
        raise subprocess.CalledProcessError(code, torchrun)


def _under_ray(bench: Bench) -> Rates:
    with ray_session(bench.settings), tempfile.TemporaryDirectory() as name:
        import ray.data

        from finsent.training.ray_trainer import fit_tokenized

        datasets = {split: ray.data.from_arrow(table) for split, table in bench.splits.items()}
        history = fit_tokenized(bench.task, datasets, Path(name) / "bench").history
        return _rates([metrics.model_dump() for metrics in history])


def _variants(bench: Bench) -> list[str]:
    """Return the variants that can run here, and log the missing ones."""
    names = ["torchrun"]
    if bench.settings.bench.ray:
        names.append("ray")
    if bench.task.config.max_workers > 1:
        names.append("one_worker")
    else:
        log.info("two_over_one_worker: not measured, because train.num_workers=1")
    if importlib.util.find_spec("accelerate"):
        names += ["hf_trainer", "hf_grouped"]
    else:
        log.info("over_hf_trainer, over_hf_grouped: need `pip install 'finsent[bench]'`")
    return names


def _run(bench: Bench, name: str) -> Rates:
    if name == "ray":
        return _under_ray(bench)
    if name == "hf_trainer":
        return _hugging_face(bench.task, bench.splits, "random")
    if name == "hf_grouped":
        return _hugging_face(bench.task, bench.splits, "group_by_length")
    if name == "one_worker":
        config = bench.task.config.replaced(num_workers=1)
        return under_torchrun(replace(bench.task, config=config), bench.splits)
    return under_torchrun(bench.task, bench.splits)


# --- the benchmark ------------------------------------------------------------------------------


def bench_train(settings: BenchSettings) -> Result:
    """Run all variants in turn, and compare medians of the rounds."""
    settings = _fit_workers(settings)
    version, task = prepare(settings, EPOCHS)
    bench = Bench(settings, task, token_splits(version, task, settings.bench.rows or ROWS))
    names = _variants(bench)
    rounds: dict[str, list[Rates]] = {name: [] for name in names}
    for number in range(settings.bench.rounds):
        for name in names:
            rounds[name].append(_run(bench, name))
            log.info(
                "round %d of %d, %s: %.1f rows/s",
                number + 1,
                settings.bench.rounds,
                VARIANTS[name],
                rounds[name][-1]["step_rows_per_second"],
            )
    medians = {
        name: {key: statistics.median(rates[key] for rates in measured) for key in measured[0]}
        for name, measured in rounds.items()
    }
    result = {**_ratios(medians), **_work(bench, medians), "medians": medians, "rounds": rounds}
    table_console().print(_table(result))
    return result


def _fit_workers(settings: BenchSettings) -> BenchSettings:
    """Return the settings with at most one worker per GPU, where GPUs are used."""
    import torch

    if not torch.cuda.is_available() or settings.train.use_gpu == "no":
        return settings
    workers = min(settings.train.max_workers, torch.cuda.device_count())
    return settings.replaced(train=settings.train.replaced(num_workers=workers))


def _ratios(medians: dict[str, Rates]) -> Result:
    def over(name: str, other: str, key: str = "step_rows_per_second") -> float | None:
        if name not in medians or other not in medians:
            return None
        return medians[name][key] / medians[other][key]

    epochs = medians.get("ray", medians["torchrun"])
    return {
        "over_hf_trainer": over("torchrun", "hf_trainer"),
        "over_hf_grouped": over("torchrun", "hf_grouped"),
        "ray_over_torchrun": over("ray", "torchrun", "rows_per_second"),
        "ray_over_torchrun_steps": over("ray", "torchrun"),
        "two_over_one_worker": over("torchrun", "one_worker"),
        "rows_per_second": epochs["rows_per_second"],
        "step_rows_per_second": medians["torchrun"]["step_rows_per_second"],
        "padding_share": medians["torchrun"]["padding_share"],
    }


def _work(bench: Bench, medians: dict[str, Rates]) -> Result:
    """Return the operations per row, and the share of the machine's rate that training uses."""
    import numpy as np
    import torch
    from transformers import AutoConfig

    from benchmarks.flops import matmul_rate, training_flops
    from finsent.labels import LABELS
    from finsent.training.loss import autocast_dtype

    task = bench.task
    config = task.config
    uses_gpu = torch.cuda.is_available() and config.use_gpu != "no"
    device = torch.device("cuda" if uses_gpu else "cpu")
    dtype = autocast_dtype(config, device) or torch.float32
    lengths = bench.splits["train"]["input_ids"].combine_chunks().value_lengths().to_numpy()
    shape = AutoConfig.from_pretrained(
        task.backbone.source, revision=task.backbone.revision, num_labels=len(LABELS)
    )
    flops = training_flops(shape, float(lengths.mean()), float((lengths**2.0).mean()))
    workers = config.max_workers
    threads = workers * config.cpus_per_worker
    rate = matmul_rate(device, dtype, threads) * (workers if uses_gpu else 1)
    used_rate = flops * medians["torchrun"]["step_rows_per_second"]
    return {
        "flops_per_row": flops,
        "flops_per_second": used_rate,
        "matmul_flops_per_second": rate,
        "share_of_matmul_rate": used_rate / rate,
        "tokens_per_row": float(np.mean(lengths)),
        "device": torch.cuda.get_device_name(device) if uses_gpu else f"cpu, {threads} threads",
        "number_format": str(dtype).removeprefix("torch."),
        "rows": len(lengths),
        "workers": workers,
        "threads_per_worker": config.cpus_per_worker,
        "batch_size": config.batch_size,
        "backbone": task.backbone.name,
    }


def _table(result: Result) -> Table:
    table = Table("variant", "rows/s, steps", "rows/s, epochs", "this loop over it")
    own_rate = result["step_rows_per_second"]
    for name, rates in result["medians"].items():
        steps, epochs = rates["step_rows_per_second"], rates.get("rows_per_second")
        table.add_row(
            VARIANTS[name],
            f"{steps:.1f}",
            "" if epochs is None else f"{epochs:.1f}",
            f"{own_rate / steps:.2f}",
        )
    table.caption = (
        f"{result['backbone']} on {result['device']}, {result['number_format']}: "
        f"{result['flops_per_row'] / 1e9:.2f} GFLOP per row, "
        f"{result['share_of_matmul_rate']:.0%} of the rate of matrix products, "
        f"padding {result['padding_share']:.1%}"
    )
    return table


JOB = benchmark(
    "train",
    bench_train,
    summary="Measure the rows/s of the training loop under torchrun, under Ray Train and with one "
    "worker, compared with Hugging Face Trainer with its default padding and with its "
    "length-grouped sampler. All variants have the same rows, recipe, threads and batch size, and "
    "use a GPU where one exists. The peers need the extra `bench`.",
    result="over_hf_trainer, over_hf_grouped (steps from the second epoch on), ray_over_torchrun "
    "(complete epochs: steps, validation, checkpoint, report), ray_over_torchrun_steps (steps "
    "alone), two_over_one_worker, rows_per_second, padding_share, flops_per_row, "
    "matmul_flops_per_second, share_of_matmul_rate, device and more; null: not measured "
    "on this machine",
    sections=("train", "model", "data", "ray"),
)

if __name__ == "__main__":
    main(JOB)
