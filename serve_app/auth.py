"""API keys: stored as hashes, compared in constant time, with roles."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from finsent.errors import InputError
from finsent.files import write_json
from serve_app.problems import Problem

log = logging.getLogger(__name__)

UNKNOWN = "unknown"  # name in logs and metrics of a key that is missing or not in the file
ROLES = ("predict", "admin")  # each role includes the roles before it
_PREFIX = "fs_"
_REFRESH_SECONDS = 1.0  # between checks for changes of the file


@dataclass(frozen=True)
class Key:
    """One entry of the file of keys."""

    name: str
    role: str
    sha256: str  # of a random key of 256 bits, which needs neither salt nor stretching


_UNKNOWN_KEY = Key(UNKNOWN, "", "")


class Keys:
    """The keys that open the service; without a file the service needs no key."""

    def __init__(self, path: Path | None) -> None:
        """Read the file. Keys that are added or deleted later take effect within seconds.

        Raises:
            InputError: the file is missing or damaged.
        """
        self._path, self._refresh_at = path, 0.0
        self._stamp = _stamp(path)
        self._keys = None if path is None else read_keys(path)

    def find(self, headers: Mapping[str, str]) -> Key | None:
        """Return the key that a request carries; None: the service needs no key.

        A key that is missing or not in the file is returned with the name `UNKNOWN`, so that logs
        and metrics name the sender of a refused request, too. `permit` refuses that key.

        Args:
            headers: of the request, names in lower case. The key is in `authorization: Bearer KEY`
                or `x-api-key: KEY`.
        """
        if self._keys is None:
            return None
        self._refresh()
        scheme, _, value = headers.get("authorization", "").partition(" ")
        secret = value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = _sha256(secret)
        matching = _UNKNOWN_KEY
        for key in self._keys:  # all keys, so that the time does not depend on which one matches
            if hmac.compare_digest(key.sha256, digest):
                matching = key
        return matching

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._path is None or now < self._refresh_at:
            return
        self._refresh_at = now + _REFRESH_SECONDS
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except InputError as error:  # the keys that were read last stay in force
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
    if key is _UNKNOWN_KEY:
        raise Problem(
            "unauthorized",
            "no valid key. Send `Authorization: Bearer KEY` with a key of this service.",
        )
    if ROLES.index(key.role) < ROLES.index(role):
        raise Problem(
            "forbidden",
            f"key {key.name!r} has the role {key.role}. Use a key with the role {role}.",
        )


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """Return a value that changes with the file; None: the file does not exist."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)


def read_keys(path: Path) -> list[Key]:
    """Return the entries of a file of keys.

    Raises:
        InputError: the file is missing, not readable, or damaged.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        keys = [Key(**entry) for entry in entries["keys"]]
        if not all(key.role in ROLES and len(key.sha256) == 64 for key in keys):
            raise ValueError("a role or a digest is not valid")
        if not all(isinstance(key.name, str) and key.name != UNKNOWN for key in keys):
            raise ValueError(f"each name must be a text other than {UNKNOWN!r}")
    except OSError as error:
        problem = f"cannot read it ({error.strerror})"
    except (TypeError, KeyError, ValueError) as error:
        problem = f"not a file of keys ({error})"
    else:
        return keys
    raise InputError(
        f"serve.api_keys={str(path)!r}: {problem}. Make a file of keys with "
        "`python -m ray_jobs.serve new-key NAME ROLE serve.api_keys=FILE`."
    )


def new_key(path: Path, name: str, role: str) -> str:
    """Add a key to a file and return it. The file has only its hash.

    Raises:
        InputError: the name is in use, the role is unknown, or the file is damaged.
    """
    if role not in ROLES:
        raise InputError(f"role={role!r}: unknown. Write one of {', '.join(ROLES)}.")
    if name == UNKNOWN:
        raise InputError(f"key={name!r}: reserved for unknown keys. Choose another name.")
    keys = read_keys(path) if path.is_file() else []
    if any(key.name == name for key in keys):
        raise InputError(f"key={name!r}: already in {str(path)!r}. Delete its entry to replace it.")
    secret = _PREFIX + secrets.token_urlsafe(32)
    keys.append(Key(name, role, _sha256(secret)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"keys": [asdict(key) for key in keys]})
    path.chmod(0o600)
    return secret


def _sha256(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
