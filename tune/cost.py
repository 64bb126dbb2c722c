"""What a sweep is going to cost: epochs by trying its scheduler on made-up trials, and seconds."""

from __future__ import annotations

import json
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import TrialScheduler

from finsent.data.versions.dataset import DatasetVersion
from finsent.files import read_json
from finsent.modeling.backbone import Backbone
from finsent.settings import Settings
from tune.plan import Plan
from tune.schedulers import scheduler_of
from tune.search import MAX_LISTED
from tune.study import sampler_of

_DRAWS = 20
_MAX_DRAWS = 1000  # to find configurations that differ
_TIMED = 4  # batches


def samples(plan: Plan, count: int) -> list[dict[str, Any]]:
    """Configurations that the search would begin with."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions: list[Any] = ["maximize"] * len(plan.config.modes)
    study = optuna.create_study(sampler=sampler_of(plan.config, 0), directions=directions)
    found = [dict(params) for params in plan.first][:count]
    if plan.config.search == "grid":
        rest = (point for point in plan.space.grid() if point not in found)
        return [*found, *(point for point, _ in zip(rest, range(count - len(found)), strict=False))]
    seen = {plan.space.identity(params) for params in found}
    for params in (plan.space.sample(study.ask()) for _ in range(_MAX_DRAWS)):
        if len(found) >= count:
            break
        if (identity := plan.space.identity(params)) not in seen:
            seen.add(identity)
            found.append(params)
    return found


def expected_epochs(plan: Plan) -> tuple[int, int]:
    """Epochs that a sweep's trials make: on average where early stopping ends some; all in full."""
    config = plan.config
    trials = config.trials
    if config.search == "grid":
        rest = (point for point in plan.space.grid() if point not in plan.first)
        trials = min(trials, len(plan.first) + sum(1 for _ in islice(rest, trials)))
    elif (points := plan.space.points(MAX_LISTED)) is not None:
        trials = min(trials, len(points))
    full = trials * plan.epochs
    if config.scheduler not in ("asha", "hyperband"):
        expected = full
    else:
        expected = round(float(np.mean([_drawn(plan, trials, seed) for seed in range(_DRAWS)])))
    return min(expected, config.max_epochs or expected), full


def _drawn(plan: Plan, trials: int, seed: int) -> int:
    """Epochs of trials that differ from each other more than their epochs do."""
    nobody: Any = None  # in the place of Ray Tune's controller
    random = np.random.default_rng(seed)
    scheduler: Any = scheduler_of(plan.config, plan.space, plan.epochs, [])
    spent = 0
    for number in range(trials):
        trial, level = SimpleNamespace(trial_id=str(number)), random.normal()
        scheduler.on_trial_add(nobody, trial)
        for epoch in range(1, plan.epochs + 1):
            spent += 1
            value = level + random.normal() / 2
            value = value if plan.config.mode == "max" else -value
            result = {"epoch": epoch, plan.config.metric: value}
            if scheduler.on_trial_result(nobody, trial, result) == TrialScheduler.STOP:
                break
    return spent


def row_rate(settings: Settings, backbone: Backbone, version: DatasetVersion) -> tuple[float, str]:
    """Rows a second that one trial trains, and how that is known.

    From the last training with the same backbone, workers and batch size, else from a few batches
    on one worker's threads of this machine.
    """
    train = settings.train
    wanted: dict[str, dict[str, Any]] = {
        "model": {"backbone": settings.model.backbone, "max_length": settings.model.max_length},
        "train": {"num_workers": train.max_workers, "batch_size": train.batch_size},
    }
    for file in sorted(
        settings.runs_dir.glob("*/result.json"), key=lambda f: f.stat().st_mtime, reverse=True
    ):
        result, config = read_json(file), _config_of(file.parent)
        same = all(
            config.get(section, {}).get(key) == value
            for section, keys in wanted.items()
            for key, value in keys.items()
        )
        if same and isinstance(result.get("rows_per_second"), int | float):
            return float(result["rows_per_second"]), f"as in the run {file.parent.name}"
    rate = _measured(settings, backbone, version)
    return rate * train.max_workers, f"measured on {_TIMED} batches here"


def _config_of(run_dir: Path) -> dict[str, Any]:
    try:
        found = json.loads((run_dir / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _measured(settings: Settings, backbone: Backbone, version: DatasetVersion) -> float:
    """Rows a second of one worker on a CPU, by forward and backward passes of some batches."""
    import torch
    from torch.nn import functional

    from finsent.modeling.classifier import load_tokenizer
    from finsent.training.loss import forward
    from finsent.training.model import build_model
    from finsent.training.task import make_task
    from finsent.training.tokens import SPLIT_COLUMNS, TokenizedRows, tokenize

    train, device = settings.train, torch.device("cpu")
    task = make_task(train, settings.model, backbone, version)
    size = max(train.batch_size // train.max_workers, 1)
    table = version.read("train", [*SPLIT_COLUMNS]).slice(0, size * (_TIMED + 1))
    pad = load_tokenizer(backbone.source, backbone.revision).pad_token_id
    rows = TokenizedRows.from_table(tokenize(table, **task.tokenizer_arguments), pad)
    before = torch.get_num_threads()
    torch.set_num_threads(train.cpus_per_worker)
    try:
        model = build_model(task, device)
        begun = time.perf_counter()
        for start in range(0, len(rows), size):
            if start == size:
                begun = time.perf_counter()  # the first batch warms up
            batch = rows.batch(np.arange(start, min(start + size, len(rows))))
            functional.cross_entropy(forward(model, batch, device), batch.labels).backward()
        return max(len(rows) - size, 1) / max(time.perf_counter() - begun, 1e-6)
    finally:
        torch.set_num_threads(before)
