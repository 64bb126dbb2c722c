"""Drift beyond a tolerance: "report shifts of 3 points or more".

The test of `detector` finds every shift, however small, if it lasts. This test ignores shifts up to
a tolerance. Its null hypothesis: the share of each cell is within the tolerance of the reference's
true share. The true share is unknown, so its exact interval (Clopper & Pearson 1934) is used, which
spends a part of alpha. Bets on a larger or smaller share of each cell are supermartingales under
the null hypothesis, whatever the share is and even if it moves within the tolerance (Waudby-Smith &
Ramdas 2024, arXiv:2010.09686). The bets are mixed as in `wealth`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from finsent.errors import InputError
from finsent.monitoring.ranks import Floats, Ints
from finsent.monitoring.wealth import LOOK, Wealth, WealthState, stakes
from finsent.records import JsonObject

REFERENCE_PART = 0.2  # of alpha, for the intervals of the reference
EXCESSES = np.array([0.03, 0.06, 0.12, 0.25])  # of the share beyond the tolerance
MAX_SHARE = 1 - 1e-6


class ToleranceState(WealthState):
    """State of a test. Store it to continue after a restart."""

    schema_version: Literal[1] = 1
    reference: list[int]
    tolerance: float
    alpha: float
    horizon: int
    rows: int

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a file that is not a state."""
        return "Begin a new test."


class ToleranceTest:
    """A sequential test that a cell's share left its tolerance.

    With probability 1 - alpha, no alarm within the horizon while all shares stay within the
    tolerance.
    """

    def __init__(
        self,
        reference: Ints,
        tolerance: float,
        alpha: float,
        horizon: int,
        state: ToleranceState | None = None,
    ):
        """Begin a test, or continue one from its state.

        Args:
            reference: rows by cell.
            tolerance: largest shift of a share that is not drift, as a fraction.
            alpha: bound of the probability of a false alarm.
            horizon: rows.
            state: of an earlier test with the same arguments.
        """
        if not reference.sum():
            raise InputError("reference=0 rows: nothing to compare with. Give rows.")
        if not 0 < tolerance < 1:
            raise InputError(f"tolerance={tolerance}: not between 0 and 1. Give a fraction.")
        lower, upper = share_bounds(reference, REFERENCE_PART * alpha)
        self._log_gains = _log_gains(lower - tolerance, upper + tolerance)
        self._stakes = stakes(-(-horizon // LOOK))
        self._threshold = 1 / ((1 - REFERENCE_PART) * alpha)
        size = self._log_gains.shape[1]
        self.wealth = Wealth.new(1, np.full(size, 1 / size))
        self.rows = 0
        self._arguments: JsonObject = {
            "reference": reference.tolist(),
            "tolerance": tolerance,
            "alpha": alpha,
            "horizon": horizon,
        }
        if state is not None:
            self._restore(state)

    def _restore(self, state: ToleranceState) -> None:
        for name, own in self._arguments.items():
            given = getattr(state, name)
            if given != own:
                raise InputError(
                    f"state.{name}={given}: this test has {own}. Use the arguments of the state, "
                    "or begin a new test."
                )
        if not self.wealth.fits(state):
            raise InputError("state: the wealth is damaged. Begin a new test.")
        self.wealth.restore(state)
        self.rows = state.rows

    def state(self) -> ToleranceState:
        """Return the state to persist."""
        wealth = self.wealth.state().model_dump()
        return ToleranceState.model_validate({**self._arguments, **wealth, "rows": self.rows})

    def update(self, cells: Ints) -> bool:
        """Test rows, and return whether a share left its tolerance since the test began."""
        for cell in cells:
            if self.rows % LOOK == 0 and self.rows // LOOK < len(self._stakes):
                self.wealth.stake(float(self._stakes[self.rows // LOOK]))
            self.wealth.bet(self._log_gains[cell])
            self.rows += 1
            if self.rows % LOOK == 0:
                self.wealth.look()
        return self.is_alarm

    @property
    def is_alarm(self) -> bool:
        """Return whether a share left its tolerance since the test began."""
        return bool(self.wealth.peak[0] >= self._threshold)


def share_bounds(counts: Ints, alpha: float) -> tuple[Floats, Floats]:
    """Return exact bounds of the true shares, all valid together with probability 1 - alpha."""
    from scipy.stats import beta  # 0.8 s; monitors without a tolerance do not need it

    part, total = alpha / (2 * len(counts)), counts.sum()
    lower = beta.ppf(part, counts, total - counts + 1)
    upper = beta.ppf(1 - part, counts + 1, total - counts)
    return np.where(counts > 0, lower, 0.0), np.where(counts < total, upper, 1.0)


def _log_gains(lower: Floats, upper: Floats) -> Floats:
    """Return the log gain of each bet by the row's cell, shape (cells, bets).

    A bet on more rows in cell k has likelihood ratio r / u in the cell and (1 - r) / (1 - u) in the
    other cells, with r > u. Its mean is at most 1 for every share up to u. A bet whose bound is
    not inside (0, 1), or too near to an end for a share beyond the bound, never gains.
    """
    size = len(lower)
    rows = np.zeros((size, size, 2, len(EXCESSES)))
    for cell in range(size):
        for side, (bound, sign) in enumerate(((upper[cell], 1), (lower[cell], -1))):
            if not 1 - MAX_SHARE < bound < MAX_SHARE:
                continue
            shares = np.clip(bound + sign * EXCESSES, 1 - MAX_SHARE, MAX_SHARE)
            rows[:, cell, side] = np.log((1 - shares) / (1 - bound))
            rows[cell, cell, side] = np.log(shares / bound)
    return rows.reshape(size, -1)
