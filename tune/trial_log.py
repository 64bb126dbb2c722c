"""Writing what `tune.records` reads: one line an event, as it happens."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.tune import Callback

from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.files import append_lines
from tune.records import DIVERGED, TRIALS, Trial, kept_value
from tune.trial import own_config
from tune.trial_outcome import CAUSE, FAILURE, FINAL, FULL

log = logging.getLogger(__name__)

_LOCK = ".lock"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a sweep's directory; the lock goes with the process.

    Raises:
        InputError: another process holds it.
    """
    with (run_dir / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"run.name={run_dir.name!r}: a sweep runs there; wait for it, or choose another "
                "run.name"
            ) from None
        yield


class Ledger:
    """Appends events. What a killed driver left half written is cut off first."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / TRIALS
        if self._path.is_file():
            content = self._path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                os.truncate(self._path, len(whole))

    def write(self, event: str, trial: int, **fields: Any) -> None:
        """Append an event.

        Raises:
            DiskError: it cannot be written; nothing of it is left in the file.
        """
        line = {"event": event, "trial": trial, "time": round(time.time(), 3), **fields}
        append_lines(self._path, json.dumps(line, ensure_ascii=False).encode() + b"\n")


class LedgerCallback(Callback):
    """Writes what Ray Tune's trials do, and tells others of each event.

    Args:
        modes: by objective: max or min; the metric first.
        past: trials that the sweep has already; their epochs are not written again.
        full_epochs: of a trial's settings.
        reason: why a trial that the scheduler stopped was stopped, e.g. its name.
        tell: called with the event's kind, the trial's number and the event's fields.
    """

    def __init__(
        self,
        ledger: Ledger,
        modes: Mapping[str, str],
        past: Sequence[Trial],
        reason: str,
        tell: Callable[[str, int, dict[str, Any]], None],
    ) -> None:
        self._ledger, self._modes, self._reason, self._tell = ledger, modes, reason, tell
        self._epochs = {t.number: {e.epoch: e.metrics for e in t.epochs} for t in past}
        self._begun: dict[int, float] = {}  # monotonic, by number
        self._params: dict[int, Any] = {}
        self.ended: set[int] = set()

    @property
    def running(self) -> dict[int, float]:
        """Trials without an end, and the seconds that they have had in this process."""
        now = time.monotonic()
        return {n: now - begun for n, begun in self._begun.items() if n not in self.ended}

    def on_trial_start(self, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """A trial runs, for the first time, again, or with settings of another (PBT)."""
        number = _config(trial)["number"]
        self._begun.setdefault(number, time.monotonic())
        self._note_params(number, _config(trial))

    def _note_params(self, number: int, config: Mapping[str, Any]) -> None:
        if self._params.get(number) == config["params"]:
            return
        source = "pbt" if number in self._params else config["source"]
        self._params[number] = dict(config["params"])
        self._write("start", number, params=dict(config["params"]), source=source)

    def on_trial_result(self, trial: Any, result: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        """A trial has finished an epoch.

        Raises:
            DiskError: it could not write, as no trial could: Ray Tune ends with what this raises.
        """
        number, epoch = _config(trial)["number"], result.get("epoch")
        self._note_params(number, _config(trial))
        if result.get(FULL):
            raise DiskError(*result[FULL])
        ended = FAILURE in result or FINAL in result
        if epoch is None or ended or epoch in self._epochs.setdefault(number, {}):
            return
        metrics = {
            key: result[key]
            for key in (
                "macro_f1",
                "accuracy",
                "validation_loss",
                "loss",
                "learning_rate",
                *self._modes,
            )
            if key in result
        }
        self._epochs[number][epoch] = metrics
        seconds = result.get("epoch_seconds")
        self._write("epoch", number, epoch=int(epoch), metrics=metrics, seconds=seconds)

    def on_trial_complete(self, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """A trial has ended: by itself, by the scheduler, or with a problem of its own."""
        result = trial.last_result or {}
        final = result.get(FINAL)
        if result.get(FAILURE):
            cause = result.get(CAUSE)
            status = DIVERGED if cause == DIVERGED else "failed"
            self._end(trial, status, str(result[FAILURE]), {}, None, cause)
        elif final:
            self._end(trial, "finished", None, dict(final), result.get("model_dir"))
        else:
            epoch = result.get("epoch")
            self._end(trial, "stopped", f"{self._reason}, after epoch {epoch}", None, None)

    def on_trial_recover(self, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """A trial has lost its process, and is started again."""
        log.warning("trial %d lost its process, and is started again", _config(trial)["number"])

    def on_trial_error(self, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """A trial has lost its process too often."""
        text = getattr(trial, "error_file", None) and _last_line(Path(trial.error_file))
        self._end(trial, "failed", text or "its process was lost", {}, None)

    def _end(
        self,
        trial: Any,
        status: str,
        reason: str | None,
        values: dict[str, float] | None,
        checkpoint: str | None,
        cause: str | None = None,
    ) -> None:
        self.on_trial_start(trial)  # a process may be lost before it runs
        number = _config(trial)["number"]
        epochs = self._epochs.get(number, {})
        if values is None:
            values = best_values(epochs, self._modes)
        self.ended.add(number)
        self._write(
            "end",
            number,
            status=status,
            reason=reason,
            epochs=len(epochs),
            seconds=round(time.monotonic() - self._begun[number], 3),
            values=values,
            checkpoint=checkpoint,
            cause=cause,
        )

    def interrupt(self, reason: str) -> None:
        """End all trials that still run, for now."""
        for number, seconds in self.running.items():
            epochs = self._epochs.get(number, {})
            self.ended.add(number)
            self._write(
                "end",
                number,
                status="interrupted",
                reason=reason,
                epochs=len(epochs),
                seconds=round(seconds, 3),
                values=best_values(epochs, self._modes),
                checkpoint=None,
            )

    def _write(self, event: str, number: int, **fields: Any) -> None:
        self._ledger.write(event, number, **fields)
        self._tell(event, number, fields)


def _config(trial: Any) -> Mapping[str, Any]:
    return own_config(trial.config, trial.custom_trial_name)


def best_values(
    epochs: Mapping[int, Mapping[str, float]], modes: Mapping[str, str]
) -> dict[str, float]:
    """What a trial has reached so far, as if it ended there; nothing before the first epoch."""
    metric, mode = next(iter(modes.items()))
    value = kept_value((epochs[number] for number in sorted(epochs)), metric, mode)
    return {} if value is None else {metric: value}


def _last_line(file: Path) -> str | None:
    try:
        lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
    except OSError:
        return None
    return next((line[:300] for line in reversed(lines) if line), None)
