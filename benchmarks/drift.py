"""Drift tests on streams with a known truth, next to a distance threshold and a chi-square test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from benchmarks.drift_corpus import Corpus, read_corpus
from benchmarks.drift_peers import (
    LOOKS_PER_YEAR,
    WINDOW,
    chi_square_alarms,
    distance_alarms,
)
from benchmarks.drift_simulation import CHUNK, FINE_CHUNK, Draw, first_alarms, make_lanes
from benchmarks.settings import BenchSettings, benchmark
from finsent.labels import LABEL2ID
from finsent.monitoring.monitor import HORIZON
from finsent.monitoring.ranks import Floats, Ints
from ray_jobs._cli import Result, main

log = logging.getLogger(__name__)

REFERENCE_ROWS = 5_000
CLEAN_ROWS = 5_000  # before a shift that comes late
LANES = 100  # streams that are simulated together: memory
MOVES = [("neutral", "negative"), ("positive", "negative"), ("neutral", "positive")]
LABEL_BARS = {0.10: 700, 0.05: 3_500}  # moved share and rows within which 95 % must be found
TOPIC_BAR, TOPIC_SHARES = 2_000, (1.0, 0.6)


def bench_drift(settings: BenchSettings) -> Result:
    """Simulate years without drift, shifts of labels, and swaps of the topic."""
    corpus = read_corpus(settings.bench.seed)
    years, runs = settings.bench.years, settings.bench.shift_runs
    return {
        "years": _years(corpus, years),
        "labels": {
            f"{share:.0%} {before} to {after}, {clean} clean rows": _shift(
                corpus, _label_draw(corpus, before, after, share), rows, clean, runs
            )
            for share, rows in LABEL_BARS.items()
            for before, after in MOVES
            for clean in (0, CLEAN_ROWS)
        },
        "topic": {
            f"{share:.0%}, {clean} clean rows": _shift(
                corpus, _topic_draw(corpus, share), TOPIC_BAR, clean, runs
            )
            for share in TOPIC_SHARES
            for clean in (0, CLEAN_ROWS)
        },
    }


def _parts(count: int) -> Iterator[tuple[int, int]]:
    """Yield a seed and a number of lanes, at most LANES at a time."""
    for start in range(0, count, LANES):
        yield start, min(LANES, count - start)


def _years(corpus: Corpus, count: int) -> Result:
    """Return shares of years without drift in which the tests alarm."""
    fired, by_signal = 0, np.zeros(0)
    names: list[str] = []
    peers = np.zeros(2)
    for seed, lane_count in _parts(count):
        lanes = make_lanes(corpus, lane_count, REFERENCE_ROWS, seed)
        times, signals = first_alarms(lanes, corpus.draw, HORIZON, CHUNK, seed + 1)
        names = lanes.names
        fired += int(np.isfinite(times).sum())
        by_signal = signals.sum(0) + (by_signal if by_signal.size else 0)
        peers += _peer_years(corpus, lanes.references, seed)
        log.info("%d of %d years, %d with an alarm", seed + lane_count, count, fired)
    return {
        "years": count,
        "rows": HORIZON,
        "alarm_share": fired / count,
        "alarms_by_signal": dict(zip(names, by_signal.astype(int).tolist(), strict=True)),
        "jensen_shannon_alarm_share": peers[0] / count,
        "chi_square_alarm_share": peers[1] / count,
    }


def _peer_years(corpus: Corpus, references: Ints, seed: int) -> Floats:
    """Return in how many years the peers alarm, by looks once a day."""
    random = np.random.default_rng(seed)
    looks = np.linspace(HORIZON / LOOKS_PER_YEAR, HORIZON, LOOKS_PER_YEAR).astype(np.int64)
    fired = np.zeros(2)
    for reference in references:
        labels = corpus.labels[corpus.draw(random, (1, HORIZON))[0]]
        fired += [
            any(distance_alarms(reference, labels, looks)),
            any(chi_square_alarms(reference, labels, looks)),
        ]
    return fired


def _label_draw(corpus: Corpus, before: str, after: str, share: float) -> Draw:
    mix = corpus.mix()
    mix[LABEL2ID[before]] -= share
    mix[LABEL2ID[after]] += share
    return lambda random, shape: corpus.draw_labels(random, mix, shape)


def _topic_draw(corpus: Corpus, share: float) -> Draw:
    return lambda random, shape: corpus.draw_topic(random, share, shape)


def _shift(corpus: Corpus, draw: Draw, rows: int, clean: int, count: int) -> Result:
    """Return how often and how fast a shift is found."""
    all_times: list[float] = []
    windows: list[bool] = []
    false_alarms = 0
    for seed, lane_count in _parts(count):
        lanes = make_lanes(corpus, lane_count, REFERENCE_ROWS, seed)
        before, _ = first_alarms(lanes, corpus.draw, clean, CHUNK, seed + 1)
        is_clean = np.isinf(before)
        false_alarms += int((~is_clean).sum())
        times, _ = first_alarms(lanes, draw, rows, FINE_CHUNK, seed + 2)
        all_times += times[is_clean].tolist()
        windows += _peer_windows(corpus, lanes.references, draw, seed)
    times = np.array(all_times)
    return {
        "runs": len(times),
        "within": rows,
        "found_share": float(np.isfinite(times).mean()),
        "median_rows": float(np.median(times)),
        "false_alarms_before": false_alarms,
        "jensen_shannon_window_share": float(np.mean(windows)),
    }


def _peer_windows(corpus: Corpus, references: Ints, draw: Draw, seed: int) -> list[bool]:
    """Return for a window of each lane whether the distance of the label mix alarms."""
    labels = corpus.labels[draw(np.random.default_rng(seed), (len(references), WINDOW))]
    end = np.array([WINDOW])
    pairs = zip(references, labels, strict=True)
    return [distance_alarms(reference, lane, end)[0] for reference, lane in pairs]


JOB = benchmark(
    "drift",
    bench_drift,
    summary="Measure false alarms and delays of the drift tests on simulated streams.",
    result="years (alarm_share; bar: 0.05), labels and topic (found_share within rows; bar: 0.95), "
    "each with the peers' figures",
    sections=(),
)

if __name__ == "__main__":
    main(JOB)
