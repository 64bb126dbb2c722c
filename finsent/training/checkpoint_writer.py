"""Writing of checkpoints, in this thread or in the background."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from finsent.files import staged_dir
from finsent.training.checkpoint import prune
from finsent.training.checkpoint_mirror import CheckpointUploads

WriteState = Callable[[Path], None]  # writes a training state into an empty directory


class CheckpointWriter:
    """Writes a run's checkpoints; on exit, waits for writes and uploads.

    Args:
        keep_every: the setting `train.keep_every_epochs`.
        uploads: of the checkpoints to a bucket; None: the run is in a directory.
    """

    def __init__(
        self,
        run_dir: Path,
        keep_every: int | None = None,
        uploads: CheckpointUploads | None = None,
    ) -> None:
        self._run_dir, self._keep_every, self._uploads = run_dir, keep_every, uploads
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[Path] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._wait()
                if self._uploads:
                    self._uploads.finish()
        finally:
            self._pool.shutdown()

    def write_async(self, name: str, write_state: WriteState) -> None:
        """Write a checkpoint in the background, after the one that is being written.

        Raises:
            Exception: the checkpoint before could not be written.
        """
        self._wait()
        self._pending = self._pool.submit(self._write, name, write_state)

    def write(self, name: str, write_state: WriteState) -> Path:
        """Write a checkpoint and return its directory.

        Raises:
            Exception: this checkpoint, or the one before, could not be written.
        """
        self._wait()
        return self._write(name, write_state)

    def raise_failure(self) -> None:
        """Raise the error of a checkpoint that was written in the background, without waiting."""
        if self._pending is not None and self._pending.done():
            self._wait()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, name: str, write_state: WriteState) -> Path:
        # Written to its final file system: a copy from a temporary directory would double the time.
        folder = self._run_dir / name
        shutil.rmtree(folder, ignore_errors=True)  # half deleted, or damaged
        with staged_dir(folder) as staging:
            write_state(staging)
        prune(self._run_dir, self._keep_every)
        if self._uploads:
            self._uploads.start()
        return folder
