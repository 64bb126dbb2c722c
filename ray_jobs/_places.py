"""The places where jobs write, by the settings and variables that name them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finsent.disk import disk_error, field_of, temporary_root
from finsent.private_directory import RAY_DIRECTORY, private_name
from finsent.settings import Settings


def places(settings: Settings) -> dict[str, Path]:
    """Return the directories of a job by the names under which a user sets them."""
    ray, temporary = os.environ.get("RAY_TMPDIR"), temporary_root()
    found = {
        "storage.root": settings.root,
        "registry.root": settings.registry_dir,
        "RAY_TMPDIR": Path(ray) if ray else temporary / private_name(RAY_DIRECTORY),
        "TMPDIR": temporary,
        "HF_HOME": Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser(),
    }
    if settings.predict.output:
        found["predict.output"] = Path(settings.predict.output).expanduser().absolute()
    return found


@contextmanager
def naming_places(settings: Settings) -> Iterator[None]:
    """Say which setting to change where a place of a job cannot be written; other errors pass.

    Raises:
        DiskError: one line.
    """
    try:
        yield
    except Exception as error:
        found = disk_error(error)
        if found is None:
            raise
        named = places(settings)
        if found.field is not None and found.place is None:  # a library's own place
            raise found.named(found.field, named.get(found.field)) from None
        if found.field is not None or (found.place is None and not found.is_full):
            raise found from None
        if found.is_of_rights:  # a closed file there is none that a library has made
            del named["TMPDIR"]
        holder = field_of(found.place, named)
        if holder is None:
            if found.is_of_rights:  # of a file that is none of a job's own
                raise
            raise found from None
        raise found.named(*holder) from None
