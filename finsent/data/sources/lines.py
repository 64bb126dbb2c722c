"""Lines of a file in blocks, none of them longer than memory bears."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from finsent.data.sources.columns import BLOCK_BYTES, MAX_CHARACTERS
from finsent.errors import InputError


def read_lines(stream: BinaryIO, encoding: str, where: str) -> Iterator[list[str]]:
    """Yield all lines with their ends, which are `\\n`, in blocks of bounded size.

    Args:
        where: the file, for messages.

    Raises:
        InputError: a line is too long.
    """
    number = 0
    with io.TextIOWrapper(stream, encoding=encoding, newline=None) as lines:
        while True:
            block, size = list[str](), 0
            while size < BLOCK_BYTES // 2 and (line := lines.readline(MAX_CHARACTERS + 1)):
                if len(line) > MAX_CHARACTERS:
                    raise InputError(
                        f"{where}: line {number + len(block) + 1} is longer than "
                        f"{MAX_CHARACTERS:,} characters; end its records by line breaks, or set "
                        "the source's format"
                    )
                block.append(line)
                size += len(line)
            if not block:
                return
            yield block
            number += len(block)
