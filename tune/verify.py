"""Is the winner better, or was it lucky? The best configurations again, with other seeds.

The best of many trials is too high on average, as its luck was chosen with it (selection bias:
Cawley and Talbot, JMLR 11, 2010). So the best few, and the settings as they are, are trained again
with the same new seeds, the best mean is chosen on the validation split, and the test split is for
that one only.
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
from finsent.files import staged_dir, write_json
from finsent.progress import progress_bar
from tune.outcomes import FAILURE, FINAL
from tune.plan import Plan
from tune.progress import LIVE, LOG
from tune.records import VERIFICATION, Sweep, Trial
from tune.stats import ranked
from tune.sweep import Budget, Trainable, make_tuner, run_tuner
from tune.trial import STOP, Work, run_trial

log = logging.getLogger(__name__)

FOLDER = "verify"
DEFAULT = "default"  # the settings without change
_SEED_GAP = 1000  # the new seeds lie that far from the sweep's own


@dataclass(frozen=True)
class Candidate:
    """A configuration that is trained again."""

    name: str  # "default" or "trial-7"
    trial: int | None
    params: dict[str, Any]
    reached: float | None  # in the sweep


def candidates(plan: Plan, sweep: Sweep) -> list[Candidate]:
    """The best configurations of a sweep, each once, and the settings as they are, last.

    Also of trials that were stopped or interrupted: they are trained in full now.
    """
    found: list[Candidate] = []
    for value, trial in ranked(sweep):
        same = trial.params == plan.default or any(c.params == trial.params for c in found)
        if not same and len(found) < plan.config.verify_best:
            found.append(Candidate(f"trial-{trial.number}", trial.number, trial.params, value))
    reached = [v for v, t in ranked(sweep) if t.params == plan.default]
    return [*found, Candidate(DEFAULT, None, {}, reached[0] if reached else None)]


class _Fixed(Searcher):
    """Gives out configurations from a list, and keeps what became of each."""

    def __init__(self, configs: Sequence[dict[str, Any]], metric: str, mode: str) -> None:
        super().__init__(metric=metric, mode=mode)
        self._left, self._live = list(configs), dict[str, str]()
        self.found: dict[str, dict[str, Any]] = {}  # by place
        self.epochs: dict[str, int] = {}  # that are done, by trial

    def suggest(self, trial_id: str) -> Any:
        """See `Searcher.suggest`."""
        if not self._left:
            return Searcher.FINISHED
        config = self._left.pop(0)
        self._live[trial_id] = config["place"]
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Count epochs."""
        self.epochs[trial_id] = int(result.get("epoch", 0))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Keep the last report."""
        lost = {FAILURE: "its process was lost"}
        self.found[self._live[trial_id]] = lost if error or not result else dict(result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: each training keeps its own result."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


def verify(
    plan: Plan, work: Work, sweep: Sweep, concurrent: int, trainable: Trainable = run_trial
) -> dict[str, Any]:
    """Train the candidates again and choose; what was trained before is not trained again.

    Writes `verification.json`: `candidates` and `default` (mean, std, seeds: each with `seed`,
    `validation`, `model_dir`), `chosen` (a trial's number or "default"), `verified` (its mean),
    `luck` (what the sweep's best had above what it was worth), `gain` (chosen less default, by
    seed), `model_dir` (the chosen one's best model).

    Raises:
        InputError: not one candidate could be trained with all seeds.
        BaseException: whatever interrupts this thread, when the trainings have been ended.
    """
    config, run_dir = plan.config, sweep.run_dir
    found = candidates(plan, sweep)
    first = plan.settings.train.seed + _SEED_GAP
    seeds = [(first + i) % 2**63 for i in range(config.verify_seeds)]
    configs = _configs(found, seeds)
    log.info(
        "verify: %s, each trained with %d new seeds", ", ".join(c.name for c in found), len(seeds)
    )
    searcher = _Fixed(configs, config.metric, config.mode)
    attempt = len(list((run_dir / "tune").glob("verify-*"))) + 1
    unlimited = config.replaced(max_epochs=None, max_seconds=None)
    end = Budget(unlimited, 0, 0, run_dir / STOP)  # only where this thread is interrupted
    tuner = make_tuner(
        tune.with_parameters(trainable, work=replace(work, exchanges=False)),
        searcher,
        FIFOScheduler(),
        run_dir / "tune" / f"verify-{attempt}",
        concurrent,
        config.max_failures,
        stop=end,
    )
    told: set[str] = set()
    progress = progress_bar(
        "verify", "epoch", len(configs) * plan.epochs, terminal_seconds=LIVE, log_seconds=LOG
    )

    def show() -> None:
        progress.update(sum(searcher.epochs.values()) - progress.n)
        for place in [*searcher.found]:
            if place not in told:
                told.add(place)
                last = searcher.found[place]
                said = last.get(FAILURE) or f"{config.metric} {last[config.metric]:.4f}"
                log.info("verify: %d of %d, %s: %s", len(told), len(configs), place, said)

    try:
        with progress:
            run_tuner(tuner, show, end.end)
            show()
    finally:
        end.clear()
    rows = [_row(c, seeds, searcher.found, config.metric) for c in found]
    result = conclude(rows, config.mode, ranked(sweep)[0], plan.default)
    _keep_model(run_dir, result)
    write_json(run_dir / VERIFICATION, result)
    return result


def _configs(found: Sequence[Candidate], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What `run_trial` takes, for each candidate with each seed."""
    return [
        {
            "number": number,
            "params": {**candidate.params, "train.seed": seed},
            "place": _place(candidate, seed),
        }
        for number, (seed, candidate) in enumerate((s, c) for s in seeds for c in found)
    ]


def _place(candidate: Candidate, seed: int) -> str:
    return f"{FOLDER}/{candidate.name}-seed_{seed}"


def _row(
    candidate: Candidate, seeds: Sequence[int], found: Mapping[str, Mapping[str, Any]], metric: str
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        last = found.get(_place(candidate, seed), {FAILURE: "was not trained"})
        rows.append(
            {
                "seed": seed,
                "validation": last.get(f"{FINAL}/{metric}"),
                "model_dir": last.get("model_dir"),
                "failure": last.get(FAILURE),
            }
        )
    values = [row["validation"] for row in rows if row["validation"] is not None]
    whole = len(values) == len(seeds)
    return {
        "trial": candidate.trial,
        "params": candidate.params,
        "sweep": candidate.reached,
        "mean": statistics.fmean(values) if whole else None,
        "std": statistics.stdev(values) if whole and len(values) > 1 else None,
        "seeds": rows,
    }


def conclude(
    rows: Sequence[dict[str, Any]],
    mode: str,
    best: tuple[float, Trial],
    default_point: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Choose the best mean; of equals the settings as they are, then the better in the sweep.

    Args:
        rows: by candidate, the default last.
        best: value and trial of the sweep's best.
        default_point: the params that a trial of the default has.

    Raises:
        InputError: none was trained with all seeds.
    """
    sign = 1 if mode == "max" else -1
    default, others = rows[-1], list(rows[:-1])
    whole = [row for row in [default, *others] if row["mean"] is not None]
    if not whole:
        why = next((s["failure"] for row in rows for s in row["seeds"] if s["failure"]), "")
        raise InputError(f"verify: not one candidate could be trained with all seeds ({why})")
    chosen = max(whole, key=lambda row: sign * row["mean"])
    value, trial = best
    means = {row["trial"]: row["mean"] for row in others}
    again = default["mean"] if trial.params == default_point else means.get(trial.number)
    top = max(chosen["seeds"], key=lambda seed: sign * seed["validation"])
    return {
        "candidates": others,
        "default": default,
        "chosen": DEFAULT if chosen is default else chosen["trial"],
        "verified": chosen["mean"],
        "luck": None if again is None else sign * (value - again),
        "gain": _gain(chosen, default),
        "params": chosen["params"],
        "model_dir": top["model_dir"],
        "seed": top["seed"],
    }


def _gain(chosen: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any] | None:
    """Differences by seed; None where the default has none."""
    if default["mean"] is None:
        return None
    pairs = zip(chosen["seeds"], default["seeds"], strict=True)
    differences = [a["validation"] - b["validation"] for a, b in pairs]
    return {"mean": statistics.fmean(differences), "by_seed": differences}


def _keep_model(run_dir: Path, result: dict[str, Any]) -> None:
    """The run's model is a copy of the chosen one, which a longer sweep may choose again."""
    final = run_dir / "model"
    with staged_dir(final, replace=True) as staging:
        shutil.copytree(result["model_dir"], staging, dirs_exist_ok=True)
    result["model_dir"] = str(final)
