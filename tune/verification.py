"""Verification of a sweep's winner: the best configurations again, with other seeds.

The best of many trials is too high on average, as its luck was chosen with it (selection bias:
Cawley and Talbot, JMLR 11, 2010). So the best configurations and the settings without any change
are trained again with the same new seeds, and the best mean on the validation split is chosen. Only
that model is scored on the test split.
"""

from __future__ import annotations

import logging
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from finsent.errors import InputError
from finsent.files import staged_dir
from finsent.progress import progress_bar
from tune.budget import Budget
from tune.plan import Plan
from tune.progress import LIVE_SECONDS, LOG_SECONDS
from tune.records import (
    DEFAULT,
    VERIFICATION,
    Gain,
    Params,
    Sweep,
    Trial,
    TrialConfig,
    Verification,
    VerifiedCandidate,
    VerifiedSeed,
)
from tune.stats import ranked
from tune.sweep import Trainable
from tune.trial import STOP_FILE, TrialContext, run_trial
from tune.trial_report import TrialReport
from tune.tuner import make_tuner, run_tuner

log = logging.getLogger(__name__)

VERIFY_DIR = "verify"
_SEED_GAP = 1000  # between the sweep's own seed and the first new seed


@dataclass(frozen=True)
class Candidate:
    """A configuration to train again."""

    name: str  # "default" or "trial-7"
    trial: int | None  # None: the settings without any change
    params: Params
    sweep_value: float | None  # the metric in the sweep

    def folder(self, seed: int) -> str:
        """Return the directory of a training, below the sweep's."""
        return f"{VERIFY_DIR}/{self.name}-seed_{seed}"


def candidates(plan: Plan, sweep: Sweep) -> list[Candidate]:
    """Return the best configurations of a sweep, each once, and last the settings without change.

    Trials that were stopped or interrupted are candidates, too: they are trained in full now.
    """
    best: list[Candidate] = []
    for value, trial in ranked(sweep):
        is_known = trial.params == plan.default or any(c.params == trial.params for c in best)
        if not is_known and len(best) < plan.config.verify_best:
            best.append(Candidate(f"trial-{trial.number}", trial.number, trial.params, value))
    default_values = [value for value, trial in ranked(sweep) if trial.params == plan.default]
    return [*best, Candidate(DEFAULT, None, {}, next(iter(default_values), None))]


class _ListSearcher(Searcher):
    """Suggests configurations from a list, and keeps the last report of each."""

    def __init__(self, configs: Sequence[TrialConfig], metric: str, mode: str) -> None:
        super().__init__(metric=metric, mode=mode)
        self._configs, self._live = list(configs), dict[str, str]()
        self.reports: dict[str, TrialReport] = {}  # by directory
        self._epochs: dict[str, int] = {}  # by Ray Tune's ID of the trial

    @property
    def epochs(self) -> int:
        """Epochs of all trainings."""
        return sum([*self._epochs.values()])

    def suggest(self, trial_id: str) -> Any:
        """Return the next configuration; see `Searcher.suggest`."""
        if not self._configs:
            return Searcher.FINISHED
        config = self._configs.pop(0)
        self._live[trial_id] = config["folder"]
        return config

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Count epochs."""
        self._epochs[trial_id] = int(result.get("epoch", 0))

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Keep the last report."""
        report = TrialReport.parse(result)
        if error or not result:
            report = TrialReport(None, {}, failure="its process was lost")
        self.reports[self._live[trial_id]] = report

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: each training keeps its own result."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, see `save`."""


def verify(
    plan: Plan,
    context: TrialContext,
    sweep: Sweep,
    concurrent: int,
    trainable: Trainable = run_trial,
) -> Verification:
    """Train the candidates again, choose the best, and write `verification.json`.

    Finished trainings of an earlier verification are not repeated. The run's `model` becomes a copy
    of the chosen candidate's best model.

    Raises:
        InputError: no candidate could be trained with all seeds.
        BaseException: an interruption of this thread, after the trainings have ended.
    """
    config, run_dir = plan.config, sweep.run_dir
    to_train = candidates(plan, sweep)
    first_seed = plan.settings.train.seed + _SEED_GAP
    seeds = [(first_seed + i) % 2**63 for i in range(config.verify_seeds)]
    names = ", ".join(candidate.name for candidate in to_train)
    log.info("verify: %s, each trained with %d new seeds", names, len(seeds))
    reports = _train_all(plan, context, _configs(to_train, seeds), run_dir, concurrent, trainable)
    rows = [_verified(candidate, seeds, reports, config.metric) for candidate in to_train]
    result = conclude(rows, config.mode, ranked(sweep)[0], plan.default)
    model_dir = _copy_model(run_dir, Path(result.model_dir))
    result = result.replaced(model_dir=str(model_dir))
    result.write(run_dir / VERIFICATION)
    return result


def _configs(to_train: Sequence[Candidate], seeds: Sequence[int]) -> list[TrialConfig]:
    """Return the trials' configs, for each candidate with each seed."""
    pairs = [(seed, candidate) for seed in seeds for candidate in to_train]
    return [
        {
            "number": number,
            "params": {**candidate.params, "train.seed": seed},
            "folder": candidate.folder(seed),
        }
        for number, (seed, candidate) in enumerate(pairs)
    ]


def _train_all(
    plan: Plan,
    context: TrialContext,
    configs: Sequence[TrialConfig],
    run_dir: Path,
    concurrent: int,
    trainable: Trainable,
) -> Mapping[str, TrialReport]:
    """Train configurations in full; return the last reports by directory."""
    config = plan.config
    searcher = _ListSearcher(configs, config.metric, config.mode)
    attempt = len(list((run_dir / "tune").glob("verify-*"))) + 1
    unlimited = config.replaced(max_epochs=None, max_seconds=None)
    budget = Budget(unlimited, 0, 0, run_dir / STOP_FILE)  # ends only by an interruption
    tuner = make_tuner(
        tune.with_parameters(trainable, context=replace(context, exchanges_weights=False)),
        searcher,
        FIFOScheduler(),
        run_dir / "tune" / f"verify-{attempt}",
        concurrent,
        config.max_failures,
        stop=budget,
    )
    logged: set[str] = set()
    epochs = len(configs) * plan.epochs
    progress = progress_bar(
        "verify", "epoch", epochs, terminal_seconds=LIVE_SECONDS, log_seconds=LOG_SECONDS
    )

    def show_progress() -> None:
        progress.update(searcher.epochs - progress.n)
        for folder, report in [*searcher.reports.items()]:
            if folder not in logged:
                logged.add(folder)
                words = report.failure or f"{config.metric} {report.metrics[config.metric]:.4f}"
                log.info("verify: %d of %d, %s: %s", len(logged), len(configs), folder, words)

    try:
        with progress:
            run_tuner(tuner, show_progress, budget.end)
            show_progress()
    finally:
        budget.clear()
    return searcher.reports


def _verified(
    candidate: Candidate,
    seeds: Sequence[int],
    reports: Mapping[str, TrialReport],
    metric: str,
) -> VerifiedCandidate:
    not_trained = TrialReport(None, {}, failure="was not trained")
    by_seed = {seed: reports.get(candidate.folder(seed), not_trained) for seed in seeds}
    rows = [
        VerifiedSeed(
            seed=seed,
            validation=(report.final or {}).get(metric),
            model_dir=report.model_dir,
            failure=report.failure,
        )
        for seed, report in by_seed.items()
    ]
    values = [row.validation for row in rows if row.validation is not None]
    is_complete = len(values) == len(seeds)
    return VerifiedCandidate(
        trial=candidate.trial,
        params=candidate.params,
        sweep=candidate.sweep_value,
        mean=statistics.fmean(values) if is_complete else None,
        std=statistics.stdev(values) if is_complete and len(values) > 1 else None,
        seeds=rows,
    )


def conclude(
    rows: Sequence[VerifiedCandidate],
    mode: str,
    best: tuple[float, Trial],
    default_params: Mapping[str, Any] | None,
) -> Verification:
    """Choose the candidate with the best mean.

    Of equal means the settings without any change win, then the candidate that was better in the
    sweep.

    Args:
        rows: by candidate, the settings without any change last.
        best: value and trial of the sweep's best.
        default_params: the configuration of the settings without any change.

    Raises:
        InputError: no candidate was trained with all seeds.
    """
    sign = 1 if mode == "max" else -1
    default, others = rows[-1], list(rows[:-1])
    means = {row.trial: row.mean for row in [default, *others] if row.mean is not None}
    if not means:
        failures = (seed.failure for row in rows for seed in row.seeds if seed.failure)
        raise InputError(
            "verify: no candidate could be trained with all seeds "
            f"({next(failures, 'no reason given')}). Remove the reason, and run the same command "
            "again."
        )
    chosen_trial, mean = max(means.items(), key=lambda item: sign * item[1])
    chosen = next(row for row in rows if row.trial == chosen_trial)
    value, trial = best
    own_mean = means.get(None if trial.params == default_params else trial.number)
    top = max(chosen.seeds, key=lambda seed: sign * (seed.validation or 0.0))
    assert top.model_dir is not None, "a training with a value has a model"
    return Verification(
        candidates=others,
        default=default,
        chosen=DEFAULT if chosen_trial is None else chosen_trial,
        verified=mean,
        luck=None if own_mean is None else sign * (value - own_mean),
        gain=_gain(chosen, default),
        params=chosen.params,
        model_dir=top.model_dir,
        seed=top.seed,
    )


def _gain(chosen: VerifiedCandidate, default: VerifiedCandidate) -> Gain | None:
    """Return the differences by seed; None where the settings without any change have no mean."""
    if default.mean is None:
        return None
    pairs = [
        (seed.validation, default_seed.validation)
        for seed, default_seed in zip(chosen.seeds, default.seeds, strict=True)
    ]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    return Gain(mean=statistics.fmean(differences), by_seed=differences)


def _copy_model(run_dir: Path, trained: Path) -> Path:
    """Copy the chosen model to the run's `model`: a longer sweep may choose the original again."""
    model_dir = run_dir / "model"
    with staged_dir(model_dir, replace=True) as staging:
        shutil.copytree(trained, staging, dirs_exist_ok=True)
    return model_dir
