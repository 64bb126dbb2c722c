"""Incremental parser of JSON: the items of one array, or values that follow each other."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, TextIO

from finsent.data.readers.columns import MAX_CHARACTERS
from finsent.errors import InputError

_SPACE = re.compile(r"[ \t\r\n]*")
_CHUNK_CHARACTERS = 1 << 20


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


# `NaN` is not JSON, but Python and pandas write it for a missing value. JSON has no spelling for
# infinity either, which 1e400 is in memory.
DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)


class JsonItem(NamedTuple):
    """A value of a JSON file."""

    value: Any
    length: int  # characters in the file


def read_items(stream: BinaryIO, encoding: str, where: str) -> Iterator[JsonItem]:
    """Yield the items of an array, or values that follow each other.

    Args:
        where: the file, for messages.

    Raises:
        InputError: the file is not JSON, or it is cut off.
    """
    with io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
        yield from _Parser(text, where).items()


class _Parser:
    """Parser of a text. It holds only the rest of the text, from the current item."""

    def __init__(self, source: TextIO, where: str) -> None:
        self._source, self._where = source, where
        self._text = source.read(_CHUNK_CHARACTERS).lstrip("\ufeff")
        self._position, self._is_final = _skip_space(self._text, 0), False
        self._in_array = self._text.startswith("[", self._position)
        self._position += self._in_array
        self._item_count = 0

    def items(self) -> Iterator[JsonItem]:
        while not self._is_array_closed():
            item, problem = self._parse()
            if item is None and not self._is_final:
                self._read_more(problem)
                continue
            if problem:
                raise self._invalid(problem)
            if item is None:
                if self._in_array:
                    raise self._invalid("the file is cut off")
                return
            self._item_count += 1
            yield item
            self._skip_comma()

    def _is_array_closed(self) -> bool:
        """Return whether the array ends at the current position.

        Raises:
            InputError: text follows the end of the array.
        """
        self._position = _skip_space(self._text, self._position)
        if not (self._in_array and self._text.startswith("]", self._position)):
            return False
        has_more = _skip_space(self._text, self._position + 1) < len(self._text)
        if has_more or self._source.read(_CHUNK_CHARACTERS).strip():
            raise InputError(
                f"{self._where} is not valid JSON: text follows the array. Repair the file."
            )
        return True

    def _parse(self) -> tuple[JsonItem | None, str]:
        """Return the item at the current position, and move past it and the space after it.

        Returns:
            The item, or None where more text is needed; and the parser's problem, or an empty
            string.
        """
        start = end = self._position
        value: Any = None
        if start < len(self._text):
            try:
                value, end = DECODER.raw_decode(self._text, start)
            except (ValueError, RecursionError) as error:
                return None, str(error)
        after = _skip_space(self._text, end)
        # An item that the text ends with may continue, e.g. a number.
        if start >= len(self._text) or (after >= len(self._text) and not self._is_final):
            return None, ""
        self._position = after
        return JsonItem(value, end - start), ""

    def _read_more(self, problem: str) -> None:
        if len(self._text) - self._position > MAX_CHARACTERS:
            raise self._invalid(problem or "too long")
        chunk = self._source.read(max(_CHUNK_CHARACTERS, len(self._text) - self._position))
        self._text, self._position = self._text[self._position :] + chunk, 0
        self._is_final = not chunk

    def _skip_comma(self) -> None:
        if not self._in_array:
            return
        if self._text.startswith(",", self._position):
            self._position += 1
        elif not self._text.startswith("]", self._position):
            raise self._invalid("a comma is missing, or the file is cut off")

    def _invalid(self, problem: str) -> InputError:
        return InputError(
            f"{self._where} is not valid JSON behind record {self._item_count} ({problem}). Repair "
            "the file."
        )


def _skip_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position
