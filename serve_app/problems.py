"""Refusals as clients read them: problem+json (RFC 9457) with a stable code and a remedy.

The status and the title of each code are in `CODES`. The details that several modules share are
functions here; the other details are where they are raised.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

MEDIA_TYPE = "application/problem+json"

# Code: status and title. Codes are part of the API: they never change their meaning.
CODES: dict[str, tuple[int, str]] = {
    "invalid_json": (400, "The body is not JSON"),
    "unauthorized": (401, "No valid API key"),
    "forbidden": (403, "The API key's role does not allow this"),
    "not_found": (404, "No such path"),
    "model_not_found": (404, "No such model"),
    "method_not_allowed": (405, "The path does not support this method"),
    "body_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body's type or encoding is not supported"),
    "invalid_request": (422, "The request is not valid"),
    "unknown_source": (422, "The source has no calibration"),
    "unknown_column": (422, "The column of the texts is not known"),
    "too_many_texts": (422, "Too many texts in one request"),
    "text_too_long": (422, "A text is too long"),
    "invalid_text": (422, "A text cannot be classified"),
    "overloaded": (429, "Too much work is waiting"),
    "internal": (500, "An error of this server"),
    "not_ready": (503, "No model is loaded yet"),
    "deadline_exceeded": (504, "The deadline has passed"),
}


class ProblemBody(TypedDict):
    """A problem as JSON."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: NotRequired[str]


class Problem(Exception):  # noqa: N818 # RFC 9457's word
    """The reason why a request, or one of its texts, gets no answer."""

    def __init__(self, code: str, detail: str, *, retry_after: int | None = None) -> None:
        """Make a problem.

        Args:
            code: one of `CODES`.
            detail: what is wrong and what to do about it.
            retry_after: seconds after which the client may retry.
        """
        super().__init__(detail)
        self.code, self.detail, self.retry_after = code, detail, retry_after
        self.status, self.title = CODES[code]

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:  # replicas send them to each other
        return _problem, (self.code, self.detail, self.retry_after)

    def body(self, request_id: str | None = None) -> ProblemBody:
        """Return the fields of the problem."""
        body: ProblemBody = {
            "type": f"urn:finsent:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if request_id is not None:
            body["request_id"] = request_id
        return body

    def headers(self) -> dict[str, str]:
        """Return the response headers that depend on the problem."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def _problem(code: str, detail: str, retry_after: int | None) -> Problem:
    return Problem(code, detail, retry_after=retry_after)


# --- 429 ------------------------------------------------------------------------------------------


def overloaded(waiting_rows: int, drain_seconds: float, retry_after: int) -> Problem:
    """Return the refusal of work that would wait too long."""
    return Problem(
        "overloaded",
        f"{waiting_rows} texts wait, {drain_seconds:.1f} s of work. Retry after {retry_after} s.",
        retry_after=retry_after,
    )


def too_many_requests(limit: int, retry_after: int) -> Problem:
    """Return the refusal of one request more than a replica holds at a time."""
    return Problem(
        "overloaded",
        f"{limit} requests are in progress (serve.limits.requests). Retry after {retry_after} s.",
        retry_after=retry_after,
    )


def too_many_files(limit: int, retry_after: int) -> Problem:
    """Return the refusal of one file more than a replica scores at a time."""
    return Problem(
        "overloaded",
        f"{limit} files are being scored (serve.limits.files). Retry after {retry_after} s.",
        retry_after=retry_after,
    )


# --- other statuses -------------------------------------------------------------------------------


def too_late(seconds: float) -> Problem:
    """Return the refusal of a request whose deadline has passed."""
    return Problem(
        "deadline_exceeded",
        f"no answer within {seconds * 1000:.0f} ms. Set a longer deadline by the header "
        "X-Request-Timeout-Ms, or retry later.",
    )


def not_ready() -> Problem:
    """Return the refusal of a request that comes before a model is loaded."""
    return Problem("not_ready", "the model is being loaded. Retry in a few seconds.")


def no_classifier() -> Problem:
    """Return the answer of a health check while no classifier of the topology `split` runs."""
    return Problem("not_ready", "no classifier runs. Retry in a few seconds.")


def internal(request_id: str) -> Problem:
    """Return the refusal of a request on which this server failed; the log has the reason."""
    return Problem(
        "internal", f"the server failed. Report request id {request_id} to its operator."
    )


def body_too_large(kind: str, limit: int) -> Problem:
    """Return the refusal of a body.

    Args:
        kind: "body" or "message".
        limit: bytes.
    """
    return Problem(
        "body_too_large",
        f"the {kind} has more than {limit} bytes (serve.limits.body_bytes). Send fewer texts at a "
        "time.",
    )


def too_many_texts(field: str, count: int, limit: int) -> Problem:
    """Return the refusal of a list of texts."""
    return Problem(
        "too_many_texts",
        f"{field}: {count} texts. Send at most {limit} per request (serve.limits.texts).",
    )


def too_many_characters(count: int, limit: int) -> Problem:
    """Return the refusal of a text."""
    return Problem(
        "text_too_long",
        f"the text has {count} characters. Send at most {limit} (serve.limits.characters).",
    )
