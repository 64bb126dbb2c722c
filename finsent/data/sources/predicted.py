"""Files that `predict` wrote: their labels are a model's answers, not what people decided."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from finsent.data.sources.places import Place
from finsent.data.sources.uris import parse
from finsent.errors import InputError
from finsent.files import read_json

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
KEY = "scored"  # of the manifest: records by the path of the scored file


def records_of(folder: Path) -> dict[str, dict[str, Any]] | None:
    """Return the records of a directory; None where it has no manifest of scored files."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_json(folder / MANIFEST)
    except (InputError, OSError):
        return None
    found = manifest.get(KEY) if isinstance(manifest, dict) else None
    return found if isinstance(found, dict) else None


def scored_finder() -> Callable[[Place], bool]:
    """Return a function that tells whether a local file was written by predict.

    It reads each manifest once.
    """
    known: dict[Path, dict[str, dict[str, Any]] | None] = {}

    def is_scored(place: Place) -> bool:
        if parse(place.uri) is not None:
            return False
        path = Path(place.uri)
        for folder in path.parents:
            if folder not in known:
                known[folder] = records_of(folder)
            if str(path.relative_to(folder)) in (known[folder] or ()):
                return True
        return False

    return is_scored


def without_scored(uri: str, places: list[Place]) -> list[Place]:
    """Leave out the files that predict wrote, unless an entry names the file by itself.

    Raises:
        InputError: none is left.
    """
    is_scored = scored_finder()
    left = [place for place in places if not is_scored(place)]
    is_named_itself = len(places) == 1 and PurePosixPath(uri).name == places[0].name
    if len(left) == len(places) or is_named_itself:
        return places
    field = places[0].field
    if not left:
        raise InputError(
            f"{field}: {uri!r} names only files that predict wrote, whose labels are a model's "
            "answers. Name other files, or name each of these by itself to use its labels."
        )
    log.info(
        "%s: %r: %d file(s) that predict wrote are left out", field, uri, len(places) - len(left)
    )
    return left
