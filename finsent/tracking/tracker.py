"""The one seam to experiment tracking: Weights & Biases. Nothing else imports it.

It lives in the driver, which follows the run's `metrics.jsonl`: workers may die and come again, and
a worker's step must not wait for a service. A run's directory remembers its id and the last line
that was sent, so that a job that goes on, and evaluation and publication later, add to the same
run, and no step is sent twice. Whatever fails here is a warning: a run is worth more than its
record.
"""

from __future__ import annotations

import logging
import netrc
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlparse

from finsent.evaluation.metrics import HEADLINE
from finsent.files import read_json, write_json
from finsent.tracking.config import TrackingConfig
from finsent.training.outputs import read_journal

log = logging.getLogger(__name__)

RECORD = "tracking.json"
_FOLLOW_EVERY = 2.0  # seconds
_INIT_SECONDS, _FINISH_SECONDS = 30, 60
_ORDER = {"step": 0, "epoch": 1}  # of two lines of the same step
PICTURES = "pictures"  # a report's folder of them
_MISTAKES = ("text", "label", "predicted", "score", "source", "row")


class Tracker(Protocol):
    """What jobs tell."""

    def report(self, result: dict[str, Any], folder: Path) -> None:
        """An evaluation: headline figures, the page, and the pictures in `pictures/`.

        Args:
            result: as `ray_jobs.evaluate` returns it.
            folder: has what `finsent.evaluation.evaluate.write_results` writes.
        """

    def pictures(self, name: str, files: Iterable[Path], page: Path | None = None) -> None:
        """Pictures of something else, under `name/`, and its page, which has no texts of rows."""

    def model(
        self, folder: Path, version: str, alias: str | None, gate: dict[str, Any] | None = None
    ) -> None:
        """A published model version, and the record of the gate that it passed."""


class _Silent:
    """Tracks nothing."""

    def report(self, result: dict[str, Any], folder: Path) -> None:
        """Nothing."""

    def pictures(self, name: str, files: Iterable[Path], page: Path | None = None) -> None:
        """Nothing."""

    def model(
        self, folder: Path, version: str, alias: str | None, gate: dict[str, Any] | None = None
    ) -> None:
        """Nothing."""


def mode_of(config: TrackingConfig) -> str:
    """`online`, `offline` or `disabled`; asks nobody."""
    if config.mode != "auto":
        return config.mode
    wanted = os.environ.get("WANDB_MODE", "")
    if wanted in ("online", "offline", "disabled"):
        return wanted
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


@contextmanager
def tracked(config: TrackingConfig, run_dir: Path, settings: dict[str, Any]) -> Iterator[Tracker]:
    """Record what happens inside the block in the run that belongs to a run's directory.

    Args:
        settings: resolved, JSON-able.
    """
    mode = mode_of(config)
    if mode == "disabled":
        yield _Silent()
        return
    tracker = _open(config, mode, run_dir, settings)
    if tracker is None:
        yield _Silent()
        return
    with tracker:
        yield tracker


def _open(
    config: TrackingConfig, mode: str, run_dir: Path, settings: dict[str, Any]
) -> _WandbTracker | None:
    file = run_dir / RECORD
    record: dict[str, Any] = {"id": uuid.uuid4().hex[:12], "sent": [0, -1]}
    # Else they lie in the home directory.
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ.setdefault(name, str(run_dir / "wandb" / name.split("_")[1].lower()))
    try:
        if file.is_file():
            record = read_json(file)
        import wandb

        run = wandb.init(
            project=config.project,
            entity=config.entity,
            group=config.group,
            tags=config.tags or None,
            id=record["id"],
            name=run_dir.name,
            resume="allow",
            reinit="create_new",  # a sweep's trials run side by side
            dir=run_dir,
            config=settings,
            mode=mode,  # type: ignore[arg-type] # one of its literals
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                init_timeout=_INIT_SECONDS,
                finish_timeout=_FINISH_SECONDS,
                finish_timeout_raises=False,
            ),
        )
        write_json(file, record)
    except Exception as error:  # see the module's docstring
        log.warning("tracking: off for this job (%s)", _brief(error))
        return None
    return _WandbTracker(run, run_dir, record, config.texts)


def _brief(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    key = os.environ.get("WANDB_API_KEY")
    return (text.replace(key, "***") if key else text)[:200]


def _images(name: str, files: Iterable[Path]) -> dict[str, Any]:
    """Pictures as W&B has them, by key; the run gets copies of its own."""
    import wandb

    return {f"{name}/{file.stem}": wandb.Image(str(file)) for file in sorted(files)}


class _WandbTracker:
    """A run of Weights & Biases; a context manager that follows the journal while it is open."""

    def __init__(self, run: Any, run_dir: Path, record: dict[str, Any], texts: bool) -> None:
        self._run, self._run_dir, self._record, self._texts = run, run_dir, record, texts
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)
        self._failed = False

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
        self._thread.join(_FINISH_SECONDS)
        self._try(self._send)
        self._try(lambda: self._run.finish(exit_code=0 if error is None else 1))

    def _follow(self) -> None:
        while not self._ended.wait(_FOLLOW_EVERY):
            self._try(self._send)

    def _try(self, action: Any) -> None:
        if self._failed:
            return
        try:
            with self._lock:
                action()
        except Exception as error:  # see the module's docstring
            self._failed = True
            log.warning("tracking: off from here on (%s)", _brief(error))

    def _send(self) -> None:
        """The journal's lines that are new. Those of steps made again are the same as before."""
        sent = tuple(self._record["sent"])
        for line in read_journal(self._run_dir):
            place = (line["step"], _ORDER[line["kind"]])
            if place > sent:
                values = {k: v for k, v in line.items() if isinstance(v, int | float)}
                values = {f"{line['kind']}/{key}": value for key, value in values.items()}
                self._run.log(values, step=line["step"])
                sent = place
        if sent != tuple(self._record["sent"]):
            self._record["sent"] = [*sent]
            write_json(self._run_dir / RECORD, self._record)

    def report(self, result: dict[str, Any], folder: Path) -> None:
        """See `Tracker`."""
        self._try(lambda: self._report(result, folder))

    def _report(self, result: dict[str, Any], folder: Path) -> None:
        import wandb

        from finsent.evaluation.report import page_without_texts

        split = result.get("split") or "benchmark"
        for key in (*HEADLINE, "rows"):
            if result.get(key) is not None:
                self._run.summary[f"{split}/{key}"] = result[key]
        values = _images(split, (folder / PICTURES).glob("*.png"))
        if self._texts:
            rows = read_json(folder / "metrics.json").get("mistakes") or []
            cells = [[row.get(name) for name in _MISTAKES] for row in rows]
            values[f"{split}/mistakes"] = wandb.Table(columns=[*_MISTAKES], data=cells)
            page = (folder / "report.html").read_text(encoding="utf-8")
        else:
            page = page_without_texts(folder, f"{split}: macro-F1 {result['macro_f1']:.3f}")
        values[f"{split}/report"] = wandb.Html(page, inject=False, data_is_not_path=True)
        self._log(values)

    def _log(self, values: dict[str, Any]) -> None:
        """Log what is of no step, at the newest one: W&B drops what is of an earlier one."""
        self._send()
        if values:
            self._run.log(values, step=max(self._record["sent"][0], self._run.step))

    def pictures(self, name: str, files: Iterable[Path], page: Path | None = None) -> None:
        """See `Tracker`."""
        self._try(lambda: self._pictures(name, files, page))

    def _pictures(self, name: str, files: Iterable[Path], page: Path | None) -> None:
        import wandb

        values = _images(name, files)
        if page is not None:
            text = page.read_text(encoding="utf-8")
            values[f"{name}/report"] = wandb.Html(text, inject=False, data_is_not_path=True)
        self._log(values)

    def model(
        self, folder: Path, version: str, alias: str | None, gate: dict[str, Any] | None = None
    ) -> None:
        """See `Tracker`."""
        self._try(lambda: self._model(folder, version, alias, gate))

    def _model(
        self, folder: Path, version: str, alias: str | None, gate: dict[str, Any] | None
    ) -> None:
        import wandb

        metadata = {"version": version, "gate": gate}
        if gate:
            for key in ("outcome", "against", "forced"):
                self._run.summary[f"gate/{key}"] = gate[key]
        artifact = wandb.Artifact("finsent-model", "model", metadata=metadata)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            # A version is immutable: W&B uploads its files, now or by `wandb sync`, from where they
            # are, and needs no copy of them. Not `add_dir`, which prints.
            artifact.add_file(
                str(file), file.relative_to(folder).as_posix(), policy="immutable", skip_cache=True
            )
        self._run.log_artifact(artifact, aliases=[name for name in (version, alias) if name])
