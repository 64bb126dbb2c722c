"""Compare the rate of the backend in use with its stored rate."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path

from finsent.inference.selection.benchmark import LENGTHS

log = logging.getLogger(__name__)

# Two other busy processes per core leave a third of the rate, so a third is usual load. The slowest
# backend has about 0.4 of the rate of the fastest, see README.md: below a quarter any backend may
# be the better one.
SLOW_SHARE = 0.25
WINDOW_ROWS = 500
SLOW_WINDOWS = 5  # in a row; one fast window between them shows that other load was the cause


class RateMonitor:
    """Delete the stored selection where the rate in use is far below the stored rate.

    The next start then measures again. This process keeps its backend: a measurement next to
    requests would slow the requests and be wrong.
    """

    def __init__(self, file: Path, rate: float, rows: int, streams: int) -> None:
        """Monitor a backend.

        Args:
            file: of the stored selection.
            rate: stored, rows/s of all streams.
            rows: per micro-batch when measured.
            streams: micro-batches that are computed in parallel.
        """
        self._file, self._rows, self._streams = file, rows, streams
        # Rows of other lengths count by their tokens.
        self._mean_length = sum(LENGTHS) / len(LENGTHS)
        self._limit = SLOW_SHARE * rate
        self._lock = threading.Lock()
        self._window_rows = self._window_seconds = 0.0
        self._slow_windows = 0
        self._is_done = False

    def record(self, rows: int, length: int, seconds: float) -> None:
        """Count a computed micro-batch.

        Only micro-batches like the measured ones count: small micro-batches and long rows cost
        more per token.

        Args:
            rows: with padding.
            length: tokens per row, with padding.
            seconds: computing time of the stream.
        """
        if self._is_done or rows < self._rows or not LENGTHS[0] <= length <= LENGTHS[-1]:
            return
        with self._lock:
            self._window_rows += rows * length / self._mean_length
            self._window_seconds += seconds
            if self._window_rows < WINDOW_ROWS or self._is_done:
                return
            rate = self._streams * self._window_rows / self._window_seconds
            self._slow_windows = self._slow_windows + 1 if rate < self._limit else 0
            self._window_rows = self._window_seconds = 0.0
            self._is_done = self._slow_windows == SLOW_WINDOWS
        if self._is_done:
            self._delete_selection(rate)

    def _delete_selection(self, rate: float) -> None:
        with suppress(OSError):  # a read-only directory: the selection expires anyway
            self._file.unlink(missing_ok=True)
        log.info(
            "engine: %.0f rows/s in use, %.0f when measured; the next start measures again",
            rate,
            self._limit / SLOW_SHARE,
        )
