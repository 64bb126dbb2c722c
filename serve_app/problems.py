"""Errors as clients see them: problem+json (RFC 9457) with a stable code, never a stack trace."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"

# Code: status and title. Codes are part of the API: they never change their meaning.
CODES: dict[str, tuple[int, str]] = {
    "invalid_json": (400, "The body is not JSON"),
    "unauthorized": (401, "No valid API key"),
    "forbidden": (403, "The API key's role does not allow this"),
    "not_found": (404, "No such path"),
    "model_not_found": (404, "No such model"),
    "method_not_allowed": (405, "The path does not take this method"),
    "body_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body's type or encoding is not supported"),
    "invalid_request": (422, "The request is not understood"),
    "unknown_source": (422, "The source has no calibration"),
    "too_many_texts": (422, "Too many texts in one request"),
    "text_too_long": (422, "A text is too long"),
    "invalid_text": (422, "A text cannot be classified"),
    "overloaded": (429, "Too much work is waiting"),
    "internal": (500, "Something went wrong here"),
    "not_ready": (503, "No model is loaded yet"),
    "deadline_exceeded": (504, "The deadline has passed"),
}


# The same in the words of text-embeddings-inference, whose clients read `error` and `error_type`.
_TEI_TYPES = {
    "invalid_text": "Tokenizer",
    "overloaded": "Overloaded",
    "deadline_exceeded": "Overloaded",
    "internal": "Backend",
    "not_ready": "Unhealthy",
}


class Problem(Exception):  # noqa: N818 # RFC 9457's word
    """What a client is told instead of an answer."""

    def __init__(self, code: str, detail: str, *, retry_after: int | None = None) -> None:
        """Make one.

        Args:
            code: one of `CODES`.
            detail: what to do about it.
            retry_after: seconds.
        """
        super().__init__(detail)
        self.code, self.detail, self.retry_after = code, detail, retry_after
        self.status, self.title = CODES[code]

    def __reduce__(self) -> Any:  # replicas send them to each other
        return _problem, (self.code, self.detail, self.retry_after)

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """The problem's fields."""
        found = {
            "type": f"urn:finsent:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        return found if request_id is None else {**found, "request_id": request_id}

    def headers(self) -> dict[str, str]:
        """The headers of the answer that depend on the problem."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers

    def response(self, request_id: str) -> Response:
        """The whole answer; with `error` and `error_type`, as Hugging Face's clients expect."""
        body = {
            **self.body(request_id),
            "error": self.detail,
            "error_type": _TEI_TYPES.get(self.code, "Validation"),
        }
        return Response(orjson.dumps(body), self.status, self.headers(), media_type=MEDIA_TYPE)


def too_late(seconds: float) -> Problem:
    """No answer within a request's time."""
    return Problem(
        "deadline_exceeded",
        f"no answer within {seconds * 1000:.0f} ms; allow more by the header "
        "X-Request-Timeout-Ms, or try again later",
    )


def _problem(code: str, detail: str, retry_after: int | None) -> Problem:
    return Problem(code, detail, retry_after=retry_after)
