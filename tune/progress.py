"""What a person sees of a running sweep."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from finsent.progress import progress_bar
from tune.config import SweepConfig
from tune.records import Trial
from tune.stats import WITHOUT_VALUE

log = logging.getLogger(__name__)

LIVE, LOG = 0.5, 30.0  # seconds between two drawings of a bar


class SweepBar:
    """A line for each trial that ends, and a bar: trials, time left, running ones, epochs, best."""

    def __init__(self, config: SweepConfig, past: Sequence[Trial]) -> None:
        self._config, self._sign = config, 1 if config.mode == "max" else -1
        self._params: dict[int, Any] = {t.number: t.params for t in past}
        self._running: set[int] = set()
        self._epochs = sum(len(t.epochs) for t in past)
        ended = [t for t in past if t.status not in ("running", "interrupted")]
        values = [(t.values.get(config.metric), t.number) for t in ended]
        self._best = max(
            ((value, number) for value, number in values if value is not None),
            key=lambda pair: self._sign * pair[0],
            default=None,
        )
        self._bar = progress_bar(
            "sweep", "trial", config.trials, len(ended), terminal_seconds=LIVE, log_seconds=LOG
        )

    def __enter__(self) -> SweepBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def event(self, event: str, number: int, fields: dict[str, Any]) -> None:
        """Show an event of the sweep's records."""
        metric = self._config.metric
        if event == "start":
            self._running.add(number)
            self._params[number] = fields["params"]
            log.info(
                "trial %d %s: %s",
                number,
                _BEGIN.get(fields["source"], "starts"),
                brief(fields["params"]),
            )
        elif event == "epoch":
            self._epochs += 1
        else:
            self._running.discard(number)
            value = fields["values"].get(metric)
            if value is not None and fields["status"] not in WITHOUT_VALUE:
                self._note(value, number)
            said = "" if value is None else f", {metric} {value:.4f}"
            why = f" ({fields['reason']})" if fields["reason"] else ""
            log.info(
                "trial %d %s%s, %d epochs, %.0f s%s",
                number,
                fields["status"],
                said,
                fields["epochs"],
                fields["seconds"],
                why,
            )
            self._bar.update(fields["status"] != "interrupted")
        best = "none" if self._best is None else f"{self._best[0]:.4f} (trial {self._best[1]})"
        self._bar.set_postfix_str(
            f"running={len(self._running)}, epochs={self._epochs}, best {metric}={best}",
            refresh=False,
        )

    def tick(self) -> None:
        """Some time has passed."""
        self._bar.update(0)

    def _note(self, value: float, number: int) -> None:
        if self._best is None or self._sign * value > self._sign * self._best[0]:
            self._best = (value, number)


_BEGIN = {"resumed": "goes on", "pbt": "takes over another's weights", "known": "starts (known)"}


def brief(params: dict[str, Any]) -> str:
    """A configuration in one line."""
    return (
        ", ".join(
            f"{key.rpartition('.')[2]}={value:.3g}"
            if isinstance(value, float)
            else f"{key.rpartition('.')[2]}={value}"
            for key, value in params.items()
        )
        or "the settings as they are"
    )
