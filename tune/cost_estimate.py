"""The cost of a sweep before it starts: epochs by simulated trials, and rows per second."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import TrialScheduler

from finsent.adapters.ray_tune import NO_CONTROLLER, stand_in_trial
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.files import read_json
from finsent.modeling.backbone import Backbone
from finsent.settings import Settings
from tune.algorithms import SCHEDULERS, SEARCH_ALGORITHMS
from tune.plan import Plan
from tune.records import Params
from tune.samplers import make_sampler
from tune.schedulers import make_scheduler
from tune.search import MAX_LISTED

_SIMULATIONS = 20
_MAX_DRAWS = 1000  # to find configurations that differ
_TIMED_BATCHES = 4
_NOISE = 0.5  # standard deviation of an epoch's value; that of the trials' levels is 1


def sample_configurations(plan: Plan, count: int) -> list[Params]:
    """Return the configurations with which the search would begin."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions: list[Any] = ["maximize"] * len(plan.config.modes)
    study = optuna.create_study(sampler=make_sampler(plan.config, 0), directions=directions)
    samples = [dict(params) for params in plan.first][:count]
    if SEARCH_ALGORITHMS[plan.config.search].is_exhaustive:
        others = (params for params in plan.space.grid() if params not in samples)
        return [*samples, *islice(others, count - len(samples))]
    seen = {plan.space.identity(params) for params in samples}
    for params in (plan.space.sample(study.ask()) for _ in range(_MAX_DRAWS)):
        if len(samples) >= count:
            break
        if (identity := plan.space.identity(params)) not in seen:
            seen.add(identity)
            samples.append(params)
    return samples


def expected_epochs(plan: Plan) -> tuple[int, int]:
    """Return the expected epochs of a sweep's trials, and those without early stopping."""
    config = plan.config
    trials = config.trials
    if SEARCH_ALGORITHMS[config.search].is_exhaustive:
        others = (params for params in plan.space.grid() if params not in plan.first)
        trials = min(trials, len(plan.first) + sum(1 for _ in islice(others, trials)))
    elif (configurations := plan.space.configurations(MAX_LISTED)) is not None:
        trials = min(trials, len(configurations))
    expected = full = trials * plan.epochs
    if SCHEDULERS[config.scheduler].is_halving:
        simulations = [_simulated_epochs(plan, trials, seed) for seed in range(_SIMULATIONS)]
        expected = round(float(np.mean(simulations)))
    return min(expected, config.max_epochs or expected), full


def _simulated_epochs(plan: Plan, trials: int, seed: int) -> int:
    """Return the epochs of simulated trials, which differ more than the epochs of one trial."""
    random = np.random.default_rng(seed)
    scheduler: Any = make_scheduler(plan.config, plan.space, plan.epochs, [])
    metric, sign = plan.config.metric, 1 if plan.config.mode == "max" else -1
    spent = 0
    for number in range(trials):
        trial, level = stand_in_trial(str(number)), random.normal()
        scheduler.on_trial_add(NO_CONTROLLER, trial)
        for epoch in range(1, plan.epochs + 1):
            spent += 1
            result = {"epoch": epoch, metric: sign * (level + _NOISE * random.normal())}
            if scheduler.on_trial_result(NO_CONTROLLER, trial, result) == TrialScheduler.STOP:
                break
    return spent


def rows_per_second(
    settings: Settings, backbone: Backbone, version: DatasetVersion
) -> tuple[float, str]:
    """Return the rows per second that one trial trains, and the source of that number.

    The source is the newest training with the same backbone, workers and batch size, else a few
    batches with one worker's threads on this machine.
    """
    train = settings.train
    relevant: dict[str, Params] = {
        "model": {"backbone": settings.model.backbone, "max_length": settings.model.max_length},
        "train": {"num_workers": train.max_workers, "batch_size": train.batch_size},
    }
    files = sorted(
        settings.workspace.runs_dir.glob("*/result.json"),
        key=lambda f: f.stat().st_mtime,
        reverse=True,
    )
    for file in files:
        rate = read_json(file).get("rows_per_second")
        if isinstance(rate, int | float) and _has_settings(file.parent, relevant):
            return float(rate), f"as in the run {file.parent.name}"
    rate = _measured_rate(settings, backbone, version)
    return rate * train.max_workers, f"measured on {_TIMED_BATCHES} batches here"


def _has_settings(run_dir: Path, relevant: Mapping[str, Params]) -> bool:
    """Return whether a run's recorded settings have these values, by section and name."""
    try:
        recorded = read_json(run_dir / "config.json")
        return all(
            recorded[section].get(name) == value
            for section, values in relevant.items()
            for name, value in values.items()
        )
    except (InputError, OSError, LookupError, TypeError, AttributeError):  # of another version
        return False


def _measured_rate(settings: Settings, backbone: Backbone, version: DatasetVersion) -> float:
    """Return the rows per second of one worker on a CPU, by training steps on a few batches."""
    # PyTorch and transformers take seconds to import; only a dry run without past trainings
    # measures.
    import torch
    from torch.nn import functional

    from finsent.modeling.classifier import load_tokenizer
    from finsent.training.loss import forward
    from finsent.training.model import build_model
    from finsent.training.task import make_task
    from finsent.training.tokens import SPLIT_COLUMNS, TokenizedRows, tokenize

    train, device = settings.train, torch.device("cpu")
    task = make_task(train, settings.model, backbone, version)
    batch_size = max(train.batch_size // train.max_workers, 1)
    table = version.read("train", [*SPLIT_COLUMNS]).slice(0, batch_size * (_TIMED_BATCHES + 1))
    padding = load_tokenizer(backbone.source, backbone.revision).pad_token_id
    rows = TokenizedRows.from_table(tokenize(table, **task.tokenizer_arguments), padding)
    threads = torch.get_num_threads()
    torch.set_num_threads(train.cpus_per_worker)
    try:
        model = build_model(task, device)
        begun = time.perf_counter()
        for start in range(0, len(rows), batch_size):
            if start == batch_size:
                begun = time.perf_counter()  # the first batch warms up
            batch = rows.batch(np.arange(start, min(start + batch_size, len(rows))))
            functional.cross_entropy(forward(model, batch, device), batch.labels).backward()
        return max(len(rows) - batch_size, 1) / max(time.perf_counter() - begun, 1e-6)
    finally:
        torch.set_num_threads(threads)
