"""The API's description (OpenAPI 3.1), from the types that requests and answers are made of.

Clients are generated from it: it uses only what their generators understand. `docs/openapi.json` is
the description of a service with default settings; `make openapi` writes it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from finsent.data.readers.text_table import TableFormat
from finsent.labels import LABELS
from serve_app import schemas, tei, vllm
from serve_app.config import LimitsConfig
from serve_app.files import CSV, JSON_LINES, TSV, FileQuery
from serve_app.openapi_parts import (
    BODY,
    JSON_BODY,
    KEYED,
    REFS,
    TEI,
    TEXTS,
    VLLM,
    Problems,
    list_of,
    operation,
    ref,
    timed,
    with_body,
    without_key,
)

_OUT = (
    schemas.PredictAnswer,
    schemas.PredictList,
    schemas.ExplainAnswer,
    schemas.InfoAnswer,
    schemas.HealthAnswer,
    schemas.LiveAnswer,
    schemas.ProblemAnswer,
    tei.LabelScore,
    tei.SimpleToken,
    vllm.ClassifyAnswer,
    vllm.ModelList,
    vllm.ErrorAnswer,
)
_IN = (
    schemas.PredictRequest,
    schemas.ExplainRequest,
    schemas.TeiRequest,
    tei.TokenizeRequest,
    tei.DecodeRequest,
    vllm.ClassifyRequest,
)
_TEXT: dict[str, Any] = {"type": "string"}
_EXAMPLE = "Profit rose."
_RANKING = {**list_of(ref(tei.LabelScore)), "minItems": 1, "maxItems": len(LABELS)}
_VLLM = Problems(vllm.ErrorAnswer, "application/json", {422: 400})


def describe(limits: LimitsConfig) -> dict[str, Any]:
    """Return the description of a service with these limits."""
    _, definitions = models_json_schema(
        [(model, "serialization") for model in _OUT] + [(model, "validation") for model in _IN],
        ref_template=REFS,
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "finsent",
            "version": "1",
            "description": "Financial sentiment. Limits: "
            + ", ".join(f"{name} {value}" for name, value in limits.model_dump().items()),
        },
        "paths": {**_own_paths(), **_tei_paths(), **_vllm_paths()},
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"key": []}, {"header": []}],
    }


def _own_paths() -> dict[str, Any]:
    answers = {
        "oneOf": [ref(schemas.PredictAnswer), ref(schemas.PredictList), _RANKING, list_of(_RANKING)]
    }
    health = ref(schemas.HealthAnswer)
    return {
        "/predict": {
            "post": timed(
                with_body(
                    "predict",
                    "Classify a text, or a list of texts",
                    answers,
                    ("too_many_texts", *TEXTS),
                    schemas.PredictRequest,
                    {"text": _EXAMPLE},
                )
            )
        },
        "/explain": {
            "post": timed(
                with_body(
                    "explain",
                    "Say which words speak for and against a text's label",
                    ref(schemas.ExplainAnswer),
                    TEXTS,
                    schemas.ExplainRequest,
                    {"text": _EXAMPLE},
                )
            )
        },
        "/predict/file": {"post": _file()},
        "/info": {
            "get": operation(
                "info", "The model and the limits", ref(schemas.InfoAnswer), ("not_ready", *KEYED)
            )
        },
        "/model-card": {
            "get": operation(
                "model_card",
                "The model's data, figures and limits, in Markdown",
                _TEXT,
                ("not_ready", *KEYED),
                "text/markdown",
            )
        },
        "/metrics": {
            "get": operation("metrics", "Counters, for Prometheus", _TEXT, KEYED, "text/plain")
        },
        "/health": {
            "get": without_key(operation("health", "Readiness and load", health, ("not_ready",)))
        },
        "/readyz": {"get": without_key(operation("readyz", "Readiness", health, ("not_ready",)))},
        "/livez": {"get": without_key(operation("livez", "Liveness", ref(schemas.LiveAnswer), ()))},
    }


def _file() -> dict[str, Any]:
    problems = (*BODY, *KEYED, "unknown_source", "overloaded", "deadline_exceeded")
    found = operation(
        "predict_file", "Classify the rows of a CSV or text file", _TEXT, problems, CSV
    )
    found["responses"]["200"]["content"] |= {kind: {"schema": _TEXT} for kind in (TSV, JSON_LINES)}
    found["parameters"] = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {"enum": [*get_args(TableFormat)]} if name == "format" else _TEXT,
            "description": field.description,
        }
        for name, field in FileQuery.model_fields.items()
    ]
    # Bytes as well: most generators make no function for CSV alone.
    content = {
        CSV: {"schema": _TEXT, "example": f"text\n{_EXAMPLE}\n"},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
    found["requestBody"] = {"required": True, "content": content}
    return found


def _tei_paths() -> dict[str, Any]:
    problems = ("too_many_texts", *TEXTS)
    return {
        "/": {
            "post": timed(
                with_body(
                    "infer",
                    "Classify as the API of Hugging Face's hub: a list of labels per text",
                    list_of(_RANKING),
                    problems,
                    schemas.TeiRequest,
                    {"inputs": _EXAMPLE},
                    tag=TEI,
                )
            )
        },
        "/invocations": {
            "post": timed(
                with_body(
                    "invocations",
                    "Classify as /predict with inputs, where SageMaker asks",
                    {"oneOf": [_RANKING, list_of(_RANKING)]},
                    problems,
                    schemas.TeiRequest,
                    {"inputs": _EXAMPLE},
                    tag=TEI,
                )
            )
        },
        "/tokenize": {
            "post": with_body(
                "tokenize",
                "Take texts apart as the model reads them",
                list_of(list_of(ref(tei.SimpleToken))),
                problems,
                tei.TokenizeRequest,
                {"inputs": _EXAMPLE},
                tag=TEI,
            )
        },
        "/decode": {
            "post": with_body(
                "decode",
                "Turn token ids into texts",
                list_of(_TEXT),
                ("too_many_texts", *JSON_BODY),
                tei.DecodeRequest,
                {"ids": [101, 102]},
                tag=TEI,
            )
        },
        "/ping": {
            "get": without_key(
                operation(
                    "ping",
                    "Readiness, where SageMaker asks",
                    ref(schemas.HealthAnswer),
                    ("not_ready",),
                    tag=TEI,
                )
            )
        },
    }


def _vllm_paths() -> dict[str, Any]:
    def classify(name: str) -> dict[str, Any]:
        return timed(
            with_body(
                name,
                "Classify texts as vLLM does",
                ref(vllm.ClassifyAnswer),
                ("too_many_texts", "model_not_found", *TEXTS),
                vllm.ClassifyRequest,
                {"input": _EXAMPLE},
                tag=VLLM,
                style=_VLLM,
            )
        )

    models = operation(
        "models",
        "The names of the model, as vLLM lists them",
        ref(vllm.ModelList),
        ("not_ready", *KEYED),
        tag=VLLM,
        style=_VLLM,
    )
    return {
        "/classify": {"post": classify("classify")},
        "/v1/classify": {"post": classify("classify_v1")},
        "/v1/models": {"get": models},
    }


if __name__ == "__main__":
    text = json.dumps(describe(LimitsConfig()), indent=1, ensure_ascii=False) + "\n"
    Path(sys.argv[1]).write_text(text, encoding="utf-8")
