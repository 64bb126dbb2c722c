"""Results of the job `sweep`: JSON on stdout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from finsent.records import JsonObject
from tune.records import Gain, Params, Verification


@dataclass(frozen=True)
class VerifiedResult:
    """The configuration that the verification chose, see `tune.records.Verification`."""

    chosen: int | Literal["default"]
    verified: float
    luck: float | None
    gain: Gain | None
    test: JsonObject | None
    seed: int

    @classmethod
    def of(cls, verification: Verification) -> VerifiedResult:
        """Return the keys of a verification that a result has."""
        return cls(
            chosen=verification.chosen,
            verified=verification.verified,
            luck=verification.luck,
            gain=verification.gain,
            test=verification.test,
            seed=verification.seed,
        )


@dataclass(frozen=True)
class SweepResult:
    """Result of `sweep`."""

    trials: Annotated[dict[str, int], "by status; diverged: the loss was not a number or too large"]
    trials_wanted: int
    repeated: Annotated[int, "suggestions that equal an earlier trial, and that were not trained"]
    exhausted: Annotated[bool, "whether no configuration of the space is left"]
    epochs: int
    spent_share: Annotated[float | None, "of the epochs without early stopping"]
    driver_share: Annotated[float | None, "of the trials' time, between two trials"]
    best: Annotated[JsonObject, "trial, params, the metric; of the search, partly luck"]
    verified: Annotated[
        VerifiedResult | None,
        "chosen, verified: its mean, luck, gain over the unchanged settings by seed, test, seed",
    ]
    front: Annotated[list[JsonObject] | None, "of several objectives"]
    best_yaml: str
    page: Annotated[str | None, "null: no trial has ended"]
    storage: str | None
    study: str | None
    model_version: Annotated[str | None, "null: not published"] = None


@dataclass(frozen=True)
class Estimate:
    """Result of `sweep --dry-run`: the first configurations, and the expected cost."""

    configs: Annotated[list[Params], "by config key"]
    epochs: Annotated[int, "expected, with early stopping"]
    epochs_in_full: Annotated[int, "without early stopping"]
    epochs_to_verify: int
    rows: Annotated[int, "of an epoch"]
    rows_per_second: float
    rows_per_second_source: str
    trial_seconds: Annotated[float, "of all trials, one after another"]
