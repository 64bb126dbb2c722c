"""Settings of storage."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from finsent.config import Section, setting
from finsent.uris import parse, refuse_secrets

OBJECT_SCHEMES = ("s3", "gs", "az")


def storage_root(value: str | None) -> str | None:
    """Validate a local directory or the URI of an object store."""
    uri = None if value is None else parse(value)
    if value is None or uri is None:
        return value
    refuse_secrets(value)
    if uri.scheme not in OBJECT_SCHEMES or not uri.host:
        known = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in OBJECT_SCHEMES)
        raise ValueError(
            f"{uri.redacted!r} is not a storage location. Write a directory, or {known}."
        )
    return value


class StorageConfig(Section):
    """Where artifacts are stored."""

    root: Annotated[str, AfterValidator(storage_root)] = setting(
        "artifacts",
        "directory of datasets, runs and the registry, or s3://, gs:// or az:// with bucket and "
        "prefix; on several machines a mount they share, or an object store. Inside a Ray job a "
        "relative path is relative to ~/finsent, because Ray deletes the job's working directory",
        min_length=1,
    )
    cache_dir: str = setting(
        "~/.cache/finsent",
        "local directory with verified copies of what is read from an object store",
        min_length=1,
    )
    cache_gb: float = setting(
        50, "size of the cache, above which unused copies are deleted", unit="GB", gt=0
    )
    retry_seconds: float = setting(
        60,
        "how long a failing request to an object store is repeated, after which the job fails",
        unit="s",
        gt=0,
        le=600,
    )
