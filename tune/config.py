"""Settings of hyperparameter sweeps."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import SerializationInfo, field_serializer, model_validator

from finsent.config import FOR_RECORDS, Section, setting
from finsent.names import Alias
from tune.storage import shown

# What training reports after each epoch, and which way is better.
REPORTED = {"macro_f1": "max", "accuracy": "max", "validation_loss": "min"}
# Values of a model that has learned nothing, or worse: no macro-F1 is lower, and a loss of ln 3 is
# that of three labels which are always equally likely.
UNLEARNED = {"macro_f1": 0.0, "accuracy": 0.0, "validation_loss": math.log(3)}
# What is measured of a finished trial's model.
MEASURED = {"latency_ms": "min", "parameters": "min", "ece": "min"}


class SweepConfig(Section):
    """What varies, how it is searched, how much it may cost, and how the winner is verified."""

    space: dict[str, Any] = setting(
        dict,
        "what varies, by key of the sections train, model and data: {loguniform: [LOW, HIGH]}, "
        "{uniform: [LOW, HIGH]}, {int: [LOW, HIGH]}, {quantized: [LOW, HIGH, STEP]} or {choice: "
        "[A, B]}; with `when: {KEY: VALUE}` only where another one has that value",
    )
    metric: str = setting(
        "macro_f1",
        f"what is optimized, on the validation split: {', '.join(REPORTED)}; a trial counts with "
        "the epoch that training would keep",
    )
    objectives: list[str] = setting(
        list,
        f"further ones, measured on each finished trial's model: {', '.join(MEASURED)}; the answer "
        "then is the Pareto front, and the best by `metric` is verified",
    )
    trials: int = setting(12, "configurations to try, each once", ge=1)
    max_seconds: float | None = setting(
        None, "time after which the search ends; null: no limit", unit="seconds", gt=0
    )
    max_epochs: int | None = setting(
        None, "epochs of all trials together after which the search ends; null: no limit", ge=1
    )
    search: Literal["tpe", "gp", "cmaes", "random", "grid"] = setting(
        "tpe",
        "how configurations are found: tree-structured Parzen estimator, Gaussian process (one "
        "objective), CMA-ES (one objective, numbers only), at random, each combination once",
    )
    seed: int = setting(42, "of the search", ge=0, lt=2**31)
    known: list[dict[str, Any]] = setting(
        list, "configurations to try first, by key as in `space`, e.g. [{train.dropout: 0.1}]"
    )
    default_first: bool = setting(
        True, "try the settings without any change first, where they lie in the space"
    )
    warm_start: list[str] = setting(
        list, "directories of earlier sweeps over the same keys, whose trials the search knows"
    )
    storage: str | None = setting(
        None,
        "where Optuna's study lies, e.g. postgresql://...; null: study.db (SQLite) in the run's "
        "directory",
    )
    study: str | None = setting(None, "the study's name in that storage; null: the run's name")
    scheduler: Literal["asha", "hyperband", "median", "pbt", "none"] = setting(
        "asha",
        "which trials end early: asynchronous successive halving, HyperBand, those below the "
        "median, none; pbt (population-based training): the worst quarter takes over weights "
        "and settings of the best, and varies them",
    )
    grace_epochs: int = setting(1, "epochs that every trial gets", unit="epochs", ge=1)
    reduction: int = setting(
        4,
        "asha, hyperband: one trial of so many goes on at each rung; rungs lie so far apart",
        ge=2,
    )
    concurrent: int | None = setting(
        None, "trials at the same time; null: as many as the cluster has room for", ge=1
    )
    max_failures: int = setting(
        2, "how often a trial that lost its process or its node goes on from its checkpoint", ge=0
    )
    verify_best: int = setting(
        2,
        "the best so many configurations, and the settings without any change, are trained again "
        "with other seeds; 0: none, and the best is believed",
        ge=0,
    )
    verify_seeds: int = setting(3, "trainings of each of them", ge=1)
    publish: Alias | None = setting(
        None,
        "publish the verified winner's best model under this alias, e.g. challenger; null: do not",
    )
    dry_run: bool = setting(
        False, "print ten sampled configurations and what the sweep would cost, and end"
    )

    @property
    def mode(self) -> str:
        """`max` or `min`, of the metric."""
        return REPORTED[self.metric]

    @property
    def modes(self) -> dict[str, str]:
        """All objectives, the metric first."""
        return {self.metric: self.mode, **{name: MEASURED[name] for name in self.objectives}}

    @field_serializer("storage")
    def _without_password(self, storage: str | None, info: SerializationInfo) -> str | None:
        return shown(storage) if storage and info.context == FOR_RECORDS else storage

    @model_validator(mode="after")
    def _known_metrics(self) -> SweepConfig:
        if self.metric not in REPORTED:
            raise ValueError(
                f"metric={self.metric!r}: training never reports it; write one of "
                f"{', '.join(REPORTED)}"
            )
        strange = [name for name in self.objectives if name not in MEASURED]
        if strange or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                f"objectives={self.objectives}: write some of {', '.join(MEASURED)}, each once"
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> SweepConfig:
        if self.objectives and self.scheduler != "none":
            raise ValueError(
                f"scheduler={self.scheduler!r}: a trial that ends early has no value of "
                f"{self.objectives[0]}; with objectives set scheduler=none"
            )
        if self.objectives and self.search in ("gp", "cmaes"):
            raise ValueError(f"search={self.search!r}: finds one objective only; set search=tpe")
        if self.scheduler == "pbt" and self.search != "random":
            raise ValueError(
                f"search={self.search!r}: under scheduler=pbt trials change as they run; set "
                "search=random"
            )
        if self.scheduler == "pbt" and self.trials < 2:
            raise ValueError("trials=1: scheduler=pbt exchanges between two trials or more")
        if self.storage in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
            raise ValueError(
                f"storage={self.storage!r}: what lies in memory is lost with the process; write "
                "sqlite:///FILE"
            )
        if self.publish and not self.verify_best:
            raise ValueError(
                f"publish={self.publish!r}: only a verified and tested model is published, and "
                "verify_best=0 makes none; set verify_best=1 or more"
            )
        return self
