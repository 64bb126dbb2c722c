"""Checkpoints of a run in a bucket: uploaded while the run trains, fetched where it resumes."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from finsent.daemon_call import call_in_daemon
from finsent.errors import InputError, UserError
from finsent.files import link_files, staged_dir, staged_file
from finsent.storage import Location
from finsent.training.checkpoint import STATE_FILE, list_checkpoints, read_state
from finsent.training.metrics_log import METRICS_FILE
from finsent.workspace import Workspace

log = logging.getLogger(__name__)

_TREES = "checkpoints"  # below the run


@dataclass(frozen=True)
class CheckpointMirror:
    """The checkpoints of a run in a bucket: a tree `checkpoints/NAME` for each, and the metrics.

    Methods raise `StorageError` where the bucket cannot be used.
    """

    location: Location  # ROOT/runs/NAME

    @classmethod
    def of_run(cls, workspace: Workspace, run_dir: Path) -> CheckpointMirror | None:
        """Return the mirror of a run; None: the run is in a directory."""
        if workspace.root.is_local:
            return None
        return cls(workspace.root / "runs" / run_dir.name)

    def fetch_missing(self, run_dir: Path) -> None:
        """Copy the checkpoints that a run's directory lacks, and metrics that it lacks."""
        for name in self.location.trees.names(_TREES):
            self.fetch(name, run_dir)
        stored, metrics = self.location.store.read(METRICS_FILE), run_dir / METRICS_FILE
        size = metrics.stat().st_size if metrics.is_file() else 0
        if stored is not None and len(stored.data) > size:
            with staged_file(metrics) as staged:
                staged.write_bytes(stored.data)

    def fetch(self, name: str, run_dir: Path) -> None:
        """Copy a checkpoint into a run's directory, unless the directory has the checkpoint."""
        folder = run_dir / name
        if folder.is_dir():
            return
        shared_copy = self.location.trees.fetch(f"{_TREES}/{name}")
        with staged_dir(folder) as staging:
            shutil.copytree(shared_copy, staging, dirs_exist_ok=True)

    def upload(self, folder: Path) -> None:
        """Upload a checkpoint, unless the bucket has it or the run deletes it meanwhile."""
        key, trees = f"{_TREES}/{folder.name}", self.location.trees
        if trees.is_published(key):
            return
        try:
            names = [STATE_FILE, *read_state(folder).files]
        except InputError:  # deleted, or damaged, which the run's next start reports
            return
        with suppress(FileNotFoundError), trees.publish(key) as staging:  # of a deleted checkpoint
            link_files(folder, names, staging)  # links stay when the run deletes the checkpoint

    def synchronize(self, run_dir: Path) -> None:
        """Upload a run's checkpoints and metrics, then delete what the run does not keep.

        The oldest checkpoint is uploaded first. A run that resumes from a checkpoint of the bucket
        therefore also finds the best checkpoint before.
        """
        checkpoints = list_checkpoints(
            run_dir, _ignore
        )  # first: the metrics then have all lines before them
        metrics = run_dir / METRICS_FILE
        if metrics.is_file():
            lines = metrics.read_bytes()
            self.location.store.put(METRICS_FILE, lines[: lines.rfind(b"\n") + 1])
        for checkpoint in checkpoints:
            self.upload(checkpoint.folder)
        trees = self.location.trees
        for name in trees.names(_TREES):
            if not (run_dir / name).is_dir():
                trees.delete(f"{_TREES}/{name}")


class CheckpointUploads:
    """Uploads a run's checkpoints in the background, in one thread.

    The thread uploads what the run keeps when the upload begins. A checkpoint that the run has
    deleted by then is left out, so a slow bucket delays no step and needs no space for a queue. An
    upload that fails is repeated with the next checkpoint, and at the end.
    """

    def __init__(self, mirror: CheckpointMirror, run_dir: Path) -> None:
        self._mirror, self._run_dir = mirror, run_dir
        self._lock = Lock()
        self._is_due = self._is_running = False
        self._thread: Future[None] | None = None

    def start(self) -> None:
        """Upload in the background what the bucket lacks, after the upload that is running."""
        with self._lock:
            self._is_due = True
            if not self._is_running:
                self._is_running = True
                self._thread = call_in_daemon("checkpoint-upload", self._upload)

    def finish(self) -> None:
        """Upload what the bucket lacks.

        Raises:
            StorageError, DiskError: bucket or disk cannot be used. The checkpoints stay on this
                machine.
        """
        with self._lock:
            self._is_due = False
        if self._thread is not None:
            self._thread.result()
        self._mirror.synchronize(self._run_dir)

    def _upload(self) -> None:
        while self._claim():
            try:
                self._mirror.synchronize(self._run_dir)
            except UserError as error:  # also of a full disk below storage.cache_dir
                log.warning("train: checkpoints will be uploaded with the next (%s)", error)

    def _claim(self) -> bool:
        """Return whether an upload is due; otherwise the thread ends."""
        with self._lock:
            self._is_running, self._is_due = self._is_due, False
            return self._is_running


def _ignore(_: str) -> None:
    """Ignore a checkpoint that is being written or deleted."""
