"""A run's directory: its settings, the identity of the code, and its result."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from finsent.config import Section
from finsent.errors import ConfigError, InputError
from finsent.files import make_dir, read_json, write_json
from finsent.records import ForeignRecord, JsonObject
from finsent.same_settings import check_same

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
RESULT = "result.json"
MODEL_DIR = "model"  # in a run's directory and in a checkpoint
CHECKPOINT_PREFIX = "checkpoint_"
TRAINED_FILE = "trained.json"  # replaces the checkpoints of a finished run
_PACKAGES = (
    "finsent",
    "ray",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "pyarrow",
    "numpy",
    "scikit-learn",
    "pydantic",
    "omegaconf",
)


def new_run_name(job: str) -> str:
    """Return a run's name that sorts by time and is unique."""
    return f"{job}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"


class CodeIdentity(TypedDict):
    """The code that a run or a model was made with, as `environment.json` stores it."""

    git_commit: str | None
    git_dirty: bool
    packages: dict[str, str | None]  # version by name; None: not installed


def code_identity() -> CodeIdentity:
    """Return the git commit of the running code, None without one, and its packages' versions."""
    source_dir = Path(__file__).resolve().parent
    commit = _git(source_dir, "rev-parse", "HEAD")
    changes = _git(source_dir, "status", "--porcelain", "--untracked-files=no") if commit else None
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree that is not installed
            versions[name] = None
    return {"git_commit": commit, "git_dirty": bool(changes), "packages": versions}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        completed = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None


def start_run(run_dir: Path, job: str, settings: Section, fixed: Collection[str] = ()) -> None:
    """Create a run's directory and write what is requested, before any work.

    Args:
        fixed: keys and sections that a run which has trained must resume with.

    Raises:
        ConfigError: the directory holds a run of another job, or a fixed key has another value.
        InputError: it cannot be written.
    """
    make_dir(run_dir, "storage.root")
    config = settings.for_records()
    if (run_dir / CONFIG).is_file():
        _check_resumable(run_dir, job, config, fixed)
    write_json(run_dir / CONFIG, {"job": job, **config})
    write_json(run_dir / ENVIRONMENT, code_identity())
    (run_dir / RESULT).unlink(missing_ok=True)


def _check_resumable(
    run_dir: Path, job: str, config: Mapping[str, object], fixed: Collection[str]
) -> None:
    before = read_json(run_dir / CONFIG)
    if not isinstance(before, Mapping):
        raise InputError(f"{run_dir / CONFIG}: not a run's config. Choose another run.name.")
    name = run_dir.name
    if before.get("job") != job:
        raise ConfigError(
            f"run.name={name!r}: is a run of the job {before.get('job')!r}, not {job!r}. "
            "Choose another name."
        )
    if not has_trained(run_dir):
        return
    check_same(before, config, name, fixed=fixed)


def has_trained(run_dir: Path) -> bool:
    """Return whether a run has checkpoints, or the record that replaces them."""
    return any(run_dir.glob(f"{CHECKPOINT_PREFIX}*")) or (run_dir / TRAINED_FILE).is_file()


def finish_run(run_dir: Path, result: Mapping[str, object]) -> None:
    """Write the result, which marks the run as complete.

    The key `refused`, where present, is the reason why the run's model was not published.
    """
    write_json(run_dir / RESULT, result)


class _RecordedOrigin(ForeignRecord):
    origin: JsonObject | None = None


def has_trained_model(run_dir: Path) -> bool:
    """Return whether a run's directory has a model that was trained, and not adopted."""
    provenance = run_dir / MODEL_DIR / "provenance.json"
    if not provenance.is_file():
        return False
    try:
        return _RecordedOrigin.read(provenance).origin is None
    except InputError:
        return True  # damaged: an error when the model is used
