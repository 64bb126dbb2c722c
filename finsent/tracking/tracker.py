"""Experiment tracking of a run's directory, through one protocol.

The tracker is in the driver and follows the run's `metrics.jsonl`: workers may be lost and
restarted, and a worker's step must not wait for a service. The run's directory stores the id of the
tracked run and the last line that was sent. So a resumed job, an evaluation and a publication
continue the same tracked run, and no step is sent twice. Any failure is a warning: it must not end
the job.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from finsent.adapters.wandb_environment import (
    Mode,
    environment_mode,
    keep_folders_in,
    without_key,
)
from finsent.evaluation.report import page_without_texts
from finsent.metrics_record import METRICS_FILE, Headline, StoredMetrics
from finsent.records import Record
from finsent.tracking.config import TrackingConfig
from finsent.training.metrics_log import MetricsLine, read_metrics

if TYPE_CHECKING:
    from finsent.adapters.wandb import Run

log = logging.getLogger(__name__)

TRACKING_FILE = "tracking.json"
_PICTURES_DIR = "pictures"  # of a report
_FOLLOW_SECONDS = 2.0
_MAX_REASON = 200  # characters
_LINE_ORDER = {"step": 0, "epoch": 1}  # of two lines of the same step
_MISTAKE_COLUMNS = ("text", "label", "predicted", "score", "source", "row")
_GATE_KEYS = ("outcome", "against", "forced")


class Tracker(Protocol):
    """Records of a job in addition to metrics."""

    def report(self, split: str | None, headline: Headline, folder: Path) -> None:
        """Record an evaluation: headline figures, the page, and the pictures.

        Args:
            split: of the dataset version; None: labeled files.
            headline: number of rows and figures by name.
            folder: as `finsent.evaluation.evaluate.write_results` writes it.
        """

    def pictures(self, name: str, files: Iterable[Path], page: Path | None = None) -> None:
        """Record pictures under `name/`, and a page that has no texts of rows."""

    def model(
        self, folder: Path, version: str, alias: str | None, gate: Mapping[str, Any] | None = None
    ) -> None:
        """Record a published model version, and the record of the gate that it passed."""


class TrackingRecord(Record):
    """`tracking.json` in a run's directory."""

    id: str  # of the tracked run
    sent: tuple[int, int] = (0, -1)  # position of the last line of metrics that was sent


class _NoTracker:
    """Records nothing."""

    def report(self, split: str | None, headline: Headline, folder: Path) -> None:
        """Record nothing."""

    def pictures(self, name: str, files: Iterable[Path], page: Path | None = None) -> None:
        """Record nothing."""

    def model(
        self, folder: Path, version: str, alias: str | None, gate: Mapping[str, Any] | None = None
    ) -> None:
        """Record nothing."""


def _wandb() -> ModuleType:
    # wandb takes 0.4 CPU seconds, which a job without tracking does without.
    from finsent.adapters import wandb

    return wandb


def tracking_mode(config: TrackingConfig) -> Mode:
    """Return the configured mode, where `auto` is resolved. Makes no network request."""
    if config.mode != "auto":
        return config.mode
    return environment_mode()


@contextmanager
def tracked(
    config: TrackingConfig, run_dir: Path, settings: Mapping[str, Any]
) -> Iterator[Tracker]:
    """Record what happens inside the block in the tracked run of a run's directory.

    Args:
        settings: resolved and JSON-able.
    """
    mode = tracking_mode(config)
    tracker = None if mode == "disabled" else _open(config, mode, run_dir, settings)
    if tracker is None:
        yield _NoTracker()
        return
    with tracker:
        yield tracker


def _open(
    config: TrackingConfig, mode: Mode, run_dir: Path, settings: Mapping[str, Any]
) -> _WandbTracker | None:
    file = run_dir / TRACKING_FILE
    keep_folders_in(run_dir)
    try:
        wandb = _wandb()
        if file.is_file():
            record = TrackingRecord.read(file)
        else:
            record = TrackingRecord(id=uuid.uuid4().hex[:12])
        run = wandb.Run(
            wandb.RunRequest(
                id=record.id,
                name=run_dir.name,
                run_dir=run_dir,
                mode=mode,
                project=config.project,
                entity=config.entity,
                group=config.group,
                tags=config.tags,
                config=settings,
            )
        )
        record.write(file)
    except Exception as error:  # any failure is a warning
        log.warning("tracking: off for this job (%s)", _reason(error))
        return None
    return _WandbTracker(run, run_dir, record, records_texts=config.texts)


def _reason(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return without_key(text)[:_MAX_REASON]


class _WandbTracker:
    """A tracked run; a context manager that follows the run's metrics while it is open."""

    def __init__(
        self, run: Run, run_dir: Path, record: TrackingRecord, *, records_texts: bool
    ) -> None:
        self._run, self._run_dir, self._record = run, run_dir, record
        self._records_texts = records_texts
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)
        self._has_failed = False

    def __enter__(self) -> _WandbTracker:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(_wandb().FINISH_SECONDS)
        self._attempt(self._send_metrics)
        self._attempt(lambda: self._run.finish(exit_code=0 if error is None else 1))

    def _follow(self) -> None:
        while not self._ended.wait(_FOLLOW_SECONDS):
            self._attempt(self._send_metrics)

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            with self._lock:
                action()
        except Exception as error:  # any failure is a warning
            self._has_failed = True
            log.warning("tracking: off for the rest of this job (%s)", _reason(error))

    def _send_metrics(self) -> None:
        """Send the new lines of `metrics.jsonl`. A step that is repeated has the same values."""
        sent = self._record.sent
        for line in read_metrics(self._run_dir):
            position = (line.step, _LINE_ORDER[line.kind])
            if position > sent:
                self._run.log(_numbers(line), line.step)
                sent = position
        if sent != self._record.sent:
            self._record = TrackingRecord(id=self._record.id, sent=sent)
            self._record.write(self._run_dir / TRACKING_FILE)

    def report(self, split: str | None, headline: Headline, folder: Path) -> None:
        """Record an evaluation; see `Tracker`."""
        self._attempt(lambda: self._report(split or "benchmark", headline, folder))

    def _report(self, split: str, headline: Headline, folder: Path) -> None:
        self._run.summarize(
            {f"{split}/{key}": value for key, value in headline.items() if value is not None}
        )
        values = _images(split, (folder / _PICTURES_DIR).glob("*.png"))
        if self._records_texts:
            mistakes = StoredMetrics.read(folder / METRICS_FILE).mistakes or ()
            rows = [[getattr(mistake, name) for name in _MISTAKE_COLUMNS] for mistake in mistakes]
            values[f"{split}/mistakes"] = _wandb().table(_MISTAKE_COLUMNS, rows)
            html = (folder / "report.html").read_text(encoding="utf-8")
        else:
            html = page_without_texts(folder, f"{split}: macro-F1 {headline['macro_f1']:.3f}")
        values[f"{split}/report"] = _wandb().page(html)
        self._log_media(values)

    def pictures(self, name: str, files: Iterable[Path], page: Path | None = None) -> None:
        """Record pictures; see `Tracker`."""
        self._attempt(lambda: self._pictures(name, files, page))

    def _pictures(self, name: str, files: Iterable[Path], page: Path | None) -> None:
        values = _images(name, files)
        if page is not None:
            values[f"{name}/report"] = _wandb().page(page.read_text(encoding="utf-8"))
        self._log_media(values)

    def _log_media(self, values: Mapping[str, Any]) -> None:
        """Log values that belong to no step at the newest step."""
        self._send_metrics()
        if values:
            self._run.log(values, max(self._record.sent[0], self._run.step))

    def model(
        self, folder: Path, version: str, alias: str | None, gate: Mapping[str, Any] | None = None
    ) -> None:
        """Record a model version; see `Tracker`."""
        self._attempt(lambda: self._model(folder, version, alias, gate))

    def _model(
        self, folder: Path, version: str, alias: str | None, gate: Mapping[str, Any] | None
    ) -> None:
        if gate:
            self._run.summarize({f"gate/{key}": gate[key] for key in _GATE_KEYS})
        aliases = [name for name in (version, alias) if name]
        self._run.log_model(folder, aliases, {"version": version, "gate": gate})


def _numbers(line: MetricsLine) -> dict[str, int | float]:
    """Return a line's numbers by `KIND/NAME`."""
    return {
        f"{line.kind}/{name}": value
        for name, value in line.model_dump().items()
        if isinstance(value, int | float)
    }


def _images(name: str, files: Iterable[Path]) -> dict[str, object]:
    """Return pictures by `NAME/FILE`."""
    return {f"{name}/{file.stem}": _wandb().image(file) for file in sorted(files)}
