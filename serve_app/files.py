"""CSV files over HTTP: rows in, the same rows with answers out."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from finsent.labels import LABELS
from serve_app.incoming import Asker, Pace
from serve_app.problems import Problem
from serve_app.service import Answer, Service

_ROWS = 256  # of one piece of the answer
_COLUMNS = ("text", "sentence", "headline", "title")  # of the text, where none is named
_FORMULA = re.compile(r"[=+@\t\r-]")
_NUMBER = re.compile(r"[+-]?[\d.,]+%?")
_ADDED = ("label", "score", *LABELS, "polarity", "abstained", "truncated", "model_version", "error")


@dataclass(frozen=True)
class Table:
    """A CSV's header and its rows."""

    header: list[str]
    rows: Iterator[list[str] | Problem]  # a problem in the place of a row that can't be read
    column: int  # of the text


def read_csv(body: bytes, headers: Mapping[str, str], column: str | None) -> Table:
    """Find the text in a CSV.

    Args:
        headers: of the request.
        column: name of the text's column; None: one of the usual names, or the only one.

    Raises:
        Problem: it is no CSV in UTF-8 with a header, or its text can't be told.
    """
    kind = headers.get("content-type", "text/csv").partition(";")[0].strip().lower()
    if kind not in ("text/csv", "application/csv", "text/plain", "application/octet-stream"):
        raise Problem("unsupported_media_type", f"{kind} is not taken; send the CSV as text/csv")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Problem("invalid_request", f"the CSV is not UTF-8 ({error.reason})") from None
    # Read line by line from the bytes: a StringIO takes four for each sign.
    rows = csv.reader(io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline=""))
    try:
        header = next(row for row in rows if row)
    except (StopIteration, csv.Error):
        raise Problem("invalid_request", "the CSV has no header") from None
    if column is None:
        usual = [name for name in header if name.strip().lower() in _COLUMNS]
        column = usual[0] if usual else header[0] if len(header) == 1 else None
    if column is None or column not in header:
        raise Problem(
            "invalid_request",
            f"which column is the text? Add ?column=NAME; there are {', '.join(header)[:300]}",
        )
    return Table(header, _readable(rows), header.index(column))


def _readable(reader: Any) -> Iterator[list[str] | Problem]:
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # e.g. a quote that never closes; goes on with the next line
            yield Problem("invalid_request", f"line {reader.line_num} of the CSV: {error}")
        else:
            if row:
                yield row


async def scored_csv(
    table: Table, service: Service, asker: Asker, pace: Pace
) -> AsyncIterator[bytes]:
    """The rows with their answers, piece by piece; a row that has none says why."""
    yield _line([*table.header, *_ADDED])
    width = len(table.header)
    while rows := list(islice(table.rows, min(_ROWS, service.config.limits.texts))):
        good = [row for row in rows if not isinstance(row, Problem)]
        texts = [row[table.column] if table.column < len(row) else "" for row in good]
        answers = iter(await _patiently(service, texts, asker, pace))
        yield b"".join(
            _line([*[""] * width, *_cells(row)])
            if isinstance(row, Problem)
            else _line([*row[:width], *[""] * (width - len(row)), *_cells(next(answers))])
            for row in rows
        )


async def _patiently(
    service: Service, texts: list[str], asker: Asker, pace: Pace
) -> list[Answer | Problem]:
    """Answers; a file can wait for room, as its client waits for the file, until it takes too long.

    Then the rest of the rows say that.
    """
    if asyncio.get_running_loop().time() < pace.until:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(pace.until):
                return await _with_room(service, texts, asker)
    return [pace.late()] * len(texts)


async def _with_room(service: Service, texts: list[str], asker: Asker) -> list[Answer | Problem]:
    while True:
        try:
            answers, _ = await service.answer(texts, None, asker)
        except Problem as problem:
            if problem.code != "overloaded":
                raise
            await asyncio.sleep(problem.retry_after or 1)
        else:
            return answers


def _cells(answer: Answer | Problem) -> list[str]:
    if isinstance(answer, Problem):
        return [*[""] * (len(_ADDED) - 1), f"{answer.code}: {answer.detail}"]
    found = answer.prediction
    return [
        found.label,
        f"{found.score:.6f}",
        *(f"{found.probabilities[label]:.6f}" for label in LABELS),
        f"{found.polarity:.6f}",
        str(found.abstained).lower(),
        str(answer.truncated).lower(),
        answer.model_version,
        "",
    ]


def _line(cells: list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow([_harmless(cell) for cell in cells])
    return out.getvalue().encode()


def _harmless(cell: str) -> str:
    # Spreadsheets run what begins like a formula; what is a number stays one.
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell
