"""The monitor: all signals of all sources, their alarms, and the state to persist."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finsent.errors import InputError
from finsent.monitoring.cells import DUPLICATE_BLOCK
from finsent.monitoring.detector import Detector
from finsent.monitoring.discovery import rejected, weights
from finsent.monitoring.ranks import Floats
from finsent.monitoring.reference import Profile, SignalReference, check_columns
from finsent.monitoring.rows import Rows
from finsent.monitoring.wealth import LOOK, WealthState
from finsent.records import Record

ALPHA = 0.05
HORIZON = 100_000
MAIN = "label"
MAX_HISTORY = 256
CHUNK = 500  # rows between two looks at the alarms within a batch
HALF_LIFE = 500.0  # rows after which a row counts half in the recent shares


class SignalState(WealthState):
    """State of one signal: a few hundred numbers."""

    counts: list[list[int]]
    best_peak: float  # of all horizons
    rows: int  # tested rows; for duplicates, blocks
    recent: list[float]  # decayed counts of the stream's cells
    pending_keys: list[str]  # of an incomplete block of duplicates
    history: list[tuple[int, float]]  # rows of the monitor, and log10 of the wealth
    alarmed_at: int | None  # rows of the monitor at the first alarm


class MonitorState(Record):
    """State of a monitor. Store it with the profile to continue after a restart."""

    schema_version: Literal[1] = 1
    rows: int
    horizon: int
    seed: int  # of the ranks: other ranks of the next rows would be ranks of another stream
    signals: list[SignalState]

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a file that is not a state."""
        return "Begin a new monitor."


@dataclass(frozen=True)
class Alarm:
    """A signal that drifted."""

    signal: str
    source: str | None
    at_row: int  # rows of the monitor at the first alarm
    peak: float  # of the wealth; without drift, P(peak >= x) <= 1/x
    cell: str  # whose share changed most, by recent rows
    reference_share: float
    recent_share: float


class DriftMonitor:
    """Tests every batch of predictions against a reference.

    Without drift, the probability of any alarm within `horizon` rows is at most `alpha`, for all
    signals and sources together. An alarm stays until a monitor with a new reference begins.
    """

    def __init__(
        self,
        profile: Profile,
        alpha: float = ALPHA,
        horizon: int = HORIZON,
        seed: int = 0,
        state: MonitorState | None = None,
    ):
        """Begin a monitor, or continue one from its state.

        Args:
            profile: the reference.
            alpha: bound of the probability of a false alarm within a horizon.
            horizon: rows.
            seed: of the ranks; the same for all parts of a stream.
            state: of an earlier monitor with the same profile and arguments.
        """
        self.profile = profile
        self.alpha = alpha
        self._horizon, self._seed = horizon, seed
        self._centroids = np.array(profile.centroids)
        self._trackers = [
            _Tracker(reference, horizon, seed + number)
            for number, reference in enumerate(profile.signals)
        ]
        self._weights = weights([signal.signal for signal in profile.signals], MAIN)
        self.rows = 0
        if state is not None:
            self._restore(state)

    def _restore(self, state: MonitorState) -> None:
        """Continue from a state.

        Raises:
            InputError: the state is damaged, or of a monitor with other arguments.
        """
        for name, given, own in (
            ("signals", len(state.signals), len(self._trackers)),
            ("horizon", state.horizon, self._horizon),
            ("seed", state.seed, self._seed),
        ):
            if given != own:
                raise InputError(
                    f"state.{name}={given}: this monitor has {own}. Use the arguments of the "
                    "state, or begin a new monitor."
                )
        self.rows = state.rows
        for tracker, signal_state in zip(self._trackers, state.signals, strict=True):
            tracker.restore(signal_state)

    def update(self, rows: Rows) -> None:
        """Test a batch of rows, in the order of time."""
        check_columns(self.profile, rows)
        for start in range(0, rows.count, CHUNK):
            self._update_chunk(rows.selected(range(start, min(start + CHUNK, rows.count))))

    def _update_chunk(self, rows: Rows) -> None:
        parts: dict[str | None, Rows] = {None: rows}
        for tracker in self._trackers:
            source = tracker.reference.source
            if source not in parts:
                parts[source] = rows.selected(rows.indices_of(source))
            tracker.update(parts[source], self.profile, self._centroids)
        self.rows += rows.count
        for tracker in self._trackers:
            tracker.record(self.rows)
        peaks = np.array([tracker.peak for tracker in self._trackers])
        is_rejected = rejected(peaks, self._weights, self.alpha)
        for tracker, is_alarm in zip(self._trackers, is_rejected, strict=True):
            if is_alarm and tracker.alarmed_at is None:
                tracker.alarmed_at = self.rows

    def alarms(self) -> list[Alarm]:
        """Return the signals that drifted, the strongest evidence first."""
        fired = [tracker for tracker in self._trackers if tracker.alarmed_at is not None]
        return sorted((tracker.alarm() for tracker in fired), key=lambda alarm: -alarm.peak)

    def histories(self) -> dict[tuple[str, str | None], list[tuple[int, float]]]:
        """Return (rows, log10 of the wealth) over time by signal and source."""
        return {
            (tracker.reference.signal, tracker.reference.source): list(tracker.history)
            for tracker in self._trackers
        }

    def state(self) -> MonitorState:
        """Return the state to persist. Its size does not depend on the number of rows."""
        return MonitorState(
            rows=self.rows,
            horizon=self._horizon,
            seed=self._seed,
            signals=[tracker.state() for tracker in self._trackers],
        )


class _Tracker:
    """One signal's detector with what a page shows of the signal."""

    def __init__(self, reference: SignalReference, horizon: int, seed: int):
        self.reference = reference
        unit = DUPLICATE_BLOCK if reference.kind == "duplicates" else 1
        self._detector = Detector(
            np.array(reference.nominal)[None],
            np.array(reference.counts)[None],
            reference.shape,
            max(horizon // unit, LOOK),
            seed,
        )
        self.recent: Floats = np.zeros(len(reference.names))
        self.pending_keys: list[str] = []
        self.history: list[tuple[int, float]] = []
        self.alarmed_at: int | None = None
        self._best_peak = 1.0

    @property
    def peak(self) -> float:
        """Return the largest wealth of the current horizon."""
        return float(self._detector.wealth.peak[0])

    def update(self, rows: Rows, profile: Profile, centroids: Floats) -> None:
        strata = None
        if self.reference.kind == "duplicates":
            rows = self._complete_blocks(rows)
        else:
            strata = profile.strata(rows)[None]
        if not rows.count:
            return
        cells = self.reference.values_to_cells(rows, centroids)
        self._detector.update(cells[None], strata)
        ages = np.arange(len(cells))[::-1]
        self.recent *= 0.5 ** (len(cells) / HALF_LIFE)
        np.add.at(self.recent, cells, 0.5 ** (ages / HALF_LIFE))

    def _complete_blocks(self, rows: Rows) -> Rows:
        """Return the keys of complete blocks, and keep the other keys for the next batch."""
        keys = [*self.pending_keys, *(rows.text_keys or [])]
        complete = len(keys) // DUPLICATE_BLOCK * DUPLICATE_BLOCK
        self.pending_keys = keys[complete:]
        return Rows(complete, text_keys=keys[:complete])

    def record(self, monitor_rows: int) -> None:
        """Add the wealth to the history. Every second point is dropped when the history is full."""
        self._best_peak = max(self._best_peak, self.peak)
        total = float(self._detector.wealth.total()[0])
        self.history.append((monitor_rows, round(math.log10(max(total, 1e-300)), 4)))
        if len(self.history) > MAX_HISTORY:
            self.history = self.history[::2]

    def alarm(self) -> Alarm:
        assert self.alarmed_at is not None
        counts = np.array(self.reference.counts).sum(0)
        before = counts / max(counts.sum(), 1)
        now = self.recent / max(self.recent.sum(), 1e-12)
        cell = int(np.abs(now - before).argmax())
        return Alarm(
            self.reference.signal,
            self.reference.source,
            self.alarmed_at,
            self._best_peak,
            self.reference.names[cell],
            float(before[cell]),
            float(now[cell]),
        )

    def state(self) -> SignalState:
        return SignalState(
            **self._detector.wealth.state().model_dump(),
            counts=self._detector.counts[0].tolist(),
            best_peak=self._best_peak,
            rows=self._detector.rows,
            recent=self.recent.tolist(),
            pending_keys=self.pending_keys,
            history=self.history,
            alarmed_at=self.alarmed_at,
        )

    def _is_own(self, state: SignalState) -> bool:
        """Return whether a state counts this reference and the tested rows, and has no NaN."""
        own = self._detector.counts[0]
        if [len(row) for row in state.counts] != [own.shape[1]] * len(own):
            return False
        added = np.array(state.counts) - own
        return (
            bool((added >= 0).all())
            and added.sum() == state.rows
            and self._detector.wealth.fits(state)
            and len(state.recent) == len(self.recent)
            and bool(np.isfinite(state.recent).all())
        )

    def restore(self, state: SignalState) -> None:
        if not self._is_own(state):
            raise InputError(
                f"state.signals={self.reference.signal}: damaged, or of another reference. Use "
                "the state of this reference, or begin a new monitor."
            )
        self._detector.counts[0] = state.counts
        self._detector.rows = state.rows
        self._detector.wealth.restore(state)
        self.recent, self.pending_keys = np.array(state.recent), list(state.pending_keys)
        self.history, self.alarmed_at = list(state.history), state.alarmed_at
        self._best_peak = state.best_peak
