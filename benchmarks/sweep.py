"""Cost of a sweep without its trainings: many trials that do nothing, and their analysis."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.settings import BenchSettings, benchmark
from finsent.ray_session import ray_session
from ray_jobs._cli import Result, main

log = logging.getLogger(__name__)

SWEEP_SECONDS_PER_TRIAL, ANALYSIS_SECONDS_PER_TRIAL = 300 / 500, 30 / 500  # the bars
EPOCHS = 4
SPACE = {
    "train.learning_rate": {"loguniform": [1e-5, 1e-3]},
    "train.dropout": {"uniform": [0.0, 0.5]},
    "train.label_smoothing": {"uniform": [0.0, 0.3]},
    "train.batch_size": {"choice": [16, 32, 64]},
    "train.schedule": {"choice": ["linear", "cosine", "constant"]},
}


def stub_trial(config: Mapping[str, Any], context: Any) -> None:  # noqa: ARG001
    """Report as a trial does, without a training.

    The best learning rate is 1e-4. All other parameters only change the noise.
    """
    import math
    import random

    from ray import tune

    params = config["params"]
    noise = random.Random(str(sorted(params.items())))
    level = 0.8 - 0.3 * (math.log10(params["train.learning_rate"]) + 4) ** 2 + noise.gauss(0, 0.01)
    best_value = 0.0
    for epoch in range(1, EPOCHS + 1):
        value = level * (1 - 0.5 * math.exp(-epoch / 1.5))
        best_value = max(best_value, value)
        tune.report({"epoch": epoch, "macro_f1": value, "epoch_seconds": 0.0})
    tune.report({"final": {"macro_f1": best_value}, "macro_f1": best_value, "epoch": EPOCHS})


def bench_sweep(settings: BenchSettings) -> Result:
    """Run `bench.trials` trials of `stub_trial` by TPE and ASHA, and analyze the sweep."""
    from finsent.config import check
    from tune.analysis import analyze
    from tune.plan import Plan, begin_sweep
    from tune.records import read_sweep
    from tune.space_parser import parse_space
    from tune.sweep import search
    from tune.trial import TrialContext

    trial_count = settings.bench.trials
    values = settings.model_dump(mode="json")
    values["sweep"] = {"space": SPACE, "trials": trial_count}
    values["train"]["epochs"] = EPOCHS
    settings = check(BenchSettings, values)
    plan = Plan(settings, parse_space(SPACE, settings), [], EPOCHS, None)
    with tempfile.TemporaryDirectory() as folder, ray_session(settings):
        run_dir = Path(folder) / "bench"
        run_dir.mkdir()
        sweep = begin_sweep(plan, run_dir, "none", 2)
        context = TrialContext(settings, run_dir, run_dir, plan.config.modes, {})
        start = time.perf_counter()
        search(plan, context, sweep, [], 2, trainable=stub_trial)
        seconds = time.perf_counter() - start
        analysis = analyze([run_dir])
        sweep = read_sweep(run_dir)
        statuses = [trial.status for trial in sweep.trials]
    log.info("%d trials in %.1f s, analyzed in %.1f s", trial_count, seconds, analysis["seconds"])
    return {
        "trials": len(statuses),
        "stopped": statuses.count("stopped"),
        "failed": statuses.count("failed"),
        "seconds": round(seconds, 1),
        "seconds_per_trial": round(seconds / trial_count, 4),
        "seconds_over_bar": round(seconds / (SWEEP_SECONDS_PER_TRIAL * trial_count), 3),
        "analysis_seconds": analysis["seconds"],
        "analysis_over_bar": round(
            analysis["seconds"] / (ANALYSIS_SECONDS_PER_TRIAL * trial_count), 3
        ),
        "best": analysis["best"],
    }


JOB = benchmark(
    "sweep",
    bench_sweep,
    summary="Measure a sweep of trials that do nothing, and its analysis.",
    result="seconds, seconds_per_trial, analysis_seconds, seconds_over_bar (5 minutes for 500 "
    "trials), analysis_over_bar (30 seconds for 500 trials)",
    sections=("train", "model", "data", "ray"),
)

if __name__ == "__main__":
    main(JOB)
