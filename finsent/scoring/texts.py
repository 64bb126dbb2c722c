"""Texts to classify, from arguments, a file or standard input."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from finsent.data.config import SourceConfig
from finsent.data.readers.json_header import is_json
from finsent.data.readers.signatures import binary_kind
from finsent.data.sources.files import find_texts
from finsent.data.sources.format_detection import detect
from finsent.errors import InputError
from finsent.normalize import is_blank
from finsent.settings import Settings

log = logging.getLogger(__name__)

_HEAD_CHARS = 1 << 20  # of the input, which are checked for a table
_STDIN = "-"


@dataclass(frozen=True)
class Text:
    """A text to label."""

    text: str
    row: int | None = None  # number of its line or record in the input, from 1


def read_texts(arguments: list[str], settings: Settings) -> list[Text]:
    """Return the texts of the arguments, or of a file or standard input, without blank ones.

    Raises:
        InputError: arguments and a file are both given, there is no text, or the input is not in
            the format of its name, or not lines of UTF-8.
    """
    config = settings.classify
    if arguments and config.input:
        raise InputError(
            f"classify.input={config.input!r}: texts are given as arguments, too. Choose one."
        )
    if arguments:
        rows = [Text(_check_no_file(argument)) for argument in arguments]
    else:
        rows = _read_input(config.input or _STDIN, settings)
    texts = [row for row in rows if not is_blank(row.text)]
    if not texts:
        raise InputError(
            "classify: no text. Give texts as arguments, a file as classify.input=FILE, or lines "
            "on standard input."
        )
    if len(texts) < len(rows) and not arguments:
        log.info("classify: %d blank row(s) are left out", len(rows) - len(texts))
    return texts


def _check_no_file(argument: str) -> str:
    """Return an argument, unless it is the name of a file."""
    is_name = re.fullmatch(r"\S{1,200}\.\w+", argument) is not None
    if is_name and Path(argument).expanduser().is_file():
        raise InputError(
            f"argument {argument!r}: is a file, not a text. Write classify.input={argument}."
        )
    return argument


def _read_input(source: str, settings: Settings) -> list[Text]:
    column = settings.data.text_column
    if source == _STDIN:
        return _read_lines(sys.stdin.buffer.read(), "standard input", column)
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"classify.input={source!r}: no such file. Name a file of texts.")
    if detect(path.name) == (None, None):
        return _read_lines(path.read_bytes(), source, column)
    return _read_records(path, settings)


def _read_records(path: Path, settings: Settings) -> list[Text]:
    """Read the text column of a table, or the lines of a compressed file."""
    source = SourceConfig(uri=str(path.absolute()))
    cache = settings.workspace.sources_dir
    [file] = find_texts([source], settings.data, cache, "classify.input")
    texts = []
    for table in file.rows(0):
        columns = (table[name].to_pylist() for name in ("row", "raw_text", "fault"))
        for row, text, fault in zip(*columns, strict=True):
            if fault is not None:
                raise InputError(
                    f"classify.input={str(path)!r}: record {row} cannot be read ({fault}). Mend "
                    "it, or use ray_jobs.predict, which keeps such records with the reason."
                )
            texts.append(Text(text or "", row))
    return texts


def _read_lines(raw: bytes, source: str, column: str) -> list[Text]:
    """Read one text per line.

    Args:
        column: name of the text column; an input with such a header is refused as a table.
    """
    field = f"classify.input={source!r}"
    if kind := binary_kind(raw):
        raise InputError(
            f"{field}: is {kind}, not lines of text. Save it as CSV, or give it the ending of its "
            "format."
        )
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{field}: not UTF-8 ({error}). Convert it.") from None
    if "\0" in content:
        raise InputError(
            f"{field}: has NUL characters: it is UTF-16, or not text. Convert it to UTF-8."
        )
    _check_no_table(content[:_HEAD_CHARS], field, column)
    # Not splitlines(), which also splits at U+2028 and other characters within a text.
    lines = [line.removesuffix("\r") for line in content.split("\n")]
    if not lines[-1]:  # after the end of the last line
        lines.pop()
    return [Text(line, row) for row, line in enumerate(lines, 1)]


def _check_no_table(head: str, field: str, column: str) -> None:
    """Refuse a table or JSON without the suffix of its format: each line would pass as a text.

    Args:
        head: the beginning of the input.
        column: name of the text column.
    """
    first_line = next((line for line in head.split("\n") if line.strip()), "")
    names = [name.strip().strip('"') for name in re.split(r"[,;|\t]", first_line)]
    if column in names:
        raise InputError(
            f"{field}: its first line is a header with the column {column!r}. Name a file that "
            "ends in .csv or .tsv."
        )
    if is_json(head):
        raise InputError(
            f"{field}: is JSON, not lines of text. Name a file of JSON Lines that ends in .jsonl."
        )
