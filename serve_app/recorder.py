"""The prediction log: one line an answer, in a file a day."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from finsent.disk import translate_disk_errors
from finsent.files import append_lines


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
        with translate_disk_errors(folder, "storage.root"):
            append_lines(folder / f"{day}.jsonl", b"\n".join(of_day) + b"\n")
    return sum(map(len, lines.values()))
