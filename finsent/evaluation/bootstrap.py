"""Bootstrap intervals of figures (Efron & Tibshirani 1993, chapter 13)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from finsent.evaluation.metrics import Answers, Floats, Ids
from finsent.metrics_record import HEADLINE, Interval, Intervals

LEVEL = 0.95
_CHUNK = 1_000_000  # counts in memory at once: 8 MB per array


def resample_counts(
    rows: int, resamples: int, seed: int, groups: Ids | None = None
) -> Iterator[Floats]:
    """Yield how often each row is drawn, in blocks of shape (resamples of the block, rows).

    Each resample draws `rows` rows with replacement. Of grouped rows it draws as many groups as
    exist, each with all of its rows (the cluster bootstrap; Davison & Hinkley 1997, section 3.8).

    Args:
        groups: of each row, from 0 without gaps; None: each row is a group.
    """
    if groups is not None:
        for counts in resample_counts(int(groups.max(initial=-1)) + 1, resamples, seed):
            yield counts[:, groups]
        return
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(rows, 1))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.integers(0, rows, (size, rows)) + np.arange(size)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=size * rows).astype(np.float64)
        yield counts.reshape(size, rows)


def percentiles(values: Floats) -> Interval | None:
    """Return the 95 % percentile interval of resampled values; None: all are undefined."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def intervals(answers: Answers, resamples: int, seed: int, groups: Ids | None = None) -> Intervals:
    """Return the 95 % intervals of the `HEADLINE` figures.

    All are percentile intervals except that of ECE.

    ECE adds up absolute gaps, so the noise of a sample raises it, and a resample raises it once
    more by about as much. Its interval is the basic one (percentiles reflected at the figure;
    Davison & Hinkley 1997, section 5.2), which subtracts both. In simulation (1,000 rows) it covers
    the true ECE in 93 to 95 % of samples at an ECE of 0.1 or more, 89 % at 0.025 and 64 % near 0.
    The percentile interval covers it in 93 to 96, 11 and 0 %.

    Args:
        resamples: at least 1; several hundred for stable bounds.
        seed: of the resampling; the same seed gives the same intervals.
        groups: see `resample_counts`.
    """
    if not len(answers.truth):
        return dict.fromkeys(HEADLINE)
    drawn = resample_counts(len(answers.truth), resamples, seed, groups)
    blocks = [answers.figures(counts) for counts in drawn]
    bounds = {
        name: percentiles(np.concatenate([block[name] for block in blocks])) for name in HEADLINE
    }
    if (ece_bounds := bounds["ece"]) is not None:
        [ece] = answers.figures(np.ones((1, len(answers.truth))))["ece"]
        low, high = (max(0.0, float(2 * ece - bound)) for bound in reversed(ece_bounds))
        bounds["ece"] = low, high
    return bounds
