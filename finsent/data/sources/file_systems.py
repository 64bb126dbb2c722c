"""File systems of URIs: object stores and others that Arrow supports, with short timeouts."""

from __future__ import annotations

import os
from datetime import timedelta
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from finsent.errors import InputError, one_line
from finsent.uris import Uri

_TIMEOUT_SECONDS = 10.0
_SCHEMES = ("s3", "gs", "gcs", "hdfs", "abfs", "abfss")


def filesystem_of(uri: Uri, field: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URI, and the prefix of the URI's path in it.

    Args:
        field: the setting that names the URI, for messages.

    Raises:
        InputError: the scheme is unknown, or the file system does not answer within seconds.
    """
    if uri.scheme not in _SCHEMES:
        known = ", ".join(f"{s}://" for s in ("file", *_SCHEMES, "hf", "kaggle"))
        raise InputError(
            f"{field}: {uri.redacted!r}: finsent does not read {uri.scheme}://. Give a path, or "
            f"one of {known}."
        )
    try:
        if uri.scheme == "s3":
            return _s3_filesystem(uri), uri.host
        if uri.scheme in ("gs", "gcs"):
            return _gs_filesystem(uri), uri.host
        # Without the path: Arrow would parse `?` and `#` in it as a query and a fragment.
        filesystem, prefix = fs.FileSystem.from_uri(f"{uri.root}/{uri.tail}")
        return filesystem, str(prefix).rstrip("/")
    except (pa.ArrowException, OSError) as error:
        raise unreachable(uri, field, error) from None


def _gs_filesystem(uri: Uri) -> fs.GcsFileSystem:
    # A file system that Arrow makes of the URI waits 15 minutes for a network.
    return fs.GcsFileSystem(
        anonymous=uri.options.get("anonymous") == "true",
        scheme=uri.options.get("scheme", "https"),
        endpoint_override=uri.options.get("endpoint_override"),
        retry_time_limit=timedelta(seconds=_TIMEOUT_SECONDS),
    )


def _s3_filesystem(uri: Uri) -> fs.S3FileSystem:
    # A URI cannot state a timeout to Arrow, whose default is minutes of retries.
    options = uri.options
    user, _, password = uri.login.partition(":")
    keys: dict[str, str | bool] = {}
    if user:
        keys = {"access_key": unquote(user), "secret_key": unquote(password)}
    elif options.get("anonymous") == "true":
        keys = {"anonymous": True}
    region = options.get("region") or os.environ.get("AWS_REGION")
    return fs.S3FileSystem(
        **keys,
        **({"region": region} if region else {}),
        **{name: options[name] for name in ("endpoint_override", "scheme") if name in options},
        connect_timeout=_TIMEOUT_SECONDS / 2,
        request_timeout=_TIMEOUT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
    )


def unreachable(uri: Uri, field: str, error: BaseException) -> InputError:
    """Return the error for a URI whose file system does not answer or refuses.

    Args:
        field: the setting that names the URI.
    """
    problem = one_line(error)
    return InputError(
        f"{field}: {uri.redacted!r}: cannot be read ({problem}). Check the network, the address "
        "and the credentials (for s3:// the AWS_* variables or ~/.aws, for gs:// "
        "GOOGLE_APPLICATION_CREDENTIALS)."
    )
