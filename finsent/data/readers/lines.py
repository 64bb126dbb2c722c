"""Lines and heads of text files, of bounded size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from finsent.data.readers.columns import BLOCK_BYTES, MAX_CHARACTERS
from finsent.data.readers.layout import FileLayout
from finsent.errors import InputError

_HEAD_BYTES = 1 << 20
_CHUNK_BYTES = 4 << 20


def read_head(stream: BinaryIO, layout: FileLayout) -> str:
    """Return the decoded first mebibyte of a text file, without a byte order mark.

    Raises:
        InputError: the file is empty.
    """
    # A character that the end of the head cuts is not an error.
    head = stream.read(_HEAD_BYTES).decode(layout.encoding, errors="ignore").lstrip("\ufeff")
    if not head.strip():
        raise InputError(f"{layout.where} is empty. It needs labeled rows.")
    return head


def read_lines(stream: BinaryIO, layout: FileLayout) -> Iterator[list[str]]:
    """Yield all lines in blocks of bounded size; each line ends in `\\n`.

    Raises:
        InputError: a line is too long.
    """
    line_count = 0
    with io.TextIOWrapper(stream, encoding=layout.encoding, newline=None) as lines:
        while True:
            block, size = list[str](), 0
            while size < BLOCK_BYTES // 2 and (line := lines.readline(MAX_CHARACTERS + 1)):
                if len(line) > MAX_CHARACTERS:
                    raise InputError(
                        f"{layout.where}: line {line_count + len(block) + 1} is longer than "
                        f"{MAX_CHARACTERS:,} characters. End its records by line breaks, or set "
                        "the source's format."
                    )
                block.append(line)
                size += len(line)
            if not block:
                return
            yield block
            line_count += len(block)


def count_lines(stream: BinaryIO) -> int:
    """Return the number of lines in a file, whichever of the three line ends it uses."""
    feeds, returns = 0, 0
    while chunk := stream.read(_CHUNK_BYTES):
        feeds += chunk.count(b"\n")
        returns += chunk.count(b"\r")
    return max(feeds, returns)
