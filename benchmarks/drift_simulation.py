"""Many monitors in lanes, each with its own random reference and stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.drift_corpus import Corpus
from finsent.monitoring.cells import DUPLICATE_BLOCK, bin_cells
from finsent.monitoring.detector import Detector
from finsent.monitoring.discovery import rejected, weights
from finsent.monitoring.monitor import ALPHA, HORIZON, MAIN
from finsent.monitoring.ranks import Floats, Ints
from finsent.monitoring.reference import DUPLICATES, Profile, SignalReference, build_profile

CHUNK = 500  # rows between two looks at all signals while a stream is clean
FINE_CHUNK = 50  # the same after a shift

Draw = Callable[[np.random.Generator, tuple[int, int]], Ints]


@dataclass
class Lanes:
    """Monitors of independent streams; the signals are those of `DriftMonitor`."""

    names: list[str]
    detectors: list[Detector]
    tables: list[Ints]  # by signal: cell of each row of the corpus, shape (lanes, rows)
    edges: list[list[float]]  # of duplicates
    references: Ints  # counts of labels, shape (lanes, labels)

    def update(self, numbers: Ints) -> None:
        """Test rows of the corpus by number, shape (lanes, rows)."""
        lanes = np.arange(len(numbers))[:, None]
        for name, detector, table, edges in zip(
            self.names, self.detectors, self.tables, self.edges, strict=True
        ):
            if name == DUPLICATES:
                detector.update(bin_cells(_duplicates(numbers), edges))
            else:
                detector.update(table[lanes, numbers])

    def alarms(self) -> Ints:
        """Return which signals have fired, shape (lanes, signals)."""
        peaks = np.stack([detector.wealth.peak for detector in self.detectors], -1)
        return rejected(peaks, weights(self.names, MAIN), ALPHA).astype(np.int64)


def _duplicates(numbers: Ints) -> Floats:
    blocks = np.sort(numbers.reshape(len(numbers), -1, DUPLICATE_BLOCK), -1)
    return np.asarray((np.diff(blocks, axis=-1) == 0).sum(-1).astype(np.float64))


def make_lanes(corpus: Corpus, count: int, reference_rows: int, seed: int) -> Lanes:
    """Draw a reference per lane, and build its profile by `build_profile`."""
    random = np.random.default_rng(seed)
    profiles, label_counts = [], []
    for numbers in corpus.draw(random, (count, reference_rows)):
        drawn = corpus.rows.selected(list(numbers))
        profile = build_profile(drawn, int(random.integers(2**31)))
        profiles.append(profile)
        label_counts.append(np.bincount(corpus.labels[numbers], minlength=3))
    first = profiles[0].signals
    detectors, tables = [], []
    for position in range(len(first)):
        signals = [profile.signals[position] for profile in profiles]
        detectors.append(_detector(signals, seed + position))
        tables.append(_table(corpus, profiles, signals))
    return Lanes(
        [signal.signal for signal in first],
        detectors,
        tables,
        [signal.edges for signal in first],
        np.array(label_counts),
    )


def _detector(signals: list[SignalReference], seed: int) -> Detector:
    widest = max(len(signal.names) for signal in signals)
    counts = np.zeros((len(signals), 1, widest), dtype=np.int64)
    for lane, signal in enumerate(signals):
        counts[lane, :, : len(signal.names)] = signal.counts
    is_blocks = signals[0].kind == "duplicates"
    return Detector(
        np.array([signal.nominal for signal in signals]),
        counts,
        signals[0].shape,
        HORIZON // DUPLICATE_BLOCK if is_blocks else HORIZON,
        seed,
    )


def _table(corpus: Corpus, profiles: list[Profile], signals: list[SignalReference]) -> Ints:
    if signals[0].kind == "duplicates":
        return np.zeros((0, 0), dtype=np.int64)
    pairs = zip(profiles, signals, strict=True)
    return np.stack(
        [
            signal.values_to_cells(corpus.rows, np.array(profile.centroids)).astype(np.int8)
            for profile, signal in pairs
        ]
    )


def first_alarms(lanes: Lanes, draw: Draw, rows: int, chunk: int, seed: int) -> tuple[Floats, Ints]:
    """Test streams, and return the rows before each lane's first alarm (inf: none), and signals.

    Lanes that have fired before count as fired at row 0. The signals have shape (lanes, signals).
    """
    random = np.random.default_rng(seed)
    lane_count = len(lanes.references)
    times = np.where(lanes.alarms().any(-1), 0.0, np.inf)
    for start in range(0, rows, chunk):
        lanes.update(draw(random, (lane_count, chunk)))
        is_new = lanes.alarms().any(-1) & np.isinf(times)
        times[is_new] = start + chunk
    return times, lanes.alarms()
