"""Runs of a workspace whose root is in an object store.

A job writes its run's directory on this machine, below `storage.cache_dir`. The bucket has:

* `runs/NAME/files-ID`, a tree of the directory's files without checkpoints. `runs/NAME/run.json`
  names the current one. It is stored when the run starts and when a job has ended.
* `runs/NAME/checkpoints/checkpoint_N`, a tree per checkpoint, and `runs/NAME/metrics.jsonl`, which
  `finsent.training.checkpoint_mirror` uploads while the run trains.
* `runs/NAME/lease.json`, which the process that runs the run renews, see `finsent.storage.lease`.

A machine that needs a run copies it to a directory of its own. Jobs also change older runs, such as
`evaluate` by the report of a run's model. Therefore each job stores all runs of this machine that
have ended and changed, also those whose upload failed before.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from finsent.errors import InputError
from finsent.files import STAGING, directory_lock, link_files, make_dir, staged_dir
from finsent.records import Record
from finsent.runs import CHECKPOINT_PREFIX, RESULT, has_trained_model
from finsent.storage import Location
from finsent.storage.lease import hold_lease
from finsent.training.checkpoint_mirror import CheckpointMirror
from finsent.workspace import Workspace

log = logging.getLogger(__name__)

_STORED = ".stored.json"  # in a run's directory
_RECORD = "run.json"
_LEASE = "lease.json"
_LAST_TRAINED = "last_trained.json"
_ATTEMPTS = 3  # at a run that another machine replaces meanwhile

TreeName = Annotated[str, Field(pattern=r"^files-[0-9a-f]{16}$")]


class _ConflictError(InputError):
    """Another machine was first."""


class _RunRecord(Record):
    """`runs/NAME/run.json`: which tree has the run's files."""

    schema_version: Literal[1] = 1
    tree: TreeName


class _LastTrained(Record):
    """`runs/last_trained.json`: the run that `latest` means."""

    schema_version: Literal[1] = 1
    run: str


class _FileState(Record):
    bytes: int
    mtime_ns: int


class _StoredState(Record):
    """What the bucket has of a run's directory. Tells changes here from changes elsewhere."""

    schema_version: Literal[1] = 1
    tree: TreeName | None  # None: none yet
    pending: TreeName | None  # may have replaced `tree`: the process died meanwhile
    files: dict[str, _FileState]  # of `tree`, by path relative to the run's directory

    def knows(self, tree: str) -> bool:
        """Return whether this machine stored or copied a tree."""
        return tree in (self.tree, self.pending)


@dataclass(frozen=True)
class StoredRuns:
    """The runs below `storage.root` and their copies on this machine.

    Of a local root, the copies are the runs themselves, and the methods do nothing. Methods raise
    `StorageError` or `DiskError` where the bucket or the disk cannot be used.
    """

    runs_dir: Path
    location: Location

    @classmethod
    def of(cls, workspace: Workspace) -> StoredRuns:
        """Return the runs of a workspace."""
        return cls(workspace.runs_dir, workspace.root / "runs")

    def fetch(self, name: str, *, checkpoints: bool = False) -> Path:
        """Return the directory of a run on this machine, with the files of the bucket.

        A run that the bucket does not have stays as it is.

        Args:
            checkpoints: whether to copy the run's checkpoints, too.
        """
        run_dir = self.runs_dir / name
        if self.location.is_local or "/" in name or name in ("", ".", ".."):
            return run_dir
        with self._lock():
            for attempt in range(1, _ATTEMPTS + 1):
                record = self._record(name)[0]
                if record is None or not _is_outdated(run_dir, record):
                    break
                try:
                    self._copy(run_dir, record)
                except InputError:
                    # Another machine may have replaced the tree.
                    if attempt == _ATTEMPTS or self._record(name)[0] == record:
                        raise
            if checkpoints:
                self._mirror(run_dir).fetch_missing(run_dir)
        return run_dir

    def fetch_last_trained(self) -> Path | None:
        """Return the directory of the last trained run in the bucket; None: there is none."""
        store = self.location.store
        stored = store.read(_LAST_TRAINED)
        if stored is None:
            return None
        return self.fetch(_LastTrained.decode(stored.data, store.locate(_LAST_TRAINED)).run)

    def store_started(self, run_dir: Path) -> None:
        """Store a run that starts or resumes, so that other machines see its name as taken.

        Raises:
            InputError: another machine has started a run of this name at the same time.
        """
        if self.location.is_local:
            return
        with self._lock():
            self._store_run(run_dir)

    def store_ended(self, run_dir: Path) -> None:
        """Store what a job has changed: its own run, and other finished runs of this machine.

        Args:
            run_dir: of the job's run.

        Raises:
            InputError: another machine has changed one of these runs at the same time.
        """
        if self.location.is_local:
            return
        conflicts: list[InputError] = []
        with self._lock():
            for result in sorted(self.runs_dir.glob(f"*/{RESULT}")):
                changed = result.parent
                is_staged = changed.name.startswith(STAGING)
                if is_staged or (changed != run_dir and _stored_state(changed) is None):
                    continue
                try:
                    self._store_run(changed)
                except _ConflictError as error:
                    conflicts.append(error)
            if conflicts:
                raise conflicts[0]
            self._mirror(run_dir).synchronize(run_dir)
        if has_trained_model(run_dir):
            data = _LastTrained(run=run_dir.name).model_dump_json().encode()
            self.location.store.put(_LAST_TRAINED, data)

    @contextmanager
    def owned(self, name: str) -> Iterator[None]:
        """Keep processes of all machines from running a run of this name while the block runs.

        Raises:
            InputError: a living process runs the run, or has taken it over meanwhile.
        """
        if self.location.is_local:
            yield
            return
        with hold_lease(self.location.store, f"{name}/{_LEASE}", f"run.name={name!r}"):
            yield

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep other processes of this machine from replacing or storing its runs."""
        make_dir(self.runs_dir, "storage.cache_dir")
        with directory_lock(self.runs_dir, wait=True):
            yield

    def _record(self, name: str) -> tuple[_RunRecord | None, str | None]:
        """Return the record of a run and its ETag."""
        key, store = f"{name}/{_RECORD}", self.location.store
        stored = store.read(key)
        if stored is None:
            return None, None
        return _RunRecord.decode(stored.data, store.locate(key)), stored.etag

    def _copy(self, run_dir: Path, record: _RunRecord) -> None:
        state, trees = _stored_state(run_dir), self.location.trees
        copy = trees.fetch(f"{run_dir.name}/{record.tree}")
        if state is not None and state.files != _file_states(run_dir):
            log.warning("run %s: the files of another machine replace changed ones", run_dir.name)
        with staged_dir(run_dir, replace=True) as staging:
            # No links: jobs append to files of a run.
            shutil.copytree(copy, staging, dirs_exist_ok=True)
            for checkpoint in run_dir.glob(f"{CHECKPOINT_PREFIX}*"):
                checkpoint.rename(staging / checkpoint.name)
            state = _StoredState(tree=record.tree, pending=None, files=_file_states(staging))
            state.write(staging / _STORED)

    def _mirror(self, run_dir: Path) -> CheckpointMirror:
        return CheckpointMirror(self.location / run_dir.name)

    def _store_run(self, run_dir: Path) -> None:
        name, files, state = run_dir.name, _file_states(run_dir), _stored_state(run_dir)
        if state is not None and state.pending is None and state.files == files:
            return
        record, etag = self._record(name)
        before = None if record is None else record.tree
        if before is not None and (state is None or not state.knows(before)):
            raise self._conflict(name)
        tree = f"files-{uuid.uuid4().hex[:16]}"
        with self.location.trees.publish(f"{name}/{tree}") as folder:
            link_files(run_dir, files, folder)
        known = state.files if state else {}
        _StoredState(tree=before, pending=tree, files=known).write(run_dir / _STORED)
        self._replace_record(name, tree, etag)
        _StoredState(tree=tree, pending=None, files=files).write(run_dir / _STORED)
        if before is not None:
            self.location.trees.delete(f"{name}/{before}")

    def _replace_record(self, name: str, tree: str, etag: str | None) -> None:
        store, key = self.location.store, f"{name}/{_RECORD}"
        data = _RunRecord(tree=tree).model_dump_json().encode()
        written = store.put_if_match(key, data, etag) if etag else store.put_if_absent(key, data)
        if written is None:
            self.location.trees.delete(f"{name}/{tree}")
            raise self._conflict(name)

    def _conflict(self, name: str) -> _ConflictError:
        uri = self.location.store.locate(name)
        return _ConflictError(
            f"run.name={name!r}: another machine has changed this run in {uri} at the same time. "
            "Run this job again, under another run.name if the run is its own."
        )


def _is_outdated(run_dir: Path, record: _RunRecord) -> bool:
    """Return whether the bucket's run replaces this machine's."""
    if not run_dir.is_dir():
        return True
    state = _stored_state(run_dir)
    return state is None or not state.knows(record.tree)


def _stored_state(run_dir: Path) -> _StoredState | None:
    """Return what the bucket has of a run's directory; None: nothing, as far as is known."""
    path = run_dir / _STORED
    return _StoredState.read(path) if path.is_file() else None


def _file_states(run_dir: Path) -> dict[str, _FileState]:
    """Return the state of the files that are stored, by path: no checkpoints, nothing staged."""
    states: dict[str, _FileState] = {}
    for folder, folders, files in os.walk(run_dir):
        folders[:] = [name for name in folders if not name.startswith((STAGING, CHECKPOINT_PREFIX))]
        for name in files:
            path = Path(folder, name)
            if not name.startswith(STAGING) and path != run_dir / _STORED and not path.is_symlink():
                stat = path.stat()
                state = _FileState(bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
                states[path.relative_to(run_dir).as_posix()] = state
    return states
