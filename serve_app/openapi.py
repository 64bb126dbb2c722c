"""The API's description (OpenAPI 3.1), from the types that requests and answers are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from finsent.labels import LABELS
from finsent.serving.config import LimitsConfig
from serve_app import schemas
from serve_app.problems import CODES, MEDIA_TYPE

_REFS = "#/components/schemas/{model}"
_OUT = (schemas.PredictAnswer, schemas.PredictList, schemas.TeiScore, schemas.ExplainAnswer,
        schemas.InfoAnswer, schemas.HealthAnswer, schemas.LiveAnswer,
        schemas.ProblemAnswer)  # fmt: skip
_IN = (schemas.PredictRequest, schemas.ExplainRequest)
_TEXT: dict[str, Any] = {"type": "string"}
_ANY = ("invalid_request", "internal")  # of all operations: one reads the header of deadlines
_KEYED = ("unauthorized", "forbidden")
_BODY = ("body_too_large", "unsupported_media_type", "not_ready")
_JSON = (*_BODY, "invalid_json", "invalid_text", "text_too_long", "overloaded", "deadline_exceeded")
_TIMES = {
    "X-Queue-Time": ("number", "milliseconds until the last of the texts was taken"),
    "X-Inference-Time": ("number", "milliseconds of the longest of its micro-batches"),
    "X-Batch-Size": (
        "integer",
        "rows of the largest of its micro-batches; 0: the model was not asked",
    ),
}
_ID = {"X-Request-Id": ("string", "the request's own where it had one")}
_HEADERS = {  # of problems, by status
    401: {"WWW-Authenticate": ("string", "Bearer")},
    429: {"Retry-After": ("integer", "seconds after which there is room")},
}


def describe(limits: LimitsConfig) -> dict[str, Any]:
    """The whole document."""
    _, definitions = models_json_schema(
        [(model, "serialization") for model in _OUT] + [(model, "validation") for model in _IN],
        ref_template=_REFS,
    )
    every = len(LABELS)
    tei = {
        "type": "array", "items": _ref(schemas.TeiScore), "minItems": every, "maxItems": every
    }  # fmt: skip
    answers = {
        "oneOf": [
            _ref(schemas.PredictAnswer), _ref(schemas.PredictList), tei,
            {"type": "array", "items": tei},
        ]
    }  # fmt: skip
    column = {
        "name": "column", "in": "query", "required": False, "schema": _TEXT,
        "description": "name of the text's column",
    }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "finsent",
            "version": "1",
            "description": "Financial sentiment. Limits: "
            + ", ".join(f"{name} {value}" for name, value in limits.model_dump().items()),
        },
        "paths": {
            "/predict": {
                "post": _timed(
                    "Classify a text, or a list of texts", answers,
                    ("too_many_texts", *_JSON), schemas.PredictRequest,
                )
            },
            "/explain": {
                "post": _timed(
                    "Say which words speak for and against a text's label",
                    _ref(schemas.ExplainAnswer), _JSON, schemas.ExplainRequest,
                )
            },
            "/predict/file": {
                "post": {
                    **_operation("Classify a CSV's rows", _TEXT, (*_BODY, *_KEYED), "text/csv"),
                    "parameters": [column],
                    "requestBody": {"required": True, "content": {"text/csv": {"schema": _TEXT}}},
                }
            },
            "/info": {
                "get": _operation(
                    "The model and the limits", _ref(schemas.InfoAnswer), ("not_ready", *_KEYED)
                )
            },
            "/metrics": {
                "get": _operation("Counters, for Prometheus", _TEXT, _KEYED, "text/plain")
            },
            "/health": {
                "get": _open("Readiness and load", _ref(schemas.HealthAnswer), ("not_ready",))
            },
            "/readyz": {"get": _open("Readiness", _ref(schemas.HealthAnswer), ("not_ready",))},
            "/livez": {"get": _open("Liveness", _ref(schemas.LiveAnswer), ())},
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"key": []}, {"header": []}],
    }  # fmt: skip


def _operation(
    summary: str, answer: dict[str, Any], problems: tuple[str, ...], kind: str = "application/json"
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {
                "description": "Done",
                "headers": _headers(_ID),
                "content": {kind: {"schema": answer}},
            }
        },
    }
    for code in (*problems, *_ANY):
        status, title = CODES[code]
        described = found["responses"].setdefault(
            str(status),
            {
                "description": title,
                "headers": _headers(_ID | _HEADERS.get(status, {})),
                "content": {MEDIA_TYPE: {"schema": _ref(schemas.ProblemAnswer)}},
            },
        )
        if title not in described["description"]:
            described["description"] += f"; or: {title}"
    return found


def _timed(
    summary: str, answer: dict[str, Any], problems: tuple[str, ...], body: type[BaseModel]
) -> dict[str, Any]:
    """One that asks the model, within a deadline."""
    found = _operation(summary, answer, (*problems, *_KEYED))
    found["responses"]["200"]["headers"] |= _headers(_TIMES)
    found["requestBody"] = {
        "required": True, "content": {"application/json": {"schema": _ref(body)}}
    }  # fmt: skip
    found["parameters"] = [
        {
            "name": "X-Request-Timeout-Ms", "in": "header", "required": False,
            "schema": {"type": "integer", "minimum": 1},
            "description": "deadline of the request, in milliseconds",
        }
    ]  # fmt: skip
    return found


def _open(summary: str, answer: dict[str, Any], problems: tuple[str, ...]) -> dict[str, Any]:
    """One that needs no key, even where others do."""
    return {**_operation(summary, answer, problems), "security": []}


def _headers(named: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    return {
        name: {"description": meaning, "required": True, "schema": {"type": kind}}
        for name, (kind, meaning) in named.items()
    }


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REFS.format(model=model.__name__)}
