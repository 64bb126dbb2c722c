"""Results of a sweep: `best.yaml`, the page, and the job's result."""

from __future__ import annotations

import logging
from pathlib import Path

from finsent.config import to_yaml
from finsent.errors import InputError
from finsent.files import write_text
from finsent.records import JsonObject
from tune.analysis import analyze
from tune.importance import pareto_front
from tune.plan import Plan
from tune.records import Params, Sweep, Verification, read_sweep
from tune.results import SweepResult, VerifiedResult
from tune.space import with_values
from tune.stats import (
    LEARNING_RATE,
    driver_share,
    failure_notes,
    ranked,
    savings,
    trial_count_note,
)
from tune.trial_events import DIVERGED

log = logging.getLogger(__name__)

BEST = "best.yaml"


def write_best(plan: Plan, run_dir: Path, params: Params, comment: str) -> Path:
    """Write `best.yaml`, the sections data, model and train of a configuration."""
    path = run_dir / BEST
    body = to_yaml(with_values(plan.settings, params), ("data", "model", "train"))
    write_text(path, f"# {comment}\n{body}")
    return path


def report_interrupted(plan: Plan, run_dir: Path) -> None:
    """Write the best configuration so far and log how to resume, after an interruption."""
    trials = ranked(read_sweep(run_dir))
    if trials:
        value, best = trials[0]
        comment = (
            f"Best so far of the sweep {run_dir.name}: trial {best.number}, "
            f"{plan.config.metric} {value:.4f}, not verified."
        )
        log.info("sweep: %s %s", comment, write_best(plan, run_dir, best.params, comment))
        if page := _write_page(run_dir):
            log.info("sweep: %s", page)
    log.info("sweep: resume by the same command with run.name=%s", run_dir.name)


def _write_page(run_dir: Path) -> str | None:
    """Write the sweep's page and return its path; None: no trial has ended with a value."""
    try:
        return str(analyze([run_dir])["page"])
    except InputError as error:
        log.info("sweep: no page yet: %s", error)
        return None


def report_sweep(plan: Plan, run_dir: Path, verification: Verification | None) -> SweepResult:
    """Write `best.yaml` and the page, log what the sweep found, and return the job's result.

    Args:
        verification: with `test`; None: nothing was verified.
    """
    sweep, config = read_sweep(run_dir), plan.config
    value, best = ranked(sweep)[0]
    if verification is None:
        params = best.params
        finding = f"trial {best.number}, {config.metric} {value:.4f}, not verified"
    else:
        params = verification.params
        mean = f"{config.metric} {verification.verified:.4f} on average over new seeds"
        finding = f"{verification.chosen_name}, {mean}"
    path = write_best(plan, run_dir, params, f"Found by the sweep {run_dir.name}: {finding}.")
    page = _write_page(run_dir)
    for line in filter(None, (trial_count_note(sweep), *failure_notes(sweep))):
        log.info("sweep: %s", line)
    log.info("sweep: %s; %s", finding, page or path)
    saved = savings(sweep)
    return SweepResult(
        trials=dict(sorted(_status_counts(sweep).items())),
        trials_wanted=config.trials,
        repeated=sweep.repeated,
        exhausted=sweep.exhausted,
        epochs=saved.epochs + saved.other_epochs,
        spent_share=saved.share,
        driver_share=driver_share(sweep),
        best={"trial": best.number, config.metric: value, "params": best.params},
        verified=VerifiedResult.of(verification) if verification else None,
        front=_front(sweep),
        best_yaml=str(path),
        page=page,
        storage=sweep.settings.storage,
        study=sweep.settings.study_name,
    )


def _status_counts(sweep: Sweep) -> dict[str, int]:
    """Return the number of trials by status, in the order of the trials."""
    statuses = [trial.status for trial in sweep.trials]
    return {status: statuses.count(status) for status in dict.fromkeys(statuses)}


def _front(sweep: Sweep) -> list[JsonObject] | None:
    """Return the trials of the Pareto front; None: the sweep has one objective."""
    if len(sweep.objectives) < 2:
        return None
    numbers = pareto_front(sweep)
    return [
        {"trial": trial.number, **trial.values, "params": trial.params}
        for trial in sweep.trials
        if trial.number in numbers
    ]


def without_value(plan: Plan, sweep: Sweep) -> InputError:
    """Return the error of a sweep in which no trial has a value."""
    count, reasons = len(sweep.trials), [t.reason for t in sweep.trials if t.reason]
    reason = reasons[0].partition("; last good checkpoint")[0] if reasons else "none was started"
    if count and all(trial.status == DIVERGED for trial in sweep.trials):
        field, form = LEARNING_RATE, plan.config.space.get(LEARNING_RATE)
        if form is not None:
            field = f"sweep.space.{LEARNING_RATE}={form}"
        trials = "the only trial" if count == 1 else f"all {count} trials"
        return InputError(
            f"{field}: {trials} diverged (e.g. {reason}). Set a lower rate under another run.name."
        )
    counts = ", ".join(f"{number} {status}" for status, number in _status_counts(sweep).items())
    return InputError(f"sweep: not one of {count} trials has a value ({counts}; first: {reason})")
