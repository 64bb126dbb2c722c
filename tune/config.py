"""Settings of hyperparameter sweeps."""

from __future__ import annotations

import math

from pydantic import SerializationInfo, field_serializer, model_validator

from finsent.config import FOR_RECORDS, Section, setting
from finsent.names import Alias
from finsent.records import JsonObject
from tune.algorithms import (
    SCHEDULERS,
    SEARCH_ALGORITHMS,
    SchedulerName,
    SearchName,
    summaries,
)
from tune.storage import masked_url

# Metrics that training reports after each epoch, and which direction is better.
REPORTED = {"macro_f1": "max", "accuracy": "max", "validation_loss": "min"}
# Values of a model that has learned nothing. No macro-F1 is lower; a loss of ln 3 is that of three
# labels with equal probabilities.
UNLEARNED = {"macro_f1": 0.0, "accuracy": 0.0, "validation_loss": math.log(3)}
# Objectives that are measured on a finished trial's model, and which direction is better.
MEASURED = {"latency_ms": "min", "parameters": "min", "ece": "min"}

_IN_MEMORY = ("sqlite://", "sqlite:///", "sqlite:///:memory:")


class SweepConfig(Section):
    """Search space, search, budget, and verification of the winner."""

    space: JsonObject = setting(
        dict,
        "search space, by key of the sections train, model and data: {loguniform: [LOW, HIGH]}, "
        "{uniform: [LOW, HIGH]}, {int: [LOW, HIGH]}, {quantized: [LOW, HIGH, STEP]} or {choice: "
        "[A, B]}; with `when: {KEY: VALUE}` a key varies only where KEY has that value",
    )
    metric: str = setting(
        "macro_f1",
        f"metric to optimize, on the validation split: {', '.join(REPORTED)}; a trial's value is "
        "that of the epoch that training would keep",
    )
    objectives: list[str] = setting(
        list,
        f"further objectives, measured on each finished trial's model: {', '.join(MEASURED)}; the "
        "answer then is the Pareto front, and the best trial by `metric` is verified",
    )
    trials: int = setting(12, "number of configurations to train, each once", ge=1)
    max_seconds: float | None = setting(
        None, "time after which the search ends; null: no limit", unit="seconds", gt=0
    )
    max_epochs: int | None = setting(
        None, "epochs of all trials together after which the search ends; null: no limit", ge=1
    )
    search: SearchName = setting("tpe", f"search algorithm; {summaries(SEARCH_ALGORITHMS)}")
    seed: int = setting(42, "seed of the search", ge=0, lt=2**31)
    known: list[JsonObject] = setting(
        list, "configurations to try first, by key as in `space`, e.g. [{train.dropout: 0.1}]"
    )
    default_first: bool = setting(
        True, "try the settings without any change first, where they are in the space"
    )
    warm_start: list[str] = setting(
        list,
        "directories of earlier sweeps over the same keys; the search learns from their trials",
    )
    storage: str | None = setting(
        None,
        "URL of the storage of Optuna's study, e.g. postgresql://...; null: study.db (SQLite) in "
        "the run's directory",
    )
    study: str | None = setting(None, "the study's name in that storage; null: the run's name")
    scheduler: SchedulerName = setting(
        "asha", f"rule that ends trials early; {summaries(SCHEDULERS)}"
    )
    grace_epochs: int = setting(
        1, "minimum epochs of every trial; pbt: epochs between two exchanges", unit="epochs", ge=1
    )
    reduction: int = setting(
        4,
        "asha, hyperband: of this many trials one continues at each rung, and each rung is this "
        "many times the epochs of the rung before",
        ge=2,
    )
    concurrent: int | None = setting(
        None, "trials at the same time; null: as many as fit on the cluster", ge=1
    )
    max_failures: int = setting(
        2,
        "how often a trial that lost its process or its node resumes from its checkpoint",
        ge=0,
    )
    verify_best: int = setting(
        2,
        "number of best configurations that are trained again with other seeds, next to the "
        "settings without any change; 0: no verification",
        ge=0,
    )
    verify_seeds: int = setting(3, "trainings of each verified configuration", ge=1)
    publish: Alias | None = setting(
        None,
        "publish the verified winner's best model under this alias, e.g. challenger; null: do not",
    )
    dry_run: bool = setting(
        False, "print ten sampled configurations and the estimated cost of the sweep, and exit"
    )

    @field_serializer("storage")
    def _mask_password(self, storage: str | None, info: SerializationInfo) -> str | None:
        return masked_url(storage) if storage and info.context == FOR_RECORDS else storage

    @property
    def mode(self) -> str:
        """Direction of the metric: `max` or `min`."""
        return REPORTED[self.metric]

    @property
    def modes(self) -> dict[str, str]:
        """Direction of each objective, the metric first."""
        return {self.metric: self.mode, **{name: MEASURED[name] for name in self.objectives}}

    @property
    def exchanges_weights(self) -> bool:
        """Whether trials take over weights and settings of other trials."""
        return SCHEDULERS[self.scheduler].is_population

    @model_validator(mode="after")
    def _check_metrics(self) -> SweepConfig:
        if self.metric not in REPORTED:
            raise ValueError(
                f"metric={self.metric!r}: training never reports it. Write one of "
                f"{', '.join(REPORTED)}."
            )
        unknown = [name for name in self.objectives if name not in MEASURED]
        if unknown or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                f"objectives={self.objectives}: an objective is unknown or repeated. Write each "
                f"of {', '.join(MEASURED)} at most once."
            )
        return self

    @model_validator(mode="after")
    def _check_algorithms(self) -> SweepConfig:
        scheduler, search = SCHEDULERS[self.scheduler], SEARCH_ALGORITHMS[self.search]
        if self.objectives and scheduler.stops_trials:
            raise ValueError(
                f"scheduler={self.scheduler!r}: a trial that ends early has no value of "
                f"{self.objectives[0]}. With objectives set scheduler=none."
            )
        if self.objectives and search.single_objective:
            raise ValueError(
                f"search={self.search!r}: supports one objective only. Set search=tpe."
            )
        if scheduler.is_population and self.search != "random":
            raise ValueError(
                f"search={self.search!r}: with scheduler={self.scheduler} trials change while they "
                "run. Set search=random."
            )
        if scheduler.is_population and self.trials < 2:
            raise ValueError(
                f"trials={self.trials}: scheduler={self.scheduler} exchanges weights between two "
                "trials or more. Set trials=2 or more."
            )
        return self

    @model_validator(mode="after")
    def _check_outputs(self) -> SweepConfig:
        if self.storage in _IN_MEMORY:
            raise ValueError(
                f"storage={self.storage!r}: a study in memory is lost with the process. Write "
                "sqlite:///FILE."
            )
        if self.publish and not self.verify_best:
            raise ValueError(
                f"publish={self.publish!r}: only a verified and tested model is published, and "
                "verify_best=0 verifies none. Set verify_best=1 or more."
            )
        return self
