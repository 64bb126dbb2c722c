"""CSV and text files over HTTP: the rows come back with their answers."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from email.message import Message

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
    UnknownColumnError,
    read_text_table,
)
from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.scoring.formulas import quote_formula
from finsent.scoring.score import free_names
from serve_app.http.answers import answer_body
from serve_app.http.body import Pace
from serve_app.http.requests import SOURCE
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.answer import Answer, Answers
from serve_app.service.service import Service

CSV, JSON_LINES = "text/csv", "application/x-ndjson"
TSV = "text/tab-separated-values"
_CSV_TYPES = (CSV, "application/csv", "text/plain", "application/octet-stream")
_ANSWER_COLUMNS = (
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
    """Settings for reading a file. Names and meanings are those of a source of ingest."""

    model_config = ConfigDict(extra="forbid")

    column: str | None = Field(
        None, description=f"name of the text column, if not one of {', '.join(TEXT_COLUMNS)}"
    )
    delimiter: str | None = Field(
        None, description="delimiter of a CSV, if the header does not show it"
    )
    encoding: str | None = Field(
        None,
        description="character encoding, if Content-Type has no charset and detection fails",
    )
    source: str | None = Field(None, description=SOURCE)
    format: TableFormat | None = Field(
        None, description="how the file is read; text: each line is a text"
    )


@dataclass(frozen=True)
class Upload:
    """A checked file, and the media type of the response."""

    table: TextTable
    media_type: str
    source: str | None = None  # tag of `serve.calibrations`


async def read_upload(body: bytes, headers: Mapping[str, str], query: QueryParams) -> Upload:
    """Check a complete file, in a thread.

    Raises:
        Problem: the file is not text, cannot be parsed, or its text column is not known.
    """
    content_type = headers.get("content-type", CSV)
    charset = _charset(content_type)
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in (*_CSV_TYPES, TSV):
        raise Problem(
            "unsupported_media_type",
            f"Content-Type={media_type[:100]!r}: not supported. Send a CSV as {CSV}.",
        )
    parameters, source = _parameters(query)
    format: TableFormat = parameters.format or ("tsv" if media_type == TSV else "csv")
    try:
        table = await asyncio.to_thread(
            read_text_table,
            body,
            format,
            column=parameters.column,
            delimiter=source.delimiter,
            encoding=_encoding(source.encoding, charset),
        )
    except NotTextError as error:
        raise Problem("unsupported_media_type", str(error)) from None
    except UnknownColumnError as error:
        raise Problem("unknown_column", str(error)) from None
    except InputError as error:
        raise Problem("invalid_request", str(error)) from None
    if JSON_LINES in headers.get("accept", ""):
        return Upload(table, JSON_LINES, parameters.source)
    return Upload(table, TSV if table.delimiter == "\t" else CSV, parameters.source)


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
            f"Content-Type: charset={charset[:100]!r}: not an encoding of Python. Write e.g. "
            "utf-8, or leave charset out.",
        ) from None


def _encoding(requested: str | None, charset: str | None) -> str:
    if requested and charset and requested not in ("auto", charset):
        raise Problem(
            "invalid_request",
            f"encoding={requested!r}: the charset of Content-Type is {charset!r}. Leave one "
            "of them out.",
        )
    return requested or charset or "auto"


def _parameters(query: QueryParams) -> tuple[FileQuery, SourceConfig]:
    for name in query:
        if len(query.getlist(name)) > 1:
            values = ", ".join(map(repr, query.getlist(name)))[:200]
            raise Problem(
                "invalid_request", f"{name[:100]}: several values, {values}. Write one value."
            )
    try:
        parameters = FileQuery(**dict(query))
        source = SourceConfig(
            uri="upload",
            format=parameters.format,
            delimiter=parameters.delimiter,
            encoding=parameters.encoding,
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, problem["loc"]))[:100]
        message = problem["msg"].removeprefix("Value error, ").removeprefix("'upload': ")
        if problem["type"] == "extra_forbidden":
            known = FileQuery.model_fields
            matches = get_close_matches(name, known, n=1)
            remedy = f"Did you mean {matches[0]}?" if matches else f"Use {', '.join(known)}."
            message = f"no such parameter. {remedy}"
        raise Problem("invalid_request", f"{name}: {message}" if name else message) from None
    return parameters, source


async def scored(
    upload: Upload, service: Service, sender: Sender, pace: Pace
) -> AsyncIterator[bytes]:
    """Yield the rows with their answers; a row without an answer has the reason.

    CSV: the columns and the delimiter of the file in UTF-8, then the columns of the answers. A
    column of the file whose name is also a column of the answers is renamed to `input_NAME`. JSON
    lines: one object about the file, then one object per row with its cells.
    """
    table, limits = upload.table, service.config.limits
    write = (
        _json_row(sender.request_id)
        if upload.media_type == JSON_LINES
        else _csv_row(table.delimiter)
    )
    yield (
        _json_head(table)
        if upload.media_type == JSON_LINES
        else _line([*free_names(table.header, _ANSWER_COLUMNS), *_ANSWER_COLUMNS], table.delimiter)
    )
    pieces = table.pieces()
    while piece := await asyncio.to_thread(next, pieces, None):
        for start in range(0, len(piece), limits.texts):
            records = piece[start : start + limits.texts]
            texts = [record.cells[table.column] for record in records if record.fault is None]
            answers = iter(await _answers_in_time(service, texts, sender, pace, upload.source))
            yield b"".join(write(record, _answer(record, answers)) for record in records)


def _answer(record: TableRow, answers: Iterator[Answer | Problem]) -> Answer | Problem:
    return next(answers) if record.fault is None else Problem("invalid_request", record.fault)


async def _answers_in_time(
    service: Service, texts: list[str], sender: Sender, pace: Pace, source: str | None
) -> Answers:
    """Return answers, or a problem for each text when the time for the file is up."""
    if asyncio.get_running_loop().time() < pace.until:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(pace.until):
                return await _answers_with_room(service, texts, sender, source)
    return [pace.late()] * len(texts)


async def _answers_with_room(
    service: Service, texts: list[str], sender: Sender, source: str | None
) -> Answers:
    """Return answers; wait while the replica is overloaded, as the client waits for the file."""
    while True:
        try:
            answers, _ = await service.answer(texts, None, sender, source)
        except Problem as problem:
            if problem.code == "unknown_source":  # the settings changed after the file began
                return [problem] * len(texts)
            if problem.code != "overloaded":
                raise
            await asyncio.sleep(problem.retry_after or 1)
        else:
            return answers


# --- JSON lines -----------------------------------------------------------------------------------

Write = Callable[[TableRow, "Answer | Problem"], bytes]


def _json_head(table: TextTable) -> bytes:
    head = {
        "header": table.header,
        "column": table.column,
        "rows": table.rows,
        "delimiter": table.delimiter,
        "encoding": table.encoding,
    }
    return orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE)


def _json_row(request_id: str) -> Write:
    def write(record: TableRow, answer: Answer | Problem) -> bytes:
        body = (
            answer.body() if isinstance(answer, Problem) else answer_body(answer, False, request_id)
        )
        row = {"cells": record.cells, "answer": body}
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

    return write


# --- CSV ------------------------------------------------------------------------------------------


def _csv_row(delimiter: str) -> Write:
    def write(record: TableRow, answer: Answer | Problem) -> bytes:
        return _line([*record.cells, *_cells(answer)], delimiter)

    return write


def _cells(answer: Answer | Problem) -> list[str]:
    if isinstance(answer, Problem):
        return [*[""] * (len(_ANSWER_COLUMNS) - 1), f"{answer.code}: {answer.detail}"]
    prediction = answer.prediction
    return [
        prediction.label,
        f"{prediction.score:.6f}",
        *(f"{prediction.probabilities[label]:.6f}" for label in LABELS),
        f"{prediction.polarity:.6f}",
        str(prediction.abstained).lower(),
        str(answer.truncated).lower(),
        answer.model_version,
        answer.calibration or "",
        "",
    ]


def _line(cells: list[str], delimiter: str) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerow([quote_formula(cell) for cell in cells])
    return out.getvalue().encode()
