"""The directories where jobs write, by the settings and variables that name them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finsent.disk import find_disk_error, find_setting, temp_dir
from finsent.private_directory import RAY_DIRECTORY, private_name
from finsent.settings import Settings


def job_dirs(settings: Settings) -> dict[str, Path]:
    """Return the directories where a job writes, by the settings and variables that name them."""
    ray_dir, temporary_dir = os.environ.get("RAY_TMPDIR"), temp_dir()
    workspace = settings.workspace
    directories = {
        **{
            location.field: location.path
            for location in (workspace.root, workspace.registry)
            if location.is_local
        },
        "RAY_TMPDIR": Path(ray_dir) if ray_dir else temporary_dir / private_name(RAY_DIRECTORY),
        "TMPDIR": temporary_dir,
        "HF_HOME": Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser(),
    }
    if settings.predict.output:
        directories["predict.output"] = Path(settings.predict.output).expanduser().absolute()
    return directories


@contextmanager
def named_disk_errors(settings: Settings) -> Iterator[None]:
    """Name the setting to change where a job cannot write a directory; pass on other errors.

    Raises:
        DiskError: one line.
    """
    try:
        yield
    except Exception as error:
        problem = find_disk_error(error)
        if problem is None:
            raise
        directories = job_dirs(settings)
        if problem.field is not None and problem.path is None:  # a library's own directory
            raise problem.with_setting(problem.field, directories.get(problem.field)) from None
        if problem.field is not None or (problem.path is None and not problem.is_full):
            raise problem from None
        if problem.is_permission_error:  # a library made the file, and can open it
            del directories["TMPDIR"]
        owner = find_setting(problem.path, directories)
        if owner is None:
            if problem.is_permission_error:  # of a file outside the job's directories
                raise
            raise problem from None
        raise problem.with_setting(*owner) from None
