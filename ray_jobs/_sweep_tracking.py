"""One tracked run a trial, all in one group. In the driver: a stopped trial's process is killed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from finsent.errors import ConfigError
from finsent.settings import Settings
from ray_jobs._tracking import tracking
from tune.space import with_values
from tune.trial import TRIALS


class TrialTracking:
    """Opens a run when a trial starts and closes it when it ends; a context closes the rest."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        group = settings.tracking.group or run_dir.name
        self._settings = settings.model_copy(
            update={"tracking": settings.tracking.model_copy(update={"group": group})}
        )
        self._run_dir, self._open = run_dir, dict[int, ExitStack]()

    def __enter__(self) -> TrialTracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for stack in self._open.values():
            stack.close()

    def follow(self, event: str, number: int, fields: dict[str, Any]) -> None:
        """Take an event of the sweep's records."""
        if event == "start" and number not in self._open:
            place = self._run_dir / TRIALS / f"{number:04d}"
            place.mkdir(parents=True, exist_ok=True)
            try:
                settings = with_values(self._settings, fields["params"])
            except ConfigError:  # the trial says so itself
                settings = self._settings
            stack = self._open[number] = ExitStack()
            stack.enter_context(tracking(settings, place))
        elif event == "end" and number in self._open:
            self._open.pop(number).close()
