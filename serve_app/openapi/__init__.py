"""The OpenAPI 3.1 document, generated from the types of requests and answers.

Clients are generated from the document, so it uses only what their generators understand.
`docs/openapi.json` is the document of a service with default settings; `make openapi` writes it.
"""

from __future__ import annotations

from pydantic.json_schema import models_json_schema

from finsent.records import JsonObject
from serve_app.config import LimitsConfig
from serve_app.dialects import tei, vllm
from serve_app.http import answers, requests
from serve_app.openapi.parts import REFS
from serve_app.openapi.paths import paths

_ANSWERS = (
    answers.PredictAnswer,
    answers.PredictList,
    answers.ExplainAnswer,
    answers.InfoAnswer,
    answers.HealthAnswer,
    answers.LiveAnswer,
    answers.ProblemAnswer,
    tei.LabelScore,
    tei.SimpleToken,
    vllm.ClassifyAnswer,
    vllm.ModelList,
    vllm.ErrorAnswer,
)
_REQUESTS = (
    requests.PredictRequest,
    requests.ExplainRequest,
    requests.TeiRequest,
    tei.TokenizeRequest,
    tei.DecodeRequest,
    vllm.ClassifyRequest,
)


def describe(limits: LimitsConfig) -> JsonObject:
    """Return the document of a service with these limits."""
    _, definitions = models_json_schema(
        [(model, "serialization") for model in _ANSWERS]
        + [(model, "validation") for model in _REQUESTS],
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
        "paths": paths(),
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"key": []}, {"header": []}],
    }
