"""The places where jobs write, by the settings and variables that name them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finsent.disk import disk_error, field_of
from finsent.settings import Settings


def places(settings: Settings) -> dict[str, Path]:
    """Return the directories of a job by the names under which a user sets them."""
    found = {
        "storage.root": settings.root,
        "registry.root": settings.registry_dir,
        "RAY_TMPDIR": Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()),
        "HF_HOME": Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser(),
    }
    if settings.predict.output:
        found["predict.output"] = Path(settings.predict.output).expanduser().absolute()
    if "TMPDIR" in os.environ:
        found["TMPDIR"] = Path(os.environ["TMPDIR"])
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
        if found.field is not None or (found.place is None and not found.is_full):
            raise found from None
        holder = field_of(found.place, places(settings))
        if holder is None:
            if found.is_of_rights:  # of a file that is none of a job's own
                raise
            raise found from None
        raise found.named(*holder) from None
