"""The keys at the head of a JSON file, which are the names of its columns."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from finsent.data.readers.json_records import parse_line
from finsent.data.readers.json_stream import JsonItem, read_items
from finsent.data.readers.json_values import is_json_object, key_names
from finsent.data.readers.layout import FileLayout
from finsent.data.readers.lines import read_head
from finsent.errors import InputError

_HEAD_RECORDS = 10_000
_MAX_KEYS_CHARACTERS = 200


def read_json_line_names(stream: BinaryIO, layout: FileLayout) -> list[str]:
    """Return the keys of the first records of JSON Lines.

    Raises:
        InputError: the file is empty, or its first line is not an object.
    """
    head = read_head(stream, layout)
    lines = [line for line in re.split(r"[\r\n]", head) if line.strip()]
    first_value = parse_line(lines[0])
    if not isinstance(first_value, str):
        return key_names(filter(is_json_object, map(parse_line, lines[:_HEAD_RECORDS])))
    item = _first_item(head, layout.where)
    if item is not None and is_json_object(item.value):
        raise InputError(
            f"{layout.where} is not JSON Lines: it is an array, not one object per line, or its "
            "objects span lines. Set format: json for this source."
        )
    kind = "no object" if first_value.endswith("object") else "not JSON"
    raise InputError(
        f"{layout.where} is not JSON Lines: its first line is {kind}. Write one object per line, "
        "or set the source's format."
    )


def read_json_names(stream: BinaryIO, layout: FileLayout) -> list[str]:
    """Return the keys of the first records of a JSON file.

    Raises:
        InputError: the file is empty, not JSON, or not an array of objects.
    """
    where, items = layout.where, list[Any]()
    try:
        for item in islice(_items(read_head(stream, layout), where), _HEAD_RECORDS):
            items.append(item.value)
    except InputError:  # the head may end within a record
        if not items:
            raise
    records = [item for item in items if is_json_object(item)]
    if not records:
        raise InputError(
            f"{where} holds no JSON objects. Write an array of objects with a text and a label."
        )
    if len(items) == 1 and all(isinstance(value, dict | list) for value in records[0].values()):
        keys = ", ".join(map(repr, records[0]))[:_MAX_KEYS_CHARACTERS]
        raise InputError(
            f"{where} is one object with the keys {keys}, not an array of records. Write the "
            "records alone (in pandas: orient='records'). If the file is not data, name the "
            "other files by a glob."
        )
    return key_names(records)


def is_json(head: str) -> bool:
    """Return whether a text begins with a JSON object, an array of them, or a line of either."""
    first_line = next((line.strip() for line in re.split(r"[\r\n]", head) if line.strip()), "")
    if not first_line.startswith(("{", "[")):
        return False
    if first_line in ("{", "["):
        return True
    try:
        return isinstance(json.loads(first_line), dict | list)
    except (ValueError, RecursionError):
        pass
    item = _first_item(head, "")
    return item is not None and isinstance(item.value, dict | list)


def _first_item(head: str, where: str) -> JsonItem | None:
    try:
        return next(_items(head, where), None)
    except InputError:
        return None


def _items(head: str, where: str) -> Iterator[JsonItem]:
    return read_items(io.BytesIO(head.encode()), "utf-8", where)
