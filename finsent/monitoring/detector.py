"""One signal's test of drift: ranks, bets on them, and the wealth of the bets."""

from __future__ import annotations

import numpy as np

from finsent.monitoring.ranks import Floats, Ints, add_rows, uniforms
from finsent.monitoring.tilts import Shape, alternative_weights, log_densities, nominal_cells
from finsent.monitoring.wealth import LOOK, Wealth, stakes


class Detector:
    """A sequential two-sample test in lanes: independent streams with their own references.

    Attributes:
        counts: rows of reference and stream by lane, stratum and cell.
        wealth: of the current horizon.
        rows: of the stream so far, per lane.
    """

    def __init__(self, nominal: Floats, counts: Ints, shape: Shape, horizon: int, seed: int):
        """Begin a test.

        Args:
            nominal: shares of the cells, estimated from other rows than those of `counts`,
                shape (lanes, strata, cells).
            counts: rows of the reference, same shape.
            shape: how the cells drift.
            horizon: rows over which the probability of a false alarm is bounded. The next horizon
                begins with a wealth of 1.
            seed: of the ranks.
        """
        self.counts = counts.copy()
        self._edges = nominal.cumsum(-1)[..., :-1]
        self._log_densities = np.stack([log_densities(shape, lane) for lane in nominal])
        self._weights = alternative_weights(shape, nominal.shape[-1])
        self._lanes = np.arange(len(nominal))[:, None]
        self._stakes = stakes(-(-horizon // LOOK))
        self._seed = seed
        self.wealth = self._new_wealth()
        self.rows = 0

    def _new_wealth(self) -> Wealth:
        return Wealth.new(len(self._log_densities), self._weights)

    def update(self, cells: Ints, strata: Ints | None = None) -> None:
        """Test rows of the stream in order.

        Args:
            cells: shape (lanes, rows).
            strata: same shape; None: all rows are in the first stratum.
        """
        strata = np.zeros_like(cells) if strata is None else strata
        start, row_count = 0, cells.shape[1]
        while start < row_count:
            end = min(row_count, start + LOOK - self.rows % LOOK)
            self._update_until_look(cells[:, start:end], strata[:, start:end])
            start = end

    def _update_until_look(self, cells: Ints, strata: Ints) -> None:
        if self.rows % LOOK == 0:
            look = self.rows // LOOK % len(self._stakes)
            if look == 0:
                self.wealth = self._new_wealth()
            self.wealth.stake(float(self._stakes[look]))
        lane_count, row_count = cells.shape
        row_numbers = uniforms(self._seed, self.rows * lane_count, row_count * lane_count)
        ranks = add_rows(self.counts, strata, cells, row_numbers.reshape(lane_count, row_count))
        nominal = nominal_cells(self._edges, strata, ranks)
        gains = self._log_densities[self._lanes, strata, nominal]
        self.wealth.bet(gains.sum(1))
        self.rows += row_count
        if self.rows % LOOK == 0:
            self.wealth.look()
