"""Ray Tune's schedulers, one function per scheduler of `tune.algorithms`.

Trials report once per epoch, under the key `epoch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, TypedDict

from pydantic import JsonValue
from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from finsent.adapters.ray_tune import NEVER_PAUSE, NO_CONTROLLER, stand_in_trial
from finsent.errors import ConfigError
from tune.algorithms import SCHEDULERS
from tune.config import SweepConfig
from tune.records import PopulationConfig, Trial
from tune.space import Parameter, Space
from tune.trial_report import FAILURE

# A trial cannot continue with another trial's weights under another value of these settings.
_FIXED_WHILE_TRAINING = (
    "train.epochs",
    "train.lora",
    "train.distill",
    "train.trainer",
    "train.seed",
    "train.num_workers",
    "data.",
    "model.",
)
_MAX_BRACKETS = 3  # of HyperBand; each begins one rung later


class SchedulerKeys(TypedDict):
    """Arguments of each of Ray Tune's schedulers."""

    time_attr: str
    metric: str
    mode: str


@dataclass(frozen=True)
class SchedulerRequest:
    """Inputs of a scheduler's factory."""

    config: SweepConfig
    space: Space
    epochs: int  # of the longest trial
    past: Sequence[Trial]  # trials of earlier processes, with which halving schedulers continue

    @property
    def keys(self) -> SchedulerKeys:
        """Arguments of each of Ray Tune's schedulers."""
        return {"time_attr": "epoch", "metric": self.config.metric, "mode": self.config.mode}


def make_scheduler(
    config: SweepConfig, space: Space, epochs: int, past: Sequence[Trial]
) -> TrialScheduler:
    """Return the scheduler of a sweep.

    Args:
        epochs: of the longest trial.
        past: trials of earlier processes, with which halving schedulers continue.

    Raises:
        ConfigError: scheduler=pbt, and the space has a setting that a running trial cannot change.
    """
    scheduler = SCHEDULERS[config.scheduler]
    if epochs <= config.grace_epochs and not scheduler.is_population:
        return FIFOScheduler()  # no trial could end early
    factory: Callable[[SchedulerRequest], Any] = resolve_name(scheduler.factory)
    made: TrialScheduler = factory(SchedulerRequest(config, space, epochs, past))
    return made


def none(request: SchedulerRequest) -> TrialScheduler:  # noqa: ARG001
    """Return the scheduler that ends no trial."""
    return FIFOScheduler()


def halving(request: SchedulerRequest, brackets: int = 1) -> TrialScheduler:
    """Return ASHA (Li et al., arXiv:1810.05934).

    Args:
        brackets: of rungs; a trial is in one of them at random.
    """
    return ResumedHalving(
        request.past,
        **request.keys,
        # No rung at the last epoch, which saves nothing. Ray Tune accepts fractions.
        max_t=request.epochs - 0.5,
        grace_period=request.config.grace_epochs,
        reduction_factor=request.config.reduction,
        brackets=brackets,
        stop_last_trials=False,  # a trial's last report is not its end
    )


def hyperband(request: SchedulerRequest) -> TrialScheduler:
    """Return HyperBand in its asynchronous form: brackets of ASHA, as in the same paper."""
    config = request.config
    rungs, rung_epochs = 1, config.grace_epochs * config.reduction
    while rung_epochs < request.epochs and rungs < _MAX_BRACKETS:
        rungs, rung_epochs = rungs + 1, rung_epochs * config.reduction
    return halving(request, brackets=rungs)


def median(request: SchedulerRequest) -> TrialScheduler:
    """Return median stopping (Golovin et al., Google Vizier, KDD 2017, section 3.2.2)."""
    return MedianStoppingRule(
        **request.keys,
        grace_period=request.config.grace_epochs,
        # Otherwise a trial without rivals is paused for a waiting one. It then trains from the
        # start again, which costs more than the epoch that the other trial gains.
        min_time_slice=NEVER_PAUSE,
    )


def population(request: SchedulerRequest) -> TrialScheduler:
    """Return population-based training (Jaderberg et al., arXiv:1711.09846).

    Raises:
        ConfigError: the space has a setting that a running trial cannot change.
    """
    parameters = request.space.parameters
    for parameter in parameters:
        if parameter.key.startswith(_FIXED_WHILE_TRAINING):
            raise ConfigError(
                f"sweep.space.{parameter.key}: a running trial cannot change this setting, and "
                "scheduler=pbt takes weights from trial to trial. Remove the key, or set "
                "sweep.scheduler=asha."
            )
    domains = {parameter.key: _tune_domain(parameter) for parameter in parameters}
    return AlignedPopulation(
        request.config.grace_epochs,
        request.epochs,
        **request.keys,
        hyperparam_mutations={"trial": {"params": domains}},
        custom_explore_fn=_clip_to(request.space),
    )


class ResumedHalving(AsyncHyperBandScheduler):
    """ASHA that knows what trials reported to the scheduler of an earlier process.

    A resumed trial reports all of its epochs again. It is not judged again at the rungs that it has
    passed.

    Args:
        past: trials of earlier processes.
        settings: arguments of the base class, among them `metric`.
    """

    def __init__(self, past: Sequence[Trial], **settings: Any) -> None:
        super().__init__(**settings)
        self._metric_name: str = settings["metric"]
        self._resumable = {t.number: t for t in past if t.status in ("running", "interrupted")}
        for trial in past:
            if trial.status in ("finished", "stopped"):
                stand_in = stand_in_trial(f"past-{trial.number}")
                super().on_trial_add(NO_CONTROLLER, stand_in)
                self._replay(stand_in, trial)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Register a trial, and replay the epochs of a resumed one."""
        super().on_trial_add(tune_controller, trial)
        if self._resumable and (before := self._resumable.pop(trial.config["number"], None)):
            self._replay(trial, before)

    def _replay(self, trial: Any, past: Trial) -> None:
        for epoch in past.epochs:
            if (value := epoch.metrics.get(self._metric_name)) is not None:
                result = {"epoch": epoch.epoch, self._metric_name: value}
                self.on_trial_result(NO_CONTROLLER, trial, result)


class AlignedPopulation(PopulationBasedTraining):
    """PBT that exchanges only after epochs with a checkpoint, and before the last epoch.

    Ray's class counts from the first epoch that it sees, which after a resume may be any.

    Args:
        interval: epochs between two exchanges.
        epochs: of a trial.
        settings: arguments of the base class.
    """

    def __init__(self, interval: int, epochs: int, **settings: Any) -> None:
        super().__init__(perturbation_interval=interval, **settings)
        self._interval, self._epochs = interval, epochs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Return whether a trial continues or exchanges; a failed trial gives no weights."""
        epoch = result["epoch"]
        if FAILURE in result or epoch % self._interval or epoch >= self._epochs:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, dict(result)))


def _tune_domain(parameter: Parameter) -> Any:
    """Return a parameter as Ray Tune's PBT resamples it."""
    low, high = parameter.low, parameter.high
    if parameter.kind == "choice":
        return list(parameter.choices)
    if parameter.kind == "int":
        return tune.randint(int(low), int(high) + 1)
    if parameter.step:
        return tune.quniform(low, high, parameter.step)
    return (tune.loguniform if parameter.kind == "loguniform" else tune.uniform)(low, high)


def _clip_to(space: Space) -> Callable[[PopulationConfig], PopulationConfig]:
    """Return a function that moves a perturbed configuration back into the space.

    PBT multiplies numbers by 0.8 or 1.2.
    """

    def clip(config: PopulationConfig) -> PopulationConfig:
        params = config["trial"]["params"]
        for parameter in space.parameters:
            if parameter.kind != "choice":
                params[parameter.key] = _nearest_value(parameter, _number(params[parameter.key]))
        return config

    return clip


def _number(value: JsonValue) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number, but its range is numeric")
    return value


def _nearest_value(parameter: Parameter, current: float) -> float | int:
    low, high, step = parameter.low, parameter.high, parameter.step
    value = min(max(current, low), high)
    if step:
        value = round(low + round((value - low) / step) * step, 12)
        value = value if value <= high else round(value - step, 12)
    return int(value) if parameter.kind == "int" else float(value)
