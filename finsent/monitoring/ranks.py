"""Conformal ranks: uniform random numbers as long as reference and stream have one distribution.

A row's rank is its smoothed position among the reference and all earlier rows of the stream. If
reference and stream are exchangeable, the ranks are independent and uniform on [0, 1], exactly and
for every size of the reference (Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random
World", theorem 8.2; Vovk 2021, "Testing randomness online", arXiv:1906.09256). A test of the ranks
therefore carries the uncertainty of the reference. A test against the reference's point estimate
does not.

A rank within the row's stratum (season) is uniform as well: "Mondrian" conformal prediction, in the
same book, section 4.5.

All functions work on lanes: independent streams, which the benchmark simulates together. A service
has one lane.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def uniforms(seed: int, start: int, count: int) -> Floats:
    """Return the uniform numbers of rows `start` to `start + count - 1`.

    A row's number depends on seed and row only, so batches of any size give the same ranks. The
    function is SplitMix64 (Steele et al. 2014, doi:10.1145/2714064.2660195).
    """
    rows = np.arange(start, start + count, dtype=np.uint64)
    state = np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    bits = (rows + state) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def add_rows(counts: Ints, strata: Ints, cells: Ints, randoms: Floats) -> Floats:
    """Return the ranks of rows, and add the rows to the counts.

    Args:
        counts: rows of the reference and of the stream so far, shape (lanes, strata, cells).
            Changed in place.
        strata: stratum of each row, shape (lanes, rows).
        cells: cell of each row, shape (lanes, rows). The order of the cells is the order of ranks.
        randoms: uniform numbers, shape (lanes, rows).
    """
    lane_count, row_count = cells.shape
    lanes = np.arange(lane_count)[:, None]
    cumulative = counts.cumsum(-1)
    equal = counts[lanes, strata, cells]
    lower = cumulative[lanes, strata, cells] - equal
    total = cumulative[lanes, strata, -1]
    is_earlier = np.tri(row_count, k=-1, dtype=bool) & (strata[:, :, None] == strata[:, None, :])
    difference = cells[:, :, None] - cells[:, None, :]
    lower = lower + (is_earlier & (difference > 0)).sum(-1)
    equal = equal + (is_earlier & (difference == 0)).sum(-1) + 1
    total = total + is_earlier.sum(-1) + 1
    np.add.at(counts, (lanes, strata, cells), 1)
    return np.asarray((lower + randoms * equal) / total)
