"""Stages of a canary: roll back, hold or advance, with stated error rates.

A block is one request to the canary and the requests to the current version at about the same time
(99 at a share of 1 %, 19 at 5 %). Without a difference, the block's requests are exchangeable: any
of the k + 1 requests could be the canary's. A block with j events then gives the canary an event
with probability j / (k + 1), whatever the rate of events is at that time. So an incident that hits
both versions, or a busy hour, is not evidence against the canary.

A bet on an odds ratio w multiplies the wealth by w (event) or 1, divided by
1 + (w - 1) j / (k + 1). Its mean without a difference is 1 in every block. The ratio is that of
Fisher's noncentral hypergeometric distribution. Compare Turner, Ly & Grünwald 2024, "Generic
E-variables for exact sequential k-sample tests that allow for optional stopping", arXiv:2106.02693.

- Worse: the weighted mean of the signals' wealths reaches 1/alpha. A version that equals the
  current one is rolled back with probability at most alpha, over all stages together, by Ville's
  inequality.
- Safe: bets against "the canary has at least `margin` more errors" reach 1/alpha (Waudby-Smith &
  Ramdas 2024, arXiv:2010.09686). A version that is worse by the margin passes a stage with
  probability at most alpha.
- Otherwise hold: too few requests are no reason to advance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from finsent.errors import InputError
from finsent.monitoring.ranks import Floats, Ints
from finsent.records import Record

Decision = Literal["roll back", "hold", "advance"]

SHARES = (0.01, 0.05, 0.2, 0.5, 1.0)
ODDS_RATIOS = np.array([4.0, 12.0, 40.0])
EXCESSES = np.array([0.03, 0.1, 0.3])  # of the disagreement over the allowed rate
SAFE_BETS = np.array([0.3, 0.6, 0.9])
WEIGHTS = {"error": 0.7, "slow": 0.1, "abstained": 0.1, "disagreement": 0.1}
DISAGREEMENT, ERROR = "disagreement", "error"


@dataclass(frozen=True)
class Events:
    """One kind of event in blocks, a value per block."""

    canary: Ints  # 1: the canary's request had the event
    control: Ints  # requests of the current version with the event
    control_requests: Ints


class CanaryState(Record):
    """State of a rollout. Store it to continue after a restart."""

    schema_version: Literal[1] = 1
    stage: int = 0
    stage_requests: int = 0  # of the canary
    requests: int = 0  # of the canary, in all stages
    log_worse: dict[str, list[float]] = Field(default_factory=dict)  # by signal and alternative
    log_safe: tuple[float, ...] = (0.0,) * len(SAFE_BETS)  # since the stage began
    is_rolled_back: bool = False


class CanaryTest:
    """Judges a canary by blocks of requests.

    `slow` means slower than a limit that was set before the stage, for example the current
    version's 99th percentile of the latest hour.
    """

    def __init__(
        self,
        margin: float,
        allowed_disagreement: float,
        alpha: float = 0.05,
        state: CanaryState | None = None,
    ):
        """Begin a rollout, or continue one.

        Args:
            margin: additional errors per request that must be excluded before a stage ends.
            allowed_disagreement: share of texts on which the canary may answer another label.
            alpha: bound of the probability to roll back an equal version, and, per stage, to
                advance a version that is worse by the margin.
            state: of an earlier test.
        """
        for name, value in (
            ("margin", margin),
            ("allowed_disagreement", allowed_disagreement),
            ("alpha", alpha),
        ):
            if not 0 < value < 1:
                raise InputError(f"{name}={value}: not between 0 and 1. Give a fraction.")
        self.margin = margin
        self.allowed_disagreement = allowed_disagreement
        self.alpha = alpha
        self.state = state or CanaryState()

    def update(self, events: Mapping[str, Events], disagreements: Ints) -> Decision:
        """Add blocks in the order of time, and return the decision.

        Args:
            events: of the kinds "error", "slow" and "abstained"; a missing kind is not judged.
            disagreements: 1 for each text with another label than the current version's.
        """
        state = self.state
        logs = {name: np.array(values) for name, values in state.log_worse.items()}
        for name, blocks in events.items():
            logs[name] = logs.get(name, 0.0) + event_gains(blocks).sum(0)
        if len(disagreements):
            gains = disagreement_gains(disagreements, self.allowed_disagreement)
            logs[DISAGREEMENT] = logs.get(DISAGREEMENT, 0.0) + gains.sum(0)
        safe, count = np.array(state.log_safe), 0
        if ERROR in events:
            safe = safe + safe_gains(events[ERROR], self.margin).sum(0)
            count = len(events[ERROR].canary)
        self.state = state.replaced(
            log_worse={name: values.tolist() for name, values in logs.items()},
            log_safe=tuple(safe.tolist()),
            stage_requests=state.stage_requests + count,
            requests=state.requests + count,
            is_rolled_back=state.is_rolled_back or _worse_wealth(logs) >= 1 / self.alpha,
        )
        return self.decision()

    def decision(self) -> Decision:
        """Return the decision by the blocks so far; a rollback is final."""
        if self.state.is_rolled_back:
            return "roll back"
        return "advance" if _mean_wealth(self.state.log_safe) >= 1 / self.alpha else "hold"

    def advance(self) -> float:
        """Begin the next stage, and return its share of requests."""
        if self.decision() != "advance":
            raise ValueError(f"decision={self.decision()}: the stage has not ended. Add requests.")
        stage = min(self.state.stage + 1, len(SHARES) - 1)
        self.state = self.state.replaced(
            stage=stage, stage_requests=0, log_safe=(0.0,) * len(SAFE_BETS)
        )
        return SHARES[stage]


def _mean_wealth(logs: npt.ArrayLike) -> float:
    return float(np.exp(np.minimum(logs, 500.0)).mean())


def _worse_wealth(logs: Mapping[str, Floats]) -> float:
    """Return the weighted mean wealth of the signals; a signal without rows has wealth 1."""
    return sum(weight * _mean_wealth(logs.get(name, 0.0)) for name, weight in WEIGHTS.items())


def event_gains(blocks: Events) -> Floats:
    """Return the log gains of bets that the canary has more events, shape (..., alternatives)."""
    events = blocks.canary + blocks.control
    chance = events / (blocks.control_requests + 1)
    base = np.where(blocks.canary[..., None] > 0, np.log(ODDS_RATIOS), 0.0)
    return np.asarray(base - np.log1p((ODDS_RATIOS - 1) * chance[..., None]))


def disagreement_gains(disagreements: Ints, allowed: float) -> Floats:
    """Return the log gains of bets on more disagreement than allowed, shape (..., alternatives)."""
    rates = allowed + (1 - allowed) * EXCESSES
    gains = np.stack([np.log((1 - rates) / (1 - allowed)), np.log(rates / allowed)])
    return np.asarray(gains[disagreements])


def safe_gains(blocks: Events, margin: float) -> Floats:
    """Return the log gains of bets against "`margin` more errors", shape (..., bets).

    Blocks without requests to the current version count as if it had no errors.
    """
    control = blocks.control / np.maximum(blocks.control_requests, 1)
    difference = blocks.canary - control
    return np.asarray(np.log1p(SAFE_BETS * (margin - difference)[..., None]))
