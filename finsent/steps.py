"""Progress of a job with several steps: the current step, the elapsed time, and the time left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.files import read_json
from finsent.progress import format_duration
from finsent.runs import CONFIG, RESULT

log = logging.getLogger(__name__)

_MAX_RUNS = 20  # newest runs that are read
_TIMED_SECTIONS = ("data", "model", "train", "evaluate", "export")  # sections that decide the time


@dataclass(frozen=True)
class Past:
    """The times of an earlier run of the same job with the same settings."""

    name: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)  # of each step


class Steps:
    """Measures the steps, and logs a line when a step begins.

    Args:
        names: of all steps, in order.
        past: times for the estimate of the time left; None: no estimate.
        clock: returns seconds.
    """

    def __init__(
        self,
        names: Sequence[str],
        past: Past | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._names, self._past, self._clock = names, past or Past(), clock
        self._job_started = self._step_started = clock()
        self.seconds: dict[str, float] = {}

    def begin(self, name: str) -> str:
        """End the current step, begin the next one, and return its title, e.g. `[2/5] train`."""
        self._end()
        title = f"[{len(self.seconds) + 1}/{len(self._names)}] {name}"
        self.seconds[name] = 0.0
        log.info("%s%s", title, self._times())
        return title

    def finish(self) -> None:
        """End the last step."""
        self._end()
        total = format_duration(self._step_started - self._job_started)
        log.info("[%d/%d] done after %s", len(self.seconds), len(self._names), total)

    def _end(self) -> None:
        now = self._clock()
        if self.seconds:
            self.seconds[list(self.seconds)[-1]] = round(now - self._step_started, 3)
        self._step_started = now

    def _times(self) -> str:
        times = []
        if len(self.seconds) > 1:
            times.append(f"{format_duration(self._step_started - self._job_started)} so far")
        names, seconds = self._names[len(self.seconds) - 1 :], self._past.seconds
        if all(name in seconds for name in names):
            left = format_duration(sum(seconds[name] for name in names))
            times.append(f"about {left} left, as in run {self._past.name}")
        return f": {'; '.join(times)}" if times else ""


def past_run(runs_dir: Path, job: str, settings: Mapping[str, Any]) -> Past | None:
    """Return the times of the longest of the newest runs with the same settings, or None.

    A shorter run may have been resumed, and have trained less than a new run has to.

    Args:
        settings: resolved, JSON-able.
    """
    results = sorted(runs_dir.glob(f"*/{RESULT}"), key=_modified, reverse=True)[:_MAX_RUNS]
    past_runs = []
    for result in results:
        try:
            record, before = read_json(result), read_json(result.parent / CONFIG)
            is_same = all(before[section] == settings[section] for section in _TIMED_SECTIONS)
            if record["job"] == job and is_same:
                seconds = {str(k): float(v) for k, v in record["step_seconds"].items()}
                past_runs.append(Past(result.parent.name, seconds))
        except (InputError, OSError, KeyError, TypeError, ValueError, AttributeError):
            continue  # an incomplete run, or a run of another version
    return max(past_runs, key=lambda past: sum(past.seconds.values()), default=None)


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # removed by another process
        return 0.0
