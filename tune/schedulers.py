"""Which trials end early: Ray Tune's schedulers, set up for trials that report once an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from finsent.errors import ConfigError
from tune.config import SweepConfig
from tune.records import Trial
from tune.space import Parameter, Space
from tune.trial_outcome import FAILURE

# Weights of one cannot go on under another's value of these.
_NOT_EXCHANGED = (
    "train.epochs",
    "train.lora",
    "train.distill",
    "train.trainer",
    "train.seed",
    "train.num_workers",
    "data.",
    "model.",
)
_NOBODY: Any = None  # in the place of Ray Tune's controller
_RUNGS = 3  # HyperBand's brackets at most: each begins one rung later


def scheduler_of(
    config: SweepConfig, space: Space, epochs: int, past: Sequence[Trial]
) -> TrialScheduler:
    """The scheduler of a sweep.

    - asha: Li et al., A System for Massively Parallel Hyperparameter Tuning (arXiv:1810.05934).
    - hyperband: its brackets side by side, without waiting for a whole rung, as there.
    - median: Golovin et al., Google Vizier (KDD 2017), section 3.2.2.
    - pbt: Jaderberg et al., Population Based Training (arXiv:1711.09846).

    Args:
        epochs: of the longest trial.
        past: trials before this process; asha and hyperband go on with their results.

    Raises:
        ConfigError: pbt, and the space has a setting that a trial cannot change as it runs.
    """
    common: dict[str, Any] = {"time_attr": "epoch", "metric": config.metric, "mode": config.mode}
    if epochs <= config.grace_epochs and config.scheduler != "pbt":
        return FIFOScheduler()  # no trial could end early
    if config.scheduler in ("asha", "hyperband"):
        return _Resumed(
            past,
            **common,
            # No rung at the last epoch, where nothing is left to save.
            max_t=epochs - 0.5,  # works with fractions
            grace_period=config.grace_epochs,
            reduction_factor=config.reduction,
            brackets=1 if config.scheduler == "asha" else _brackets(config, epochs),
            stop_last_trials=False,  # a trial's last report is not its end
        )
    if config.scheduler == "median":
        return MedianStoppingRule(
            **common,
            grace_period=config.grace_epochs,
            # Else a trial with nothing to compare is paused for one that waits: its training starts
            # anew, which costs more than the epoch that the other wins.
            min_time_slice=math.inf,  # type: ignore[arg-type]
        )
    if config.scheduler == "pbt":
        return _pbt(config, space, epochs, common)
    return FIFOScheduler()


def _brackets(config: SweepConfig, epochs: int) -> int:
    rungs, at = 1, config.grace_epochs * config.reduction
    while at < epochs and rungs < _RUNGS:
        rungs, at = rungs + 1, at * config.reduction
    return rungs


class _Resumed(AsyncHyperBandScheduler):
    """Knows what trials reported to the scheduler before it, under other ids.

    A trial that goes on reports all of its epochs again; it is not judged again at the rungs that
    it has passed.

    Args:
        past: trials before this process.
        settings: of the base class.
    """

    def __init__(self, past: Sequence[Trial], **settings: Any) -> None:
        super().__init__(**settings)
        self._going_on = {t.number: t for t in past if t.status in ("running", "interrupted")}
        for trial in past:
            if trial.status in ("finished", "stopped"):
                known: Any = SimpleNamespace(trial_id=f"past-{trial.number}")
                super().on_trial_add(_NOBODY, known)
                self._replay(known, trial)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial begins, or goes on."""
        super().on_trial_add(tune_controller, trial)
        if self._going_on and (before := self._going_on.pop(trial.config["number"], None)):
            self._replay(trial, before)

    def _replay(self, trial: Any, before: Trial) -> None:
        for epoch in before.epochs:
            if self._metric in epoch.metrics:
                result = {"epoch": epoch.epoch, self._metric: epoch.metrics[self._metric]}
                self.on_trial_result(_NOBODY, trial, result)


class _Aligned(PopulationBasedTraining):
    """Exchanges only after epochs whose checkpoints stay, and while there are epochs left to train.

    Ray's class counts from the first epoch that it hears of, which after a resume may be any.

    Args:
        every: epochs.
        epochs: of a trial.
        settings: of the base class.
    """

    def __init__(self, every: int, epochs: int, **settings: Any) -> None:
        super().__init__(perturbation_interval=every, **settings)
        self._every, self._epochs = every, epochs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """A trial has finished an epoch."""
        epoch = result["epoch"]
        if FAILURE in result or epoch % self._every or epoch >= self._epochs:
            return str(TrialScheduler.CONTINUE)  # what failed gives no weights away, and ends
        return str(super().on_trial_result(tune_controller, trial, result))


def _pbt(
    config: SweepConfig, space: Space, epochs: int, common: Mapping[str, Any]
) -> PopulationBasedTraining:
    for one in space.parameters:
        if one.key.startswith(_NOT_EXCHANGED):
            raise ConfigError(
                f"sweep.space.{one.key}: scheduler=pbt takes weights from trial to trial, which "
                "this setting does not allow; take it out, or set sweep.scheduler=asha"
            )
    return _Aligned(
        config.grace_epochs,
        epochs,
        **common,
        hyperparam_mutations={
            "trial": {"params": {one.key: _domain(one) for one in space.parameters}}
        },
        custom_explore_fn=_clipped(space),
    )


def _domain(one: Parameter) -> Any:
    if one.kind == "choice":
        return list(one.choices)
    if one.kind == "int":
        return tune.randint(int(one.low), int(one.high) + 1)
    if one.step:
        return tune.quniform(one.low, one.high, one.step)
    return (tune.loguniform if one.kind == "loguniform" else tune.uniform)(one.low, one.high)


def _clipped(space: Space) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What varies a configuration by a fifth may leave the space: bring it back."""

    def clip(config: dict[str, Any]) -> dict[str, Any]:
        for one in space.parameters:
            if one.kind == "choice":
                continue
            value = min(max(config["trial"]["params"][one.key], one.low), one.high)
            if one.step:
                value = round(one.low + round((value - one.low) / one.step) * one.step, 12)
                value = value if value <= one.high else round(value - one.step, 12)
            config["trial"]["params"][one.key] = int(value) if one.kind == "int" else value
        return config

    return clip
