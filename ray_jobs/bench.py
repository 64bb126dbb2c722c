"""Benchmarks: ratios against a peer or a limit, all from one run on one machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from finsent.errors import ConfigError
from finsent.settings import Settings
from ray_jobs import (
    _bench_faults,
    _bench_ingest,
    _bench_readback,
    _bench_serve,
    _bench_sweep,
    _bench_train,
)
from ray_jobs._cli import Call, Job, Result, main
from ray_jobs._ray import ray_session


def bench_readback(settings: Settings) -> Result:
    """Reading a dataset version back against training on it with one core."""
    version, task = _bench_train.prepare(settings, _bench_train.EPOCHS)
    one_core = replace(
        task, config=task.config.model_copy(update={"num_workers": 1, "cpus_per_worker": 1})
    )
    splits = _bench_train.token_splits(version, one_core, _bench_readback.TRAINED_ROWS)
    return _bench_readback.bench_readback(
        settings,
        task,
        version,
        lambda: _bench_train.under_torchrun(one_core, splits)["step_rows_per_second"],
        lambda: ray_session(settings),
    )


_BENCHES: dict[str, Callable[[Settings], Result]] = {
    "train": _bench_train.bench_train,
    "ingest": _bench_ingest.bench_ingest,
    "readback": bench_readback,
    "serve": _bench_serve.bench_serve,
    "serve-faults": _bench_faults.bench_faults,
    "sweep": _bench_sweep.bench_sweep,
}


def run(call: Call) -> Result:
    """The job."""
    if len(call.arguments) != 1 or call.arguments[0] not in _BENCHES:
        raise ConfigError(f"bench {' '.join(call.arguments)!r}: write one of {', '.join(_BENCHES)}")
    return {"bench": call.arguments[0], **_BENCHES[call.arguments[0]](call.settings)}


JOB = Job(
    name="bench",
    summary="""train: rows/s of the training loop under torchrun, under Ray Train and with one \
worker, against Hugging Face Trainer with its default padding and with its length-grouped sampler, \
all with the same rows, recipe, threads and batch size; on a GPU where there is one. The peers \
need the extra `bench`.
ingest: synthetic rows from CSV to a dataset version, exact work only, against single-process \
pandas and Polars programs that do the same; then with near-duplicates.
readback: rows/s of a dataset version through the tokeniser into torch batches, against training \
on one core.
serve: requests/s and latency of the published serve.model under Ray Serve, under plain uvicorn, \
and in other servers (the predecessor's shape, LitServe, BentoML), by wrk at 1, 16, 64 and 256 \
connections; lists, the engine alone, start-up and memory.
serve-faults: the service under ten times the load that it can answer, with one of two replicas \
killed every five seconds, and with versions that change or are broken under load.
sweep: a sweep of trials that do nothing, and the analysis of it.
All in turn, in one run; medians of the rounds. `rows=N` is short for `bench.rows=N`.""",
    result="train: over_hf_trainer, over_hf_grouped (steps of the second epoch on), "
    "ray_over_torchrun (whole epochs: steps, validation, checkpoint, report), "
    "ray_over_torchrun_steps (steps alone), two_over_one_worker, rows_per_second, padding_share, "
    "flops_per_row, matmul_flops_per_second, share_of_matmul_rate, device and more; null: could "
    "not be measured here; ingest: rows_per_second, "
    "peak_rss_bytes, over_pandas, over_polars and more; readback: readback_over_training, "
    "readback_rows_per_second, training_rows_per_second; serve: rps64_over_predecessor, "
    "rps64_over_best_peer, p99_64_over_predecessor, p99_64_over_best_peer, "
    "p50_1_over_predecessor_int8, serve_over_uvicorn, bulk_over_engine, "
    "engine_over_onnx_fp32_single, startup_seconds, replica_megabytes, servers; "
    "serve-faults: overload, kills, switches, each with the codes that clients got; "
    "sweep: seconds, seconds_per_trial, analysis_seconds, and seconds_over_bar and "
    "analysis_over_bar, over 5 minutes and 30 seconds for 500 trials; "
    "run_dir, seconds",
    sections=(
        "bench",
        "train",
        "model",
        "data",
        "serve",
        "engine",
        "registry",
        "storage",
        "run",
        "ray",
    ),
    run=run,
    arguments="train|ingest|readback|serve|serve-faults|sweep",
    home="bench",
)

if __name__ == "__main__":
    main(JOB)
