"""References: how a setting names a run, an alias, a version or a directory.

`KIND:NAME` states the kind. A path with a slash is a directory. A bare name can be of any kind, and
is refused where it names two things.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from finsent.errors import InputError

RUN, ALIAS, VERSION, PATH = "run", "alias", "version", "path"
LATEST = "latest"

_SPELLINGS = {
    RUN: "run:NAME",
    ALIAS: "alias:NAME",
    VERSION: "version:ID",
    PATH: "a path with a slash, e.g. ./NAME",
}


@dataclass(frozen=True)
class Reference:
    """A parsed reference."""

    text: str  # as the user wrote it
    name: str
    kind: str | None  # None: a bare name, or a path that may be relative to another directory

    def may_be(self, kind: str) -> bool:
        """Return whether the reference may name a thing of this kind."""
        return self.kind in (None, kind)


def parse(text: str, field: str, kinds: Collection[str]) -> Reference:
    """Parse a reference.

    Args:
        field: that holds the reference, for messages.
        kinds: that the field accepts, some of `RUN`, `ALIAS`, `VERSION` and `PATH`.

    Raises:
        InputError: the prefix is unknown, the field does not accept it, or the name is empty.
    """
    prefix, colon, name = text.partition(":")
    if colon and "/" not in prefix:
        if prefix in (RUN, ALIAS, VERSION) and prefix in kinds and name and "/" not in name:
            return Reference(text, name, prefix)
        if PATH not in kinds or not Path(text).exists():
            raise InputError(
                f"{field}={text!r}: this setting accepts no such name. Write {_spellings(kinds)}."
            )
        return Reference(text, text, PATH)
    if text.startswith(("~", "./", "../")) or text in (".", "..") or Path(text).is_absolute():
        return Reference(text, text, PATH)
    return Reference(text, text, None)


def _spellings(kinds: Collection[str]) -> str:
    return " or ".join(spelling for kind, spelling in _SPELLINGS.items() if kind in kinds)


def only_match(text: str, field: str, matches: Mapping[str, Path]) -> Path | None:
    """Return the only directory that a reference names; None: it names none.

    Args:
        matches: directories by an unambiguous spelling of the reference.

    Raises:
        InputError: the reference names two directories.
    """
    directories = {os.path.realpath(path): spelling for spelling, path in matches.items()}
    if len(directories) > 1:
        raise InputError(
            f"{field}={text!r}: names {len(directories)} different things. "
            f"Write {' or '.join(directories.values())}."
        )
    return next(iter(matches.values()), None)


def plain_name(text: str) -> str:
    """Return an alias or a version id without the prefix that names its kind."""
    return text.removeprefix(f"{ALIAS}:").removeprefix(f"{VERSION}:")


def path_spelling(text: str) -> str:
    """Return the spelling of a relative path that is a path only."""
    return text if text.startswith((".", "~", "/")) else f"./{text}"
