"""Errors of object stores: which may pass, and the line for the user."""

from __future__ import annotations

import re

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from finsent.errors import one_line
from finsent.storage.store import StorageError
from finsent.uris import Uri

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a role of the machine)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ADDRESS = {
    "s3": "AWS_ENDPOINT_URL and AWS_REGION",
    "gs": "the network",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and the network",
}
# Texts of obstore; tests/unit/test_storage_faults.py provokes them.
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_PASSING_STATUS = (408, 409, 429)  # and all from 500
_STALE_LOGINS = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")  # with HTTP 400
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_NO_CREDENTIALS = ("169.254.169.254", "metadata.google.internal", "Configuration")
_URL = re.compile(r"\S+://\S+")  # may hold a signature


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error states, or None."""
    match = _STATUS.search(str(error))
    return int(match[1]) if match else None


def may_pass(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or lacks_bucket(error):
        return False
    status = status_of(error)
    if status is None:
        return not any(text in str(error) for text in _NO_CREDENTIALS)
    return status >= 500 or status in _PASSING_STATUS


def lacks_bucket(error: BaseException) -> bool:
    """Return whether the bucket does not exist."""
    return any(text in str(error) for text in _NO_BUCKET)


def storage_error(
    error: BaseException, uri: Uri, field: str, retry_seconds: float | None = None
) -> StorageError:
    """Return the line for the user.

    Args:
        field: the setting that names the URI.
        retry_seconds: for how long the request was repeated; None: it was not.
    """
    subject = f"{field}={uri.redacted!r}"
    if lacks_bucket(error):
        return StorageError(
            f"{subject}: the bucket {uri.host!r} does not exist. Create it, or set {field} to "
            "another one."
        )
    problem = _problem(error)
    code = _CODE.search(str(error))
    if code and code[1] == "RequestTimeTooSkewed":
        return StorageError(f"{subject}: access refused ({problem}). Set this machine's clock.")
    is_refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if is_refused or status_of(error) in (401, 403) or (code and code[1] in _STALE_LOGINS):
        return StorageError(
            f"{subject}: access refused ({problem}). Set {_CREDENTIALS[uri.scheme]} to a login "
            "that may read, write, list and delete there."
        )
    if any(text in str(error) for text in _NO_CREDENTIALS):
        return StorageError(f"{subject}: no credentials. Set {_CREDENTIALS[uri.scheme]}.")
    waited = f" for {retry_seconds:g} s" if retry_seconds else ""
    remedy = f"Check {_ADDRESS[uri.scheme]}"
    if retry_seconds:
        remedy += ", or raise storage.retry_seconds"
    return StorageError(f"{subject}: cannot be used{waited} ({problem}). {remedy}.")


def _problem(error: BaseException) -> str:
    """Return status, code and cause of an error, without URLs and the debug text of obstore."""
    text = str(error).split("Debug source:", 1)[0]
    code, status = _CODE.search(text), status_of(error)
    if status is not None:
        return f"HTTP {status} {code[1]}" if code else f"HTTP {status}"
    cause = _URL.sub("URL", text.rpartition(" - ")[2])
    return one_line(type(error)(cause)) if cause.strip() else type(error).__name__
