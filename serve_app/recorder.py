"""The prediction log: one line an answer, in a file a day."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from finsent.disk import storing


def write(folder: Path, items: Iterable[dict[str, Any]]) -> int:
    """Append answers to the files of their days (UTC); returns how many.

    A text is replaced by its SHA-256, from which equal texts can be told, unless it is wanted.
    """
    lines: dict[str, list[bytes]] = {}
    for item in items:
        found = dict(item)
        text, wanted = found.pop("text"), found.pop("with_text")
        found["text_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        if wanted:
            found["text"] = text
        when = datetime.fromtimestamp(found["time"], UTC)
        found["time"] = when.isoformat(timespec="milliseconds")
        lines.setdefault(f"{when:%Y-%m-%d}", []).append(orjson.dumps(found))
    folder.mkdir(parents=True, exist_ok=True)
    for day, of_day in lines.items():
        _append(folder / f"{day}.jsonl", b"\n".join(of_day) + b"\n")
    return sum(map(len, lines.values()))


def _append(path: Path, lines: bytes) -> None:
    """Append complete lines or, where they find no room, nothing."""
    with storing(path, "storage.root"), path.open("ab", buffering=0) as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)  # another thread must not append what is cut off
        size = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(lines)
            while rest:  # where the room ends, fewer bytes are written before the error
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(size)
            raise
