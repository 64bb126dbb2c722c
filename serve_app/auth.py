"""API keys: hashed at rest, compared in constant time, with roles."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.files import write_json
from serve_app.problems import Problem

log = logging.getLogger(__name__)

UNKNOWN = "unknown"  # names a key that is missing or not in the file, in logs and metrics
ROLES = ("predict", "admin")  # each may do what the ones before it may
_PREFIX = "fs_"
_LOOK_SECONDS = 1.0  # between looks at whether the file of keys is another


@dataclass(frozen=True)
class Key:
    """One entry of the file of keys."""

    name: str
    role: str
    sha256: str  # of a random key of 256 bits: nothing to guess, so nothing to salt or stretch


_NOT_OURS = Key(UNKNOWN, "", "")


class Keys:
    """Who may ask; without a file everybody may."""

    def __init__(self, path: Path | None) -> None:
        """Read the file. Keys that are added or deleted later count within seconds.

        Raises:
            InputError: it is missing or damaged.
        """
        self._path, self._again = path, 0.0
        self._stamp = _stamp(path)
        self._keys = None if path is None else read_keys(path)

    def find(self, headers: Mapping[str, str]) -> Key | None:
        """Return the key that a request carries; None where no key is needed.

        A key that is missing, or not in the file, comes back named `UNKNOWN`, so that logs and
        metrics can name the sender of a refused request, too: `permit` refuses it.

        Args:
            headers: of the request, lower case; `authorization: Bearer KEY` or `x-api-key: KEY`.
        """
        if self._keys is None:
            return None
        self._refresh()
        scheme, _, value = headers.get("authorization", "").partition(" ")
        given = value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = _sha256(given)
        found = _NOT_OURS
        for key in self._keys:  # all of them: the time must not tell which one is near
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._path is None or now < self._again:
            return
        self._again = now + _LOOK_SECONDS
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except InputError as error:  # the keys that were read last still count
            log.error("%s", error)


def permit(key: Key | None, role: str) -> None:
    """Refuse a key whose role is not enough.

    Args:
        key: from `Keys.find`.
        role: that the request needs.

    Raises:
        Problem: the key is unknown, or its role is not enough.
    """
    if key is None:
        return
    if key is _NOT_OURS:
        raise Problem("unauthorized", "send `Authorization: Bearer KEY` with a key of this service")
    if ROLES.index(key.role) < ROLES.index(role):
        raise Problem("forbidden", f"this needs a key of role {role}; {key.name!r} has not")


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """What tells one state of a file from another; None: it is not there."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


def read_keys(path: Path) -> list[Key]:
    """The entries of a file of keys.

    Raises:
        InputError: it is missing, may not be read, or is damaged.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        found = [Key(**entry) for entry in entries["keys"]]
        if not all(key.role in ROLES and len(key.sha256) == 64 for key in found):
            raise ValueError("a role or a digest is not one")
        if not all(isinstance(key.name, str) and key.name != UNKNOWN for key in found):
            raise ValueError(f"each name must be a text other than {UNKNOWN!r}")
    except OSError as error:
        problem = f"cannot read it ({error.strerror})"
    except (TypeError, KeyError, ValueError) as error:
        problem = f"not a file of keys ({error})"
    else:
        return found
    raise InputError(
        f"serve.api_keys={str(path)!r}: {problem}; make one with "
        "`python -m ray_jobs.serve new-key NAME ROLE serve.api_keys=FILE`"
    )


def new_key(path: Path, name: str, role: str) -> str:
    """Add a key to a file and return it: it can't be read back from there.

    Raises:
        InputError: the name is taken, the role unknown, or the file damaged.
    """
    if role not in ROLES:
        raise InputError(f"role {role!r}: write one of {', '.join(ROLES)}")
    if name == UNKNOWN:
        raise InputError(f"key {name!r}: names keys that are not in the file; take another name")
    keys = read_keys(path) if path.is_file() else []
    if any(key.name == name for key in keys):
        raise InputError(
            f"key {name!r}: is in {str(path)!r} already; delete its entry to replace it"
        )
    value = _PREFIX + secrets.token_urlsafe(32)
    entries: list[dict[str, Any]] = [vars(key) for key in keys]
    entries.append({"name": name, "role": role, "sha256": _sha256(value)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"keys": entries})
    path.chmod(0o600)
    return value


def _sha256(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
