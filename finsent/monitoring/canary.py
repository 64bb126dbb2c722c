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
  inequality. A wealth above the limit proves nothing more, so a bet that would overshoot the limit
  gains less, and loses less if there is no event (Fischer & Ramdas 2024, "Improving the
  (approximate) sequential probability ratio test by avoiding overshoot", arXiv:2410.16076).
- Safe: bets against "the canary has at least `margin` more errors" reach 1/alpha (Waudby-Smith &
  Ramdas 2024, arXiv:2010.09686). A version that is worse by the margin passes a stage with
  probability at most alpha.
- Otherwise hold: too few requests are no reason to advance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
ODDS_RATIOS = np.array([4.0, 15.0])
ODDS_WEIGHTS = np.array([0.75, 0.25])  # of the initial wealth
EXCESSES = np.array([0.03, 0.1, 0.3])  # of the disagreement over the allowed rate
SAFE_BETS = np.array([0.3, 0.6, 0.9])
DISAGREEMENT, ERROR = "disagreement", "error"
WEIGHTS = {ERROR: 0.8, "slow": 0.05, "slow_median": 0.05, "abstained": 0.05, DISAGREEMENT: 0.05}
_ROUNDING = 1e-9  # a wealth that is limited to a value may be less by rounding


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

    `slow` and `slow_median` mean slower than a limit that was set before the block, for example
    twice the 99th percentile and twice the median of the current version's latest requests.
    """

    def __init__(
        self,
        margin: float,
        allowed_disagreement: float,
        alpha: float = 0.05,
        state: CanaryState | None = None,
        shares: Sequence[float] = SHARES,
    ):
        """Begin a rollout, or continue one.

        Args:
            margin: additional errors per request that must be excluded before a stage ends.
            allowed_disagreement: share of texts on which the canary may answer another label.
            alpha: bound of the probability to roll back an equal version, and, per stage, to
                advance a version that is worse by the margin.
            state: of an earlier test.
            shares: of the requests, by stage.
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
        self.shares = tuple(shares)

    @property
    def share(self) -> float:
        """Share of requests of the current stage."""
        return self.shares[self.state.stage]

    @property
    def is_last_stage(self) -> bool:
        """Whether no stage follows."""
        return self.state.stage == len(self.shares) - 1

    def evidence(self) -> dict[str, float]:
        """Return the wealth of the bets on "worse" by signal; their weighted mean is judged."""
        return {
            name: _mean_wealth(logs, None if name == DISAGREEMENT else ODDS_WEIGHTS)
            for name, logs in self.state.log_worse.items()
        }

    def update(self, events: Mapping[str, Events], disagreements: Ints) -> Decision:
        """Add blocks in the order of time, and return the decision.

        Args:
            events: of the kinds "error", "slow", "slow_median" and "abstained"; a missing kind is
                not judged.
            disagreements: 1 for each text with another label than the current version's.
        """
        state = self.state
        logs = {name: np.array(values) for name, values in state.log_worse.items()}
        for name, blocks in events.items():
            limit = 1 / (self.alpha * WEIGHTS[name])  # alone, this wealth rolls back
            logs[name] = event_logs(logs.get(name, np.zeros(len(ODDS_RATIOS))), blocks, limit)
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
        )
        is_worse = self.worse_wealth >= (1 - _ROUNDING) / self.alpha
        self.state = self.state.replaced(is_rolled_back=state.is_rolled_back or is_worse)
        return self.decision()

    def decision(self) -> Decision:
        """Return the decision by the blocks so far; a rollback is final."""
        if self.state.is_rolled_back:
            return "roll back"
        return "advance" if self.safe_wealth >= 1 / self.alpha else "hold"

    @property
    def worse_wealth(self) -> float:
        """Weighted mean wealth of the bets on "worse"; 1 / alpha rolls back."""
        evidence = self.evidence()
        return sum(weight * evidence.get(name, 1.0) for name, weight in WEIGHTS.items())

    @property
    def safe_wealth(self) -> float:
        """Mean wealth of the bets against "worse by the margin"; 1 / alpha ends the stage."""
        return _mean_wealth(self.state.log_safe)

    def advance(self) -> float:
        """Begin the next stage, and return its share of requests."""
        if self.decision() != "advance":
            raise ValueError(f"decision={self.decision()}: the stage has not ended. Add requests.")
        stage = min(self.state.stage + 1, len(self.shares) - 1)
        self.state = self.state.replaced(
            stage=stage, stage_requests=0, log_safe=(0.0,) * len(SAFE_BETS)
        )
        return self.share


def _mean_wealth(logs: npt.ArrayLike, weights: Floats | None = None) -> float:
    """Return the mean wealth of alternatives.

    Args:
        logs: of the wealth by alternative.
        weights: of the alternatives; None: equal ones.
    """
    return float(np.average(np.exp(np.minimum(logs, 500.0)), weights=weights))


def event_logs(logs: Floats, blocks: Events, limit: float) -> Floats:
    """Return the logs of the wealth after blocks, shape (alternatives,).

    Args:
        limit: of the wealth. A bet that would exceed the limit gains exactly the limit, and its
            loss without an event is smaller in return, so the mean gain of the block stays 1.
    """
    chances = (blocks.canary + blocks.control) / (blocks.control_requests + 1)
    # Without an event, or with an event in each request, a block changes nothing.
    for index in np.flatnonzero((chances > 0) & (chances < 1)):
        chance, is_event = chances[index], blocks.canary[index] > 0
        losses = np.log1p((ODDS_RATIOS - 1) * chance)
        with_event, without = logs + np.log(ODDS_RATIOS) - losses, logs - losses
        before = _mean_wealth(logs, ODDS_WEIGHTS)
        if before >= limit * (1 - _ROUNDING):
            break  # the limit is reached, whatever follows
        if limit < _mean_wealth(with_event, ODDS_WEIGHTS):
            with_event += np.log(limit / _mean_wealth(with_event, ODDS_WEIGHTS))
            remaining = (before - chance * limit) / (1 - chance)
            without += np.log(remaining / _mean_wealth(without, ODDS_WEIGHTS))
        logs = with_event if is_event else without
    return logs


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
