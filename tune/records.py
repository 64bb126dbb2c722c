"""Records of a running sweep: `sweep.json`, `trials.jsonl`, `verification.json`.

`trials.jsonl` is append-only, one event of `tune.trial_events` per line. A reader may come at any
time: the last line may be incomplete, and a trial without an end still runs or was killed with its
sweep. A process that appends to an existing file first cuts off an incomplete line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NotRequired, TypeAlias, TypedDict

from pydantic import ConfigDict, Field, JsonValue, ValidationError, model_serializer

from finsent.errors import InputError
from finsent.records import JsonObject, Record
from tune.trial_events import (
    EVENTS,
    EpochEnded,
    Event,
    SuggestionRepeated,
    TrialEnded,
    TrialStarted,
    TrialStatus,
    finite_values,
)

SWEEP = "sweep.json"
TRIALS = "trials.jsonl"
VERIFICATION = "verification.json"
DEFAULT = "default"  # the name of the settings without any change

# Values of a configuration, by config key; conditional keys may be missing.
Params: TypeAlias = JsonObject
Mode = Literal["max", "min"]


# --- sweep.json ----------------------------------------------------------------------------------


class Objective(Record):
    """A metric to optimize."""

    name: str
    mode: Mode


class ParameterRecord(Record):
    """A parameter of the search space; keys without a value are left out of the file."""

    kind: str
    low: int | float | None = None
    high: int | float | None = None
    step: float | None = None
    choices: list[JsonValue] | None = None
    # Values of another key with which this one varies.
    when: dict[str, list[JsonValue]] | None = None

    @model_serializer
    def _serialize(self) -> dict[str, object]:
        return {key: value for key, value in dict(self).items() if value is not None}


class SweepRecord(Record):
    """`sweep.json`: a sweep's settings and state."""

    name: str | None = None
    metric: str
    mode: Mode
    objectives: list[Objective] = Field(default_factory=list)
    space: dict[str, ParameterRecord] = Field(default_factory=dict)
    scheduler: str | None = None
    search: str | None = None
    max_epochs: int | None = None  # of a trial that nothing stops
    trials: int | None = None  # configured
    concurrent: int | None = None
    created: str | None = None  # ISO time, as `finished`
    finished: str | None = None
    storage: str | None = None  # URL of the study's storage, without its password
    study_name: str | None = None
    attempts: list[float] = Field(default_factory=list)  # Unix seconds of each start
    # Settings that a resumed sweep must not change: of the sweep, and by section of its trials.
    config: JsonObject = Field(default_factory=dict)
    recipe: dict[str, JsonObject] = Field(default_factory=dict)
    dataset_version: str | None = None
    exhausted: bool = False  # the search has tried each configuration of the space

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged file."""
        return "Restore the file, or run the sweep again under another run.name."


# --- verification.json ---------------------------------------------------------------------------


class VerifiedSeed(Record):
    """A training of a candidate with one seed."""

    seed: int
    validation: float | None = None  # the metric; None for a failed training
    model_dir: str | None = None
    failure: str | None = None


class VerifiedCandidate(Record):
    """A configuration that was trained again."""

    trial: int | None = None  # None: the settings without any change
    params: Params = Field(default_factory=dict)
    sweep: float | None = None  # the value in the sweep
    mean: float | None = None  # None: a training failed
    std: float | None = None
    seeds: list[VerifiedSeed]


class Gain(Record):
    """Differences between the chosen candidate and the settings without any change."""

    mean: float
    by_seed: list[float]


class Verification(Record):
    """`verification.json`: the best configurations, trained again with other seeds."""

    candidates: list[VerifiedCandidate]
    default: VerifiedCandidate
    chosen: int | Literal["default"]  # a trial's number
    verified: float  # mean of the chosen candidate
    luck: float | None = None  # the sweep's best value less its own mean, positive where lucky
    gain: Gain | None = None
    params: Params  # of the chosen candidate
    model_dir: str  # the chosen candidate's best model
    seed: int  # of that model
    test: JsonObject | None = None  # metrics of that model on the test split

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged file."""
        return "Remove the file and run the same sweep again."

    @property
    def chosen_name(self) -> str:
        """Name of the chosen candidate: `default` or `trial 7`."""
        return DEFAULT if self.chosen == DEFAULT else f"trial {self.chosen}"


class TrainedModel(Record):
    """`trial.json` of a finished trial; older files have further keys."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    final: dict[str, float]  # by objective
    model_dir: str


class WeightsSource(Record):
    """`source.json` in a checkpoint of PBT: where another trial finds the weights."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    folder: Path = Field(alias="place")
    epoch: int


# --- in memory -----------------------------------------------------------------------------------


class TrialConfig(TypedDict):
    """A trial's config, as Ray Tune passes it to the trainable."""

    number: int
    params: Params
    source: NotRequired[str]  # known, search or resumed
    folder: NotRequired[str]  # the trial's directory, below the sweep's


class PopulationConfig(TypedDict):
    """A trial's config under PBT, which changes values inside."""

    trial: TrialConfig


@dataclass(frozen=True)
class Epoch:
    """A trial's report after one epoch."""

    epoch: int  # from 1
    time: float  # Unix seconds
    metrics: dict[str, float]  # finite
    seconds: float | None  # duration of the epoch


@dataclass(frozen=True)
class Trial:
    """A configuration and its training."""

    number: int
    params: Params
    status: TrialStatus = "running"
    reason: str | None = None  # of a stop, a divergence, a failure or an interruption
    epochs: list[Epoch] = field(default_factory=list)  # by number, each once
    values: dict[str, float] = field(default_factory=dict)  # finite, by objective
    started: float | None = None  # Unix seconds, as `ended`
    ended: float | None = None
    source: str = "search"  # known, search or resumed
    seconds: float | None = None  # of work, as the end event has it
    checkpoint: str | None = None  # the model's directory
    cause: str | None = None  # of a failure: one of CAUSES, or None


@dataclass(frozen=True)
class Sweep:
    """The state of a sweep."""

    run_dir: Path
    name: str
    objectives: list[Objective]  # at least one
    settings: SweepRecord
    trials: list[Trial]  # by number
    verification: Verification | None
    repeats: Counter[int] = field(default_factory=Counter)  # repeated suggestions, by trial

    @property
    def metric(self) -> str:
        """Name of the objective by which one trial is the best."""
        return self.settings.metric

    @property
    def mode(self) -> Mode:
        """Direction of the metric."""
        return self.settings.mode

    @property
    def space(self) -> dict[str, ParameterRecord]:
        """Parameters of the search space, by config key."""
        return self.settings.space

    @property
    def max_epochs(self) -> int | None:
        """Epochs of a trial that nothing stops."""
        return self.settings.max_epochs

    @property
    def finished(self) -> bool:
        """Whether the sweep has ended."""
        return bool(self.settings.finished)

    @property
    def repeated(self) -> int:
        """Number of suggestions that were not trained, as a trial had the same settings."""
        return self.repeats.total()

    @property
    def exhausted(self) -> bool:
        """Whether the search ended because each configuration of the space was tried."""
        return self.settings.exhausted


def read_sweep(run_dir: Path | str) -> Sweep:
    """Read the directory of a sweep that ended, still runs or was killed.

    Raises:
        InputError: it is not a sweep's directory, or a file in it is damaged.
    """
    run_dir = Path(run_dir)
    if not (run_dir / SWEEP).is_file():
        raise InputError(
            f"{str(run_dir)!r} is not a sweep's directory: it has no {SWEEP}. Name a directory "
            "that ray_jobs.sweep wrote."
        )
    settings = SweepRecord.read(run_dir / SWEEP)
    trials, repeats = _read_trials(run_dir / TRIALS)
    if settings.finished:
        trials = [_interrupted(trial) if trial.status == "running" else trial for trial in trials]
    verification = run_dir / VERIFICATION
    return Sweep(
        run_dir=run_dir,
        name=settings.name or run_dir.name,
        objectives=settings.objectives or [Objective(name=settings.metric, mode=settings.mode)],
        settings=settings,
        trials=trials,
        verification=Verification.read(verification) if verification.is_file() else None,
        repeats=repeats,
    )


def kept_value(epochs: Iterable[Mapping[str, float]], metric: str, mode: str) -> float | None:
    """Return the metric after the epoch that training would keep.

    Training keeps the epoch with the best macro-F1, the last of equals.

    Args:
        epochs: metrics in the order of the epochs; where one lacks macro-F1, the best value counts.
    """
    reported = [metrics for metrics in epochs if metric in metrics]
    if not reported:
        return None
    if all("macro_f1" in metrics for metrics in reported):
        return max(reversed(reported), key=lambda metrics: metrics["macro_f1"])[metric]
    values = [metrics[metric] for metrics in reported]
    return max(values) if mode == "max" else min(values)


def _interrupted(trial: Trial) -> Trial:
    return replace(trial, status="interrupted", reason=trial.reason or "no end was recorded")


def _read_trials(path: Path) -> tuple[list[Trial], Counter[int]]:
    """Return the trials by number, and how often each was suggested again."""
    trials: dict[int, Trial] = {}
    repeats: Counter[int] = Counter()
    if not path.is_file():
        return [], repeats
    lines = path.read_bytes().split(b"\n")
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError:
            if line_number == len(lines):
                break  # incomplete: each complete line ends with a newline
            raise _damaged(path, line_number, "not JSON") from None
        try:
            event = EVENTS.validate_python(content)
            if isinstance(event, SuggestionRepeated):  # the trial may not have started yet
                repeats[event.trial] += 1
            else:
                trials[event.trial] = _apply(trials.get(event.trial), event)
        except ValidationError as error:
            first_problem = error.errors()[0]
            key = ".".join(map(str, first_problem["loc"]))
            problem = f"{key}: {first_problem['msg']}" if key else first_problem["msg"]
            raise _damaged(path, line_number, problem) from None
        except LookupError as error:
            raise _damaged(path, line_number, str(error)) from None
    return [trials[number] for number in sorted(trials)], repeats


def _damaged(path: Path, line: int, problem: str) -> InputError:
    return InputError(
        f"{path}, line {line}: damaged ({problem}). Restore the file or remove the line."
    )


def _apply(trial: Trial | None, event: Event) -> Trial:
    """Return a trial after an event.

    Raises:
        LookupError: the trial has not started.
    """
    if isinstance(event, TrialStarted):
        return _started(trial or Trial(event.trial, {}, source=event.source), event)
    if trial is None:
        raise LookupError(f"trial {event.trial} has not started")
    if isinstance(event, EpochEnded):
        return replace(trial, epochs=_with_epoch(trial.epochs, event))
    assert isinstance(event, TrialEnded)
    return replace(
        trial,
        status=event.status,
        reason=event.reason,
        ended=event.time,
        values=finite_values(event.values),
        seconds=event.seconds,
        checkpoint=event.checkpoint,
        cause=event.cause,
    )


def _started(trial: Trial, event: TrialStarted) -> Trial:
    """Return a trial that starts or resumes."""
    return replace(
        trial,
        params=dict(event.params),
        started=event.time if trial.started is None else trial.started,
        status="running",
        reason=None,
        ended=None,
        cause=None,
    )


def _with_epoch(epochs: list[Epoch], event: EpochEnded) -> list[Epoch]:
    """Return epochs with one more; of an epoch that a resumed trial repeats, the last counts."""
    others = [epoch for epoch in epochs if epoch.epoch != event.epoch]
    added = Epoch(event.epoch, event.time, finite_values(event.metrics), event.seconds)
    return sorted([*others, added], key=lambda epoch: epoch.epoch)
