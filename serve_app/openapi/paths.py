"""The operations in the OpenAPI document."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from pydantic import JsonValue

from finsent.data.readers.text_table import TableFormat
from finsent.labels import LABELS
from finsent.records import JsonObject
from serve_app.dialects import tei, vllm
from serve_app.http import answers, requests
from serve_app.http.files import CSV, JSON_LINES, TSV, FileQuery
from serve_app.openapi.parts import (
    BODY,
    JSON_BODY,
    TEI,
    TEXT,
    TEXTS,
    VLLM,
    Described,
    ProblemStyle,
    list_of,
    ref,
)

_EXAMPLE = "Profit rose."
_RANKING: JsonObject = {
    **list_of(ref(tei.LabelScore)),
    "minItems": 1,
    "maxItems": len(LABELS),
}
_LIST_TEXTS = ("too_many_texts", *TEXTS)

_PREDICT = Described(
    "predict",
    "Classify a text, or a list of texts",
    {"oneOf": [ref(answers.PredictAnswer), ref(answers.PredictList), _RANKING, list_of(_RANKING)]},
    _LIST_TEXTS,
    request=requests.PredictRequest,
    example={"text": _EXAMPLE},
    is_timed=True,
)
_EXPLAIN = Described(
    "explain",
    "Weigh the words of a text for and against its label",
    ref(answers.ExplainAnswer),
    TEXTS,
    request=requests.ExplainRequest,
    example={"text": _EXAMPLE},
    is_timed=True,
)
_FILE = Described(
    "predict_file",
    "Classify the rows of a CSV or text file",
    TEXT,
    (*BODY, "unknown_source", "unknown_column", "overloaded", "deadline_exceeded"),
    media_type=CSV,
    other_media_types=(TSV, JSON_LINES),
    # Bytes, too: most generators make no function for CSV alone.
    upload={
        CSV: {"schema": TEXT, "example": f"text\n{_EXAMPLE}\n"},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
    parameters=tuple(
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {"enum": [*get_args(TableFormat)]} if name == "format" else TEXT,
            "description": field.description,
        }
        for name, field in FileQuery.model_fields.items()
    ),
)
_INFO = Described(
    "info", "The model and the limits", ref(answers.InfoAnswer), ("not_ready",), "get"
)
_MODEL_CARD = Described(
    "model_card",
    "The model's data, figures and limits, in Markdown",
    TEXT,
    ("not_ready",),
    "get",
    "text/markdown",
)
_METRICS = Described("metrics", "Counters, for Prometheus", TEXT, (), "get", "text/plain")
_HEALTH = Described(
    "health",
    "Readiness and load",
    ref(answers.HealthAnswer),
    ("not_ready",),
    "get",
    needs_key=False,
)
_LIVE = Described("livez", "Liveness", ref(answers.LiveAnswer), (), "get", needs_key=False)

_TEI_INFER = Described(
    "infer",
    "Classify as the API of Hugging Face's hub: a list of labels per text",
    list_of(_RANKING),
    _LIST_TEXTS,
    request=requests.TeiRequest,
    example={"inputs": _EXAMPLE},
    tag=TEI,
    is_timed=True,
)
_TEI_TOKENIZE = Described(
    "tokenize",
    "Tokenize texts as the model reads them",
    list_of(list_of(ref(tei.SimpleToken))),
    _LIST_TEXTS,
    request=tei.TokenizeRequest,
    example={"inputs": _EXAMPLE},
    tag=TEI,
)
_TEI_DECODE = Described(
    "decode",
    "Turn token ids into texts",
    list_of(TEXT),
    ("too_many_texts", *JSON_BODY),
    request=tei.DecodeRequest,
    example={"ids": [101, 102]},
    tag=TEI,
)

_VLLM_STYLE = ProblemStyle(vllm.ErrorAnswer, "application/json", {422: 400})
_VLLM_CLASSIFY = Described(
    "classify",
    "Classify texts as vLLM does",
    ref(vllm.ClassifyAnswer),
    ("too_many_texts", "model_not_found", *TEXTS),
    request=vllm.ClassifyRequest,
    example={"input": _EXAMPLE},
    tag=VLLM,
    style=_VLLM_STYLE,
    is_timed=True,
)
_VLLM_MODELS = Described(
    "models",
    "The names of the model, as vLLM lists them",
    ref(vllm.ModelList),
    ("not_ready",),
    "get",
    tag=VLLM,
    style=_VLLM_STYLE,
)

_OPERATIONS = {
    "/predict": _PREDICT,
    "/explain": _EXPLAIN,
    "/predict/file": _FILE,
    "/info": _INFO,
    "/model-card": _MODEL_CARD,
    "/metrics": _METRICS,
    "/health": _HEALTH,
    "/readyz": replace(_HEALTH, name="readyz", summary="Readiness"),
    "/livez": _LIVE,
    "/": _TEI_INFER,
    "/invocations": replace(
        _TEI_INFER,
        name="invocations",
        summary="Classify as /predict with inputs, at the path that SageMaker requests",
        answer={"oneOf": [_RANKING, list_of(_RANKING)]},
    ),
    "/tokenize": _TEI_TOKENIZE,
    "/decode": _TEI_DECODE,
    "/ping": replace(
        _HEALTH, name="ping", summary="Readiness, at the path that SageMaker requests", tag=TEI
    ),
    "/classify": _VLLM_CLASSIFY,
    "/v1/classify": replace(_VLLM_CLASSIFY, name="classify_v1"),
    "/v1/models": _VLLM_MODELS,
}


def paths() -> dict[str, JsonValue]:
    """Return the paths with their operations."""
    return {
        path: {operation.method: operation.document()} for path, operation in _OPERATIONS.items()
    }
