"""Wealth of bets against "no drift", mixed over alternatives and over the time of the change.

Before the first row, the wealth is 1. At each look, a fixed part of the initial wealth moves from
the reserve into bets, so a drift that starts after a long clean period is still found fast. All
bets on an alternative, whenever they started, need one number, by the recursion of Shiryaev and
Roberts: wealth <- (wealth + new stake) * growth. The total is a nonnegative
martingale with mean 1 under exchangeability. By Ville's inequality, the probability that the total
ever reaches 1/a is at most a, over the complete horizon.

Sources: Shafer & Vovk 2019, "Game-Theoretic Foundations for Probability and Finance"; Shekhar &
Ramdas 2023, "Nonparametric two-sample testing by betting", arXiv:2112.09162; Waudby-Smith & Ramdas
2024, "Estimating means of bounded random variables by betting", arXiv:2010.09686; Shin,
Ramdas & Rinaldo 2023, "E-detectors", arXiv:2203.03532. Shin et al. bound the mean time to a false
alarm; a stake schedule that sums to 1 bounds the probability of a false alarm within the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from finsent.monitoring.ranks import Floats
from finsent.records import Record

LOOK = 10  # rows between two looks
FIRST_SHARE = 0.35  # of the initial wealth, staked before the first row
SCALE_LOOKS = 100.0  # stakes fall as 1 / (looks + SCALE_LOOKS): early changes are cheap
MAX_WEALTH = 1e200  # no overflow after a drift


@lru_cache(maxsize=16)
def stakes(look_count: int) -> Floats:
    """Return the parts of the initial wealth that are staked at each look; their sum is 1."""
    falling = 1 / (np.arange(look_count) + SCALE_LOOKS)
    parts = (1 - FIRST_SHARE) * falling / falling.sum()
    parts[0] += FIRST_SHARE
    parts.flags.writeable = False
    return np.asarray(parts)


class WealthState(Record):
    """The wealth of one lane, as a part of a test's state."""

    staked: list[float]
    log_growth: list[float]
    reserve: float
    peak: float  # of the current horizon


@dataclass
class Wealth:
    """Wealth per lane and alternative since the horizon began."""

    staked: Floats  # wealth of the bets per weight of the alternative, shape (lanes, alternatives)
    log_growth: Floats  # of the bets since the last look, same shape
    weights: Floats  # part of a stake by alternative, shape (alternatives,)
    reserve: float  # part of the initial wealth without a bet
    peak: Floats  # largest total so far, shape (lanes,)

    @staticmethod
    def new(lanes: int, weights: Floats) -> Wealth:
        """Return the wealth before the first row.

        Args:
            lanes: number of lanes.
            weights: part of a stake that each alternative gets; their sum is 1.
        """
        zeros = np.zeros((lanes, len(weights)))
        return Wealth(zeros, zeros.copy(), weights, 1.0, np.ones(lanes))

    def total(self) -> Floats:
        """Return the wealth at the last look, shape (lanes,)."""
        return np.asarray(self.reserve + self.staked @ self.weights)

    def stake(self, part: float) -> None:
        """Move a part of the initial wealth from the reserve into bets."""
        self.staked += part
        self.reserve = max(self.reserve - part, 0.0)

    def bet(self, log_gains: Floats) -> None:
        """Add the log gains of rows, summed over the rows, shape (lanes, alternatives)."""
        self.log_growth += log_gains

    def look(self) -> None:
        """Realize the growth since the last look."""
        self.staked *= np.exp(np.minimum(self.log_growth, 400.0))
        np.minimum(self.staked, MAX_WEALTH, out=self.staked)
        self.log_growth[:] = 0.0
        np.maximum(self.peak, self.total(), out=self.peak)

    def state(self) -> WealthState:
        """Return the state of the first lane."""
        return WealthState(
            staked=self.staked[0].tolist(),
            log_growth=self.log_growth[0].tolist(),
            reserve=self.reserve,
            peak=float(self.peak[0]),
        )

    def fits(self, state: WealthState) -> bool:
        """Return whether a state has a finite number for each alternative."""
        numbers = [*state.staked, *state.log_growth, state.reserve, state.peak]
        sizes = {len(state.staked), len(state.log_growth)}
        return sizes == {len(self.weights)} and bool(np.isfinite(numbers).all())

    def restore(self, state: WealthState) -> None:
        """Continue the first lane from a state that fits."""
        self.staked[0], self.log_growth[0] = state.staked, state.log_growth
        self.reserve, self.peak[0] = state.reserve, state.peak
