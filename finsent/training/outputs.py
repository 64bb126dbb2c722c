"""What a run writes into its directory while it goes: checkpoints and `metrics.jsonl`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from finsent.files import append_lines, staged_dir, write_text
from finsent.training.checkpoint import retain

JOURNAL = "metrics.jsonl"
Save = Callable[[Path], None]


def read_journal(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, but for a torn last one; none where there is no file."""
    file = run_dir / JOURNAL
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # the process was killed while it wrote
            continue
    return found


class Outputs:
    """Writes for the first rank; a context manager that waits for what is being written.

    Args:
        keep_every: the setting `train.keep_every_epochs`.
    """

    def __init__(self, run_dir: Path, keep_every: int | None = None) -> None:
        self._run_dir, self._keep_every = run_dir, keep_every
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Path] | None = None

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._drain()
        finally:
            self._pool.shutdown()

    # --- checkpoints ------------------------------------------------------------------------------

    def save_later(self, name: str, save: Save) -> None:
        """Write a checkpoint in the background; waits while the one before is being written.

        Raises:
            Exception: what writing the one before has raised.
        """
        self._drain()
        self._writing = self._pool.submit(self._write, name, save)

    def save(self, name: str, save: Save) -> Path:
        """Write a checkpoint and wait for it; returns its directory.

        Raises:
            Exception: what writing this one, or the one before, has raised.
        """
        self._drain()
        return self._write(name, save)

    def _drain(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, name: str, save: Save) -> Path:
        # Written where it stays: a copy from a temporary place would cost as much again.
        folder = self._run_dir / name
        shutil.rmtree(folder, ignore_errors=True)  # half deleted, or damaged
        with staged_dir(folder) as staging:
            save(staging)
        retain(self._run_dir, self._keep_every)
        return folder

    # --- the journal ------------------------------------------------------------------------------

    def started(self, step: int) -> None:
        """The run begins, or goes on after a step: later lines are of steps that come again."""
        kept = [line for line in read_journal(self._run_dir) if line["step"] <= step]
        self._run_dir.mkdir(parents=True, exist_ok=True)
        write_text(self._run_dir / JOURNAL, "".join(map(_line, kept if step else [])))

    def log(self, record: dict[str, Any]) -> None:
        """Append a line; `record` has `kind` and `step`.

        Raises:
            Exception: what writing a checkpoint in the background has raised meanwhile.
        """
        if self._writing is not None and self._writing.done():
            self._drain()
        append_lines(self._run_dir / JOURNAL, _line(record).encode())


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
