"""The API's description (OpenAPI 3.1), from the types that requests and answers are made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from finsent.serving.config import LimitsConfig
from serve_app import schemas
from serve_app.problems import CODES, MEDIA_TYPE

_REFS = "#/components/schemas/{model}"
_OUT = (schemas.PredictAnswer, schemas.PredictList, schemas.TeiScore, schemas.ExplainAnswer,
        schemas.ProblemAnswer)  # fmt: skip
_IN = (schemas.PredictRequest, schemas.ExplainRequest)


def describe(limits: LimitsConfig) -> dict[str, Any]:
    """The whole document."""
    _, definitions = models_json_schema(
        [(model, "serialization") for model in _OUT] + [(model, "validation") for model in _IN],
        ref_template=_REFS,
    )
    tei = {"type": "array", "items": _ref(schemas.TeiScore)}
    answers = {
        "oneOf": [
            _ref(schemas.PredictAnswer), _ref(schemas.PredictList), tei,
            {"type": "array", "items": tei},
        ]
    }  # fmt: skip
    problems = ("invalid_json", "body_too_large", "unsupported_media_type", "invalid_request",
                "overloaded", "internal", "not_ready", "deadline_exceeded")  # fmt: skip
    keyed = ("unauthorized", "forbidden")
    csv = {"text/csv": {"schema": {"type": "string"}}}
    column = {
        "name": "column", "in": "query", "required": False, "schema": {"type": "string"},
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
                "post": _operation(
                    "Classify a text, or a list of texts", answers,
                    (*problems, *keyed), schemas.PredictRequest, timed=True,
                )
            },
            "/explain": {
                "post": _operation(
                    "Say which words speak for and against a text's label",
                    _ref(schemas.ExplainAnswer), (*problems, *keyed), schemas.ExplainRequest,
                    timed=True,
                )
            },
            "/predict/file": {
                "post": {
                    **_operation("Classify a CSV's rows", None, (*problems, *keyed)),
                    "parameters": [column],
                    "requestBody": {"required": True, "content": csv},
                }
            },
            "/info": {"get": _operation("The model and the limits", {"type": "object"}, keyed)},
            "/metrics": {"get": _operation("Counters, for Prometheus", None, keyed)},
            "/health": {"get": _operation("Readiness and load", {"type": "object"}, ())},
            "/readyz": {"get": _operation("Readiness", {"type": "object"}, ())},
            "/livez": {"get": _operation("Liveness", {"type": "object"}, ())},
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }  # fmt: skip


def _operation(
    summary: str, answer: dict[str, Any] | None, problems: tuple[str, ...],
    body: type[BaseModel] | None = None, timed: bool = False,
) -> dict[str, Any]:  # fmt: skip
    text = {
        "text/plain": {"schema": {"type": "string"}},
        "text/csv": {"schema": {"type": "string"}},
    }
    ok = text if answer is None else {"application/json": {"schema": answer}}
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "Done", "content": ok}},
    }
    for code in problems or ("not_ready",):
        status, title = CODES[code]
        described = found["responses"].setdefault(
            str(status),
            {
                "description": title,
                "content": {MEDIA_TYPE: {"schema": _ref(schemas.ProblemAnswer)}},
            },
        )
        if title not in described["description"]:
            described["description"] += f"; or: {title}"
    if body is not None:
        content = {"application/json": {"schema": _ref(body)}}
        found["requestBody"] = {"required": True, "content": content}
    if timed:
        found["parameters"] = [
            {
                "name": "X-Request-Timeout-Ms", "in": "header", "required": False,
                "schema": {"type": "integer", "minimum": 1},
                "description": "deadline of the request, in milliseconds",
            }
        ]  # fmt: skip
    return found


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REFS.format(model=model.__name__)}
