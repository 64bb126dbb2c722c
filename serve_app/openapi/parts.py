"""The parts of operations in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, JsonValue

from finsent.records import JsonObject
from serve_app.http.answers import ProblemAnswer
from serve_app.problems import CODES, MEDIA_TYPE

TEXT: JsonObject = {"type": "string"}
REFS = "#/components/schemas/{model}"
# Codes of problems. Each operation reads the header of deadlines, so each may be invalid.
ANY = ("invalid_request", "internal")
KEYED = ("unauthorized", "forbidden")
BODY = ("body_too_large", "unsupported_media_type", "not_ready")
JSON_BODY = (*BODY, "invalid_json", "overloaded", "deadline_exceeded")
TEXTS = (*JSON_BODY, "unknown_source", "invalid_text", "text_too_long")
FINSENT, TEI, VLLM = "finsent", "text-embeddings-inference", "vllm"
_TIMING_HEADERS = {
    "X-Queue-Time": ("number", "milliseconds until the last of the texts was taken"),
    "X-Inference-Time": ("number", "milliseconds of the slowest of its micro-batches"),
    "X-Batch-Size": (
        "integer",
        "rows of the largest of its micro-batches; 0: the model was not asked",
    ),
}
_ID_HEADER = {"X-Request-Id": ("string", "id of the request, the client's own if it sent one")}
_PROBLEM_HEADERS = {  # by status
    401: {"WWW-Authenticate": ("string", "Bearer")},
    429: {"Retry-After": ("integer", "seconds after which there is room")},
}


@dataclass(frozen=True)
class ProblemStyle:
    """The form in which an operation answers problems."""

    model: type[BaseModel] = ProblemAnswer
    media_type: str = MEDIA_TYPE
    statuses: Mapping[int, int] = field(default_factory=dict)  # that replace finsent's own


@dataclass(frozen=True)
class Described:
    """An operation, as the document describes it."""

    name: str  # of the function that generators make
    summary: str
    answer: JsonObject
    problems: tuple[str, ...]  # codes, without those of all operations
    method: Literal["get", "post"] = "post"
    media_type: str = "application/json"  # of the answer
    other_media_types: tuple[str, ...] = ()  # of the answer, each a text
    upload: JsonObject | None = None  # body of another type than JSON, by media type
    parameters: tuple[JsonObject, ...] = ()  # of the query
    request: type[BaseModel] | None = None  # of a JSON body, which has a deadline
    example: JsonObject = field(default_factory=dict)  # of the body
    tag: str = FINSENT
    style: ProblemStyle = field(default_factory=ProblemStyle)
    needs_key: bool = True  # where the service has API keys
    is_timed: bool = False  # the answer reports where the time of the texts went

    def document(self) -> JsonObject:
        """Return the operation as OpenAPI has it."""
        response_headers = _ID_HEADER | (_TIMING_HEADERS if self.is_timed else {})
        document: JsonObject = {
            "operationId": self.name,
            "tags": [self.tag],
            "summary": self.summary,
            "responses": {
                "200": {
                    "description": "Done",
                    "headers": _headers(response_headers),
                    "content": {
                        self.media_type: {"schema": self.answer},
                        **{kind: {"schema": dict(TEXT)} for kind in self.other_media_types},
                    },
                },
                **self._problem_responses(),
            },
        }
        if self.request is not None:
            schema: JsonValue = {"schema": ref(self.request), "example": self.example}
            document["requestBody"] = {"required": True, "content": {"application/json": schema}}
            document["parameters"] = [_DEADLINE]
        if self.upload is not None:
            document["parameters"] = [*self.parameters]
            document["requestBody"] = {"required": True, "content": self.upload}
        if not self.needs_key:
            document["security"] = []
        return document

    def _problem_responses(self) -> JsonObject:
        keyed = KEYED if self.needs_key else ()
        titles: dict[int, dict[str, None]] = {}  # by status, each once
        for code in (*self.problems, *keyed, *ANY):
            own_status, title = CODES[code]
            status = self.style.statuses.get(own_status, own_status)
            titles.setdefault(status, {})[title] = None
        return {
            str(status): {
                "description": "; or: ".join(titles_of_status),
                "headers": _headers(_ID_HEADER | _PROBLEM_HEADERS.get(status, {})),
                "content": {self.style.media_type: {"schema": ref(self.style.model)}},
            }
            for status, titles_of_status in titles.items()
        }


_DEADLINE: JsonObject = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 1},
    "description": "deadline of the request, in milliseconds",
}


def _headers(headers: Mapping[str, tuple[str, str]]) -> JsonObject:
    return {
        name: {"description": meaning, "required": True, "schema": {"type": json_type}}
        for name, (json_type, meaning) in headers.items()
    }


def ref(model: type[BaseModel]) -> JsonObject:
    """Refer to a type of requests or answers."""
    return {"$ref": REFS.format(model=model.__name__)}


def list_of(items: JsonObject) -> JsonObject:
    """Describe a list."""
    return {"type": "array", "items": items}
