"""The parts that operations in the API's description are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from serve_app import schemas
from serve_app.problems import CODES, MEDIA_TYPE

REFS = "#/components/schemas/{model}"
ANY = ("invalid_request", "internal")  # of all operations: one reads the header of deadlines
KEYED = ("unauthorized", "forbidden")
BODY = ("body_too_large", "unsupported_media_type", "not_ready")
JSON_BODY = (*BODY, "invalid_json", "overloaded", "deadline_exceeded")
TEXTS = (*JSON_BODY, "unknown_source", "invalid_text", "text_too_long")
FINSENT, TEI, VLLM = "finsent", "text-embeddings-inference", "vllm"
TIMES = {
    "X-Queue-Time": ("number", "milliseconds until the last of the texts was taken"),
    "X-Inference-Time": ("number", "milliseconds of the longest of its micro-batches"),
    "X-Batch-Size": (
        "integer",
        "rows of the largest of its micro-batches; 0: the model was not asked",
    ),
}
ID = {"X-Request-Id": ("string", "the request's own where it had one")}
HEADERS = {  # of problems, by status
    401: {"WWW-Authenticate": ("string", "Bearer")},
    429: {"Retry-After": ("integer", "seconds after which there is room")},
}


@dataclass(frozen=True)
class Problems:
    """How the problems of an operation are answered."""

    model: type[BaseModel] = schemas.ProblemAnswer
    kind: str = MEDIA_TYPE
    statuses: Mapping[int, int] = field(default_factory=dict)  # in place of finsent's own


PROBLEMS = Problems()


def operation(
    name: str,
    summary: str,
    answer: dict[str, Any],
    problems: tuple[str, ...],
    kind: str = "application/json",
    *,
    tag: str = FINSENT,
    style: Problems = PROBLEMS,
) -> dict[str, Any]:
    """Describe an operation.

    Args:
        name: of the function that generators make.
        problems: their codes.
        kind: the answer's media type.
    """
    found: dict[str, Any] = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "responses": {
            "200": {
                "description": "Done",
                "headers": headers(ID),
                "content": {kind: {"schema": answer}},
            }
        },
    }
    for code in (*problems, *ANY):
        own, title = CODES[code]
        status = style.statuses.get(own, own)
        described = found["responses"].setdefault(
            str(status),
            {
                "description": title,
                "headers": headers(ID | HEADERS.get(status, {})),
                "content": {style.kind: {"schema": ref(style.model)}},
            },
        )
        if title not in described["description"]:
            described["description"] += f"; or: {title}"
    return found


def with_body(
    name: str,
    summary: str,
    answer: dict[str, Any],
    problems: tuple[str, ...],
    body: type[BaseModel],
    example: dict[str, Any],
    *,
    tag: str = FINSENT,
    style: Problems = PROBLEMS,
) -> dict[str, Any]:
    """Describe an operation that reads JSON, within a deadline."""
    found = operation(name, summary, answer, (*problems, *KEYED), tag=tag, style=style)
    found["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": ref(body), "example": example}},
    }
    found["parameters"] = [
        {
            "name": "X-Request-Timeout-Ms",
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 1},
            "description": "deadline of the request, in milliseconds",
        }
    ]
    return found


def timed(operation: dict[str, Any]) -> dict[str, Any]:
    """Describe that an operation asks the model, and how the texts fared there."""
    operation["responses"]["200"]["headers"] |= headers(TIMES)
    return operation


def without_key(operation: dict[str, Any]) -> dict[str, Any]:
    """Describe that an operation needs no key, even where others do."""
    return {**operation, "security": []}


def headers(named: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Describe headers of an answer."""
    return {
        name: {"description": meaning, "required": True, "schema": {"type": kind}}
        for name, (kind, meaning) in named.items()
    }


def ref(model: type[BaseModel]) -> dict[str, Any]:
    """Name a type of requests or answers."""
    return {"$ref": REFS.format(model=model.__name__)}


def list_of(items: dict[str, Any]) -> dict[str, Any]:
    """Describe a list."""
    return {"type": "array", "items": items}
