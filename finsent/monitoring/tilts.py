"""Alternatives: how the shares of cells look after a drift.

Each alternative is a distribution over cells. A bet on an alternative multiplies the wealth by the
alternative's density of a row's rank. The density integrates to 1 over [0, 1], so no bet gains on
average without drift, whatever the alternatives are. Alternatives that resemble the real drift make
detection fast.

- few cells (labels, abstention): a share moves from one cell to another cell. The last cell is
  "other": values that the reference does not have.
- many cells (topics, languages): the share of one cell rises or falls by a factor.
- ordered cells (confidence, length): the distribution moves up or down, spreads or contracts, or
  one tail grows.
"""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import numpy as np

from finsent.monitoring.ranks import Floats, Ints

Shape = Literal["few", "many", "ordered"]
SHAPES: tuple[Shape, ...] = ("few", "many", "ordered")

MOVED_SHARES = (0.03, 0.06, 0.12)
MOVED_WEIGHTS = (0.4, 0.4, 0.2)  # small moves decide how late the slowest detection is
OTHER_WEIGHT = 0.05  # of moves to "other", which unknown values show anyway
MAX_MOVED = 0.8  # of a cell's share, so that no alternative excludes a cell
FACTORS = (0.4, 2.5, 6.0)
SLOPES = (0.25, 0.6, 1.4, 3.5)
TAIL_SLOPES = (1.0, 2.5)
TAIL = 0.1  # share of the rows in a tail


def alternatives(shape: Shape, nominal: Floats) -> Floats:
    """Return distributions over cells, shape (strata, alternatives, cells).

    Args:
        shape: how the cells drift.
        nominal: positive shares of the cells without drift, shape (strata, cells).
    """
    makers = {"few": _moves, "many": _factors, "ordered": _shapes}
    return np.stack([makers[shape](shares) for shares in nominal])


def _moves(shares: Floats) -> Floats:
    """Return moves between two known cells, and from all cells to the last one, "other"."""
    units: list[Floats] = list(np.eye(len(shares)))
    other = units.pop()
    pairs = list(permutations(units, 2))
    pairs.append(((shares - shares * other) / (1 - shares[-1]), other))
    rows: list[Floats] = []
    for moved in MOVED_SHARES:
        for source, target in pairs:
            amount = min(moved, MAX_MOVED * float(shares @ (source > 0)))
            rows.append(shares + amount * (target - source))
    return np.array(rows)


def _factors(shares: Floats) -> Floats:
    weights = np.ones((len(FACTORS), len(shares), len(shares)))
    for number, factor in enumerate(FACTORS):
        np.fill_diagonal(weights[number], factor)
    return _tilted(shares, weights.reshape(-1, len(shares)))


def _shapes(shares: Floats) -> Floats:
    middle = np.cumsum(shares) - shares / 2
    line = 2 * middle - 1
    bowl = 2 * np.abs(line) - 1
    upper, lower = middle > 1 - TAIL, middle < TAIL
    slopes = [sign * slope for slope in SLOPES for sign in (1, -1)]
    logs = [np.outer(slopes, form) for form in (line, bowl)]
    logs += [np.outer(TAIL_SLOPES, tail) for tail in (upper, lower)]
    return _tilted(shares, np.exp(np.concatenate(logs)))


def _tilted(shares: Floats, weights: Floats) -> Floats:
    tilted = shares * weights
    return np.asarray(tilted / tilted.sum(-1, keepdims=True))


def alternative_weights(shape: Shape, cells: int) -> Floats:
    """Return the part of a stake that each alternative gets, in the order of `alternatives`."""
    if shape != "few":
        count = alternatives(shape, np.full((1, cells), 1 / cells)).shape[1]
        return np.full(count, 1 / count)
    pairs = (cells - 1) * (cells - 2)
    parts = np.append(np.full(pairs, (1 - OTHER_WEIGHT) / max(pairs, 1)), OTHER_WEIGHT)
    weights = np.outer(MOVED_WEIGHTS, parts).ravel()
    return np.asarray(weights / weights.sum())


def log_densities(shape: Shape, nominal: Floats) -> Floats:
    """Return the logarithm of each alternative's density of ranks, by cell.

    The density is constant on a cell's interval of [0, 1], whose width is the nominal share.
    Shape (strata, cells, alternatives).
    """
    densities = alternatives(shape, nominal) / nominal[:, None, :]
    return np.ascontiguousarray(np.log(densities).swapaxes(-1, -2))


def nominal_cells(edges: Floats, strata: Ints, ranks: Floats) -> Ints:
    """Return the cell in whose nominal interval each rank is, shape (lanes, rows).

    Args:
        edges: upper edges of all intervals but the last, shape (lanes, strata, cells - 1).
        strata: stratum of each row, shape (lanes, rows).
        ranks: shape (lanes, rows).
    """
    lanes = np.arange(len(ranks))[:, None]
    return np.asarray((ranks[:, :, None] >= edges[lanes, strata]).sum(-1))
