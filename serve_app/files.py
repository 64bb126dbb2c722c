"""CSV and text files over HTTP: rows in, the same rows with answers out."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from email.message import Message
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams

from finsent.data.config import SourceConfig
from finsent.data.readers.text_table import (
    TEXT_COLUMNS,
    NotTextError,
    TableFormat,
    TableRow,
    TextTable,
    read_text_table,
)
from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.scoring.score import free_names
from serve_app import schemas
from serve_app.incoming import Asker, Pace
from serve_app.problems import Problem
from serve_app.service import Answer, Service

CSV, JSON_LINES = "text/csv", "application/x-ndjson"
_TAKEN = (CSV, "application/csv", "text/plain", "application/octet-stream")
TSV = "text/tab-separated-values"
_FORMULA = re.compile(r"[=+@\t\r-]")
# Also a phone number, in which no sign but the first can stand for arithmetic. As in page/table.js.
_NUMBER = re.compile(r"[+-]?[0-9.,]+([eE][+-]?[0-9]+)?%?|\+[0-9 ()]+")
_ADDED = (
    "label",
    "score",
    *LABELS,
    "polarity",
    "abstained",
    "truncated",
    "model_version",
    "calibration",
    "error",
)


class FileQuery(BaseModel):
    """How a file is read; the names and meanings are those of a source of ingest."""

    model_config = ConfigDict(extra="forbid")

    column: str | None = Field(
        None, description=f"name of the text's column, if not one of {', '.join(TEXT_COLUMNS)}"
    )
    delimiter: str | None = Field(
        None, description="sign between the cells of a CSV, if the header does not show it"
    )
    encoding: str | None = Field(
        None,
        description="character encoding, if neither charset of Content-Type names it nor it is "
        "found",
    )
    source: str | None = Field(None, description=schemas.SOURCE)
    format: TableFormat | None = Field(
        None, description="how the file is read; text: each line is a text"
    )


@dataclass(frozen=True)
class Upload:
    """A file that can be read, and the media type of its answer."""

    sheet: TextTable
    media_type: str
    source: str | None = None  # tag of `serve.calibrations`


async def read_upload(body: bytes, headers: Mapping[str, str], query: QueryParams) -> Upload:
    """Check a file from its first byte to its last, in a thread of its own.

    Raises:
        Problem: the file is no text, cannot be parsed, or its text's column is not known.
    """
    kind = headers.get("content-type", CSV)
    charset = _charset(kind)
    kind = kind.partition(";")[0].strip().lower()
    if kind not in (*_TAKEN, TSV):
        raise Problem("unsupported_media_type", f"{kind} is not taken; send the CSV as {CSV}")
    asked, source = _settings(query)
    format: TableFormat = asked.format or ("tsv" if kind == TSV else "csv")
    try:
        sheet = await asyncio.to_thread(
            read_text_table,
            body,
            format,
            column=asked.column,
            delimiter=source.delimiter,
            encoding=_encoding(source.encoding, charset),
        )
    except InputError as error:
        code = "unsupported_media_type" if isinstance(error, NotTextError) else "invalid_request"
        raise Problem(code, str(error)) from None
    if JSON_LINES in headers.get("accept", ""):
        return Upload(sheet, JSON_LINES, asked.source)
    return Upload(sheet, TSV if sheet.delimiter == "\t" else CSV, asked.source)


def _charset(content_type: str) -> str | None:
    """Return the codec that `Content-Type` names.

    Raises:
        Problem: Python has no such codec.
    """
    message = Message()
    message["content-type"] = content_type
    charset = message.get_content_charset()
    if not charset:
        return None
    try:
        return SourceConfig(uri="upload", encoding=charset).encoding
    except ValidationError:
        raise Problem(
            "unsupported_media_type",
            f"Content-Type: charset={charset[:100]!r}: no encoding that Python knows. Write e.g. "
            "utf-8, or leave charset out.",
        ) from None


def _encoding(asked: str | None, charset: str | None) -> str:
    if asked and charset and asked not in ("auto", charset):
        raise Problem(
            "invalid_request",
            f"encoding={asked!r}: the charset of Content-Type is {charset!r}. Leave one of them "
            "out.",
        )
    return asked or charset or "auto"


def _settings(query: QueryParams) -> tuple[FileQuery, SourceConfig]:
    for name in query:
        if len(query.getlist(name)) > 1:
            values = ", ".join(map(repr, query.getlist(name)))[:200]
            raise Problem(
                "invalid_request", f"{name[:100]}: has several values, {values}. Write one."
            )
    try:
        asked = FileQuery(**dict(query))
        source = SourceConfig(
            uri="upload", format=asked.format, delimiter=asked.delimiter, encoding=asked.encoding
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))[:100]
        message = first["msg"].removeprefix("Value error, ").removeprefix("'upload': ")
        if first["type"] == "extra_forbidden":
            known = FileQuery.model_fields
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
            message = f"no such parameter; {remedy}"
        raise Problem("invalid_request", f"{name}: {message}" if name else message) from None
    return asked, source


async def scored(
    upload: Upload, service: Service, asker: Asker, pace: Pace
) -> AsyncIterator[bytes]:
    """The rows with their answers, piece by piece; a row that has none says why.

    CSV: the file's columns and delimiter, in UTF-8, and the columns of the answers; a column of the
    file whose name is taken gets `input_` before it. JSON lines: one object about the file, then
    one per row with its cells.
    """
    sheet, limits = upload.sheet, service.config.limits
    write = (
        _json_row(asker.request_id)
        if upload.media_type == JSON_LINES
        else _csv_row(sheet.delimiter)
    )
    yield (
        _json_head(sheet)
        if upload.media_type == JSON_LINES
        else _line([*free_names(sheet.header, _ADDED), *_ADDED], sheet.delimiter)
    )
    pieces = sheet.pieces()
    while piece := await asyncio.to_thread(next, pieces, None):
        for start in range(0, len(piece), limits.texts):
            records = piece[start : start + limits.texts]
            texts = [one.cells[sheet.column] for one in records if one.fault is None]
            answers = iter(await _patiently(service, texts, asker, pace, upload.source))
            yield b"".join(write(one, _answer(one, answers)) for one in records)


def _answer(record: TableRow, answers: Iterator[Answer | Problem]) -> Answer | Problem:
    return next(answers) if record.fault is None else Problem("invalid_request", record.fault)


async def _patiently(
    service: Service, texts: list[str], asker: Asker, pace: Pace, source: str | None
) -> list[Answer | Problem]:
    """Answers; a file can wait for room, as its client waits for the file, until it takes too long.

    Then the rest of the rows say that.
    """
    if asyncio.get_running_loop().time() < pace.until:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(pace.until):
                return await _with_room(service, texts, asker, source)
    return [pace.late()] * len(texts)


async def _with_room(
    service: Service, texts: list[str], asker: Asker, source: str | None
) -> list[Answer | Problem]:
    while True:
        try:
            answers, _ = await service.answer(texts, None, asker, source)
        except Problem as problem:
            if problem.code == "unknown_source":  # since the file began
                return [problem] * len(texts)
            if problem.code != "overloaded":
                raise
            await asyncio.sleep(problem.retry_after or 1)
        else:
            return answers


# --- JSON lines -----------------------------------------------------------------------------------

Write = Callable[[TableRow, "Answer | Problem"], bytes]


def _json_head(sheet: TextTable) -> bytes:
    head: dict[str, Any] = {
        "header": sheet.header,
        "column": sheet.column,
        "rows": sheet.rows,
        "delimiter": sheet.delimiter,
        "encoding": sheet.encoding,
    }
    return orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE)


def _json_row(request_id: str) -> Write:
    def write(record: TableRow, answer: Answer | Problem) -> bytes:
        found = (
            answer.body()
            if isinstance(answer, Problem)
            else schemas.answer_body(answer, False, request_id)
        )
        row = {"cells": record.cells, "answer": found}
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

    return write


# --- CSV ------------------------------------------------------------------------------------------


def _csv_row(delimiter: str) -> Write:
    def write(record: TableRow, answer: Answer | Problem) -> bytes:
        return _line([*record.cells, *_cells(answer)], delimiter)

    return write


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
        answer.calibration or "",
        "",
    ]


def _line(cells: list[str], delimiter: str) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerow([_harmless(cell) for cell in cells])
    return out.getvalue().encode()


def _harmless(cell: str) -> str:
    # Spreadsheets run what begins like a formula; what is a number stays one.
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell
