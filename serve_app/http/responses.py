"""HTTP responses in JSON."""

from __future__ import annotations

import orjson
from starlette.responses import Response

from serve_app.problems import MEDIA_TYPE, Problem

JSON = "application/json"

# The same in the words of text-embeddings-inference, whose clients read `error` and `error_type`.
_TEI_TYPES = {
    "invalid_text": "Tokenizer",
    "overloaded": "Overloaded",
    "deadline_exceeded": "Overloaded",
    "internal": "Backend",
    "not_ready": "Unhealthy",
}


def json_response(
    content: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a response whose body is `content` as JSON."""
    return Response(orjson.dumps(content), status, headers, media_type=JSON)


def problem_response(problem: Problem, request_id: str) -> Response:
    """Return a problem with `error` and `error_type`, which Hugging Face's clients read."""
    body = {
        **problem.body(request_id),
        "error": problem.detail,
        "error_type": _TEI_TYPES.get(problem.code, "Validation"),
    }
    return Response(orjson.dumps(body), problem.status, problem.headers(), media_type=MEDIA_TYPE)
