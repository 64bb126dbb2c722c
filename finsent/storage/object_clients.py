"""Clients of object stores. Credentials come from the environment alone."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from finsent.storage.object_errors import storage_error
from finsent.uris import Uri, parse

if TYPE_CHECKING:  # types that obstore has for checkers alone
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config

Client = S3Store | GCSStore | AzureStore

_MAX_REQUEST_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_RETRIES = 3  # inside obstore; `ObjectStore` repeats the request as a whole


@lru_cache(maxsize=32)  # a client has a pool of connections
def open_client(root: str, field: str, retry_seconds: float) -> Client:
    """Return the client of a root's URI. Makes no request.

    Args:
        field: the setting that names the root, for messages.

    Raises:
        StorageError: the environment lacks what the store needs.
    """
    uri = parse(root)
    assert uri is not None
    request_seconds = min(_MAX_REQUEST_SECONDS, retry_seconds / 2)
    options: ClientConfig = {
        "timeout": timedelta(seconds=request_seconds),
        "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, request_seconds)),
    }
    retries: RetryConfig = {
        "max_retries": _RETRIES,
        "retry_timeout": timedelta(seconds=retry_seconds),
    }
    endpoint = _s3_endpoint(uri) if uri.scheme == "s3" else _endpoint(uri)
    if endpoint is not None and endpoint.startswith("http://"):
        options["allow_http"] = True
    prefix = uri.path.strip("/") or None
    try:
        if uri.scheme == "s3":
            return S3Store(
                uri.host,
                prefix=prefix,
                config=_s3_config(uri),
                client_options=options,
                retry_config=retries,
            )
        if uri.scheme == "gs":
            return GCSStore(
                uri.host,
                prefix=prefix,
                config=_gs_config(uri),
                client_options=options,
                retry_config=retries,
            )
        return AzureStore(
            uri.host,
            prefix=prefix,
            config=_az_config(uri),
            client_options=options,
            retry_config=retries,
        )
    except (BaseError, ValueError) as error:
        raise storage_error(error, uri, field) from None


def _s3_config(uri: Uri) -> S3Config:
    config: S3Config = {"skip_signature": True} if _is_anonymous(uri) else {}
    if endpoint := _s3_endpoint(uri):
        config["endpoint"] = endpoint
    if region := uri.options.get("region") or os.environ.get("AWS_REGION"):
        config["region"] = region
    return config


def _gs_config(uri: Uri) -> GCSConfig:
    config: GCSConfig = {"skip_signature": True} if _is_anonymous(uri) else {}
    if endpoint := _endpoint(uri):
        config["base_url"] = endpoint
    return config


def _az_config(uri: Uri) -> AzureConfig:
    config: AzureConfig = {"skip_signature": True} if _is_anonymous(uri) else {}
    if endpoint := _endpoint(uri):
        config["endpoint"] = endpoint
    return config


def _is_anonymous(uri: Uri) -> bool:
    return uri.options.get("anonymous") == "true"


def _s3_endpoint(uri: Uri) -> str | None:
    """Return the endpoint of the options or of the environment; None: that of AWS."""
    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    return _endpoint(uri) or next(filter(None, map(os.environ.get, variables)), None)


def _endpoint(uri: Uri) -> str | None:
    """Return the endpoint of the URI's options, with its scheme."""
    address = uri.options.get("endpoint_override")
    if not address or "://" in address:
        return address
    return f"{uri.options.get('scheme', 'https')}://{address}"
