"""Judge two versions by labeled texts that both answered, at every moment.

The test keeps three counts. Its confidence sequence of the accuracy difference holds the true
difference at all moments together with probability 1 - alpha, so a decision may stop at any moment.

The ratio of a Dirichlet mixture's likelihood and the likelihood at the true shares is a nonnegative
martingale with mean 1 (Ville's inequality; Robbins 1970, "Statistical methods related to the law of
the iterated logarithm"; Wasserman, Ramdas & Balakrishnan 2020, "Universal inference",
arXiv:1912.11436). A difference is excluded when even the most likely shares with this difference
have a ratio of at least 1/alpha. For given pairs, the safe test of Turner & Grünwald (2023,
arXiv:2106.02693) decides the same question by blocks; here both answers belong to one text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from finsent.monitoring.roots import find_root
from finsent.records import Record

PairedVerdict = Literal["better", "worse", "equal within the margin", "undecided"]

ALPHA = 0.05
_PRIOR = 0.5  # rows per cell, after Jeffreys


@dataclass(frozen=True)
class PairedRows:
    """Numbers of labeled texts by which version is right."""

    only_a: int
    only_b: int
    same: int  # both are right, or both are wrong


class PairedState(Record):
    """State of a test: counts, and the narrowest bounds so far."""

    schema_version: Literal[1] = 1
    only_a: int = 0
    only_b: int = 0
    same: int = 0
    lower: float = -1.0
    upper: float = 1.0


class PairedTest:
    """A sequential test of version B (shadow) against version A."""

    def __init__(self, margin: float, alpha: float = ALPHA, state: PairedState | None = None):
        """Begin a test, or continue one.

        Args:
            margin: accuracy difference that counts as equal, as a fraction.
            alpha: bound of the probability that any verdict is ever wrong.
            state: of an earlier test.
        """
        self.margin = margin
        self.alpha = alpha
        self.state = state or PairedState()

    def update(self, rows: PairedRows) -> PairedVerdict:
        """Add labeled texts, and return the verdict on version B."""
        state = self.state
        counts = PairedRows(
            state.only_a + rows.only_a, state.only_b + rows.only_b, state.same + rows.same
        )
        lower, upper = difference_bounds(counts, self.alpha)
        self.state = PairedState(
            only_a=counts.only_a,
            only_b=counts.only_b,
            same=counts.same,
            lower=max(state.lower, lower),
            upper=min(state.upper, upper),
        )
        return self.verdict()

    def verdict(self) -> PairedVerdict:
        """Return the verdict on version B by the bounds so far."""
        lower, upper = self.state.lower, self.state.upper
        if lower > 0:
            return "better"
        if upper < 0:
            return "worse"
        is_equal = -self.margin < lower and upper < self.margin
        return "equal within the margin" if is_equal else "undecided"


def difference_bounds(rows: PairedRows, alpha: float) -> tuple[float, float]:
    """Return the bounds of accuracy B minus A, valid at all moments together."""
    total = rows.only_a + rows.only_b + rows.same
    if not total:
        return -1.0, 1.0
    evidence = _log_mixture(rows)
    limit = math.log(1 / alpha)

    def excess(difference: float) -> float:
        return evidence - log_likelihood(rows, difference) - limit

    best = (rows.only_b - rows.only_a) / total
    ends = []
    for end in (-1 + 1e-9, 1 - 1e-9):
        is_excluded = abs(best) < 1 and excess(end) > 0
        ends.append(find_root(excess, best, end) if is_excluded else round(end))
    return _one_sided(rows, total, (ends[0], ends[1]), excess)


def _one_sided(
    rows: PairedRows, total: int, ends: tuple[float, float], excess: Callable[[float], float]
) -> tuple[float, float]:
    """Return the bounds where all rows favor one version: the estimate is then an end itself."""
    if rows.only_b == total and excess(-1 + 1e-9) > 0:
        return find_root(excess, 1 - 1e-12, -1 + 1e-9), 1.0
    if rows.only_a == total and excess(1 - 1e-9) > 0:
        return -1.0, find_root(excess, -1 + 1e-12, 1 - 1e-9)
    return ends


def _log_mixture(rows: PairedRows) -> float:
    """Return the logarithm of the mean likelihood under the prior."""
    counts = (rows.only_a, rows.only_b, rows.same)
    parts = sum(math.lgamma(count + _PRIOR) - math.lgamma(_PRIOR) for count in counts)
    prior = len(counts) * _PRIOR
    return math.lgamma(prior) - math.lgamma(sum(counts) + prior) + parts


def log_likelihood(rows: PairedRows, difference: float) -> float:
    """Return the largest log likelihood of shares with a difference.

    The most likely share of "only A" is the larger root of a quadratic equation, as in Tango (1998,
    Statistics in Medicine 17:891).
    """
    a, b, same = rows.only_a, rows.only_b, rows.same
    total = a + b + same
    linear = a * (1 - 3 * difference) + b * (1 - difference) - 2 * same * difference
    constant = 8 * total * a * difference * (1 - difference)
    share = (linear + math.sqrt(max(linear**2 + constant, 0.0))) / (4 * total)
    share = min(max(share, 0.0, -difference), (1 - difference) / 2)
    return (
        _xlogy(a, share) + _xlogy(b, share + difference) + _xlogy(same, 1 - 2 * share - difference)
    )


def _xlogy(count: int, share: float) -> float:
    if not count:
        return 0.0
    return count * math.log(share) if share > 0 else -math.inf
