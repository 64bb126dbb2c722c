"""Files that `predict` wrote: their labels are a model's answers, not decisions of people."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from finsent.data.sources.locations import Location
from finsent.errors import InputError
from finsent.records import ForeignRecord, JsonObject
from finsent.uris import parse

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
KEY = "scored"  # in the manifest: the records, by the path of the scored file


class _ScoredManifest(ForeignRecord):
    scored: JsonObject | None = None  # see `KEY`


def records_of(folder: Path) -> JsonObject | None:
    """Return the records of a directory; None where it has no manifest of scored files."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return _ScoredManifest.read(folder / MANIFEST).scored
    except (InputError, OSError):
        return None


def scored_finder() -> Callable[[Location], bool]:
    """Return a function that returns whether predict wrote a local file.

    The function reads each manifest once.
    """
    paths_by_folder: dict[Path, frozenset[str]] = {}

    def is_scored(location: Location) -> bool:
        if parse(location.uri) is not None:
            return False
        path = Path(location.uri)
        for folder in path.parents:
            if folder not in paths_by_folder:
                paths_by_folder[folder] = frozenset(records_of(folder) or ())
            if str(path.relative_to(folder)) in paths_by_folder[folder]:
                return True
        return False

    return is_scored


def without_scored(uri: str, locations: list[Location]) -> list[Location]:
    """Return the files that predict did not write, and a file that an entry names by itself.

    Args:
        uri: of the entry.

    Raises:
        InputError: predict wrote all of the files.
    """
    is_scored = scored_finder()
    labeled = [location for location in locations if not is_scored(location)]
    is_named_itself = len(locations) == 1 and PurePosixPath(uri).name == locations[0].name
    if len(labeled) == len(locations) or is_named_itself:
        return locations
    field = locations[0].field
    if not labeled:
        raise InputError(
            f"{field}: {uri!r} names only files that predict wrote, whose labels are a model's "
            "answers. Name other files, or name each of these by itself to use its labels."
        )
    skipped = len(locations) - len(labeled)
    log.info("%s: %r: %d file(s) that predict wrote are left out", field, uri, skipped)
    return labeled
