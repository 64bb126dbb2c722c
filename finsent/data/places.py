"""Where files are: local paths and everything that Arrow has a file system for."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from finsent.errors import InputError

_SECONDS = 10.0  # until an object store that does not answer is given up
_SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "abfs", "abfss")


@dataclass(frozen=True)
class Place:
    """One file. It is opened where it is read, so that it can cross processes."""

    uri: str  # an absolute local path, or a URI
    size: int  # bytes
    mtime_ns: int | None

    @property
    def shown(self) -> str:
        """The URI without credentials and options, for messages and manifests."""
        return _shown(self.uri)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.parts[-1]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path."""
        return PurePosixPath(urlsplit(self.uri).path if _is_uri(self.uri) else self.uri).parts

    def open(self) -> BinaryIO:
        """The file's bytes, from their start.

        Raises:
            OSError: it is gone or may not be read.
        """
        if not _is_uri(self.uri):
            return Path(self.uri).open("rb")
        filesystem, path = _filesystem(self.uri, "data.sources")
        return cast(BinaryIO, filesystem.open_input_file(path))

    def check_unchanged(self) -> None:
        """Refuse a file that is not the one that was found.

        Raises:
            InputError: its size or time has changed.
            OSError: it is gone.
        """
        if _is_uri(self.uri):
            filesystem, path = _filesystem(self.uri, "data.sources")
            there = _place(filesystem.get_file_info(path), self.uri)
        else:
            stat = Path(self.uri).stat()
            there = Place(self.uri, stat.st_size, stat.st_mtime_ns)
        if there != self:
            raise InputError(
                f"data.sources: {self.shown!r} has changed since it was found; run again when it "
                "is complete"
            )


def expand(uri: str, suffixes: Collection[str], field: str) -> list[Place]:
    """The files that a path, directory, glob or URI names, in order.

    Args:
        suffixes: ends of the names that are taken from a directory, in lower case.
        field: the setting, for messages.

    Raises:
        InputError: nothing is there, it may not be read, or its file system does not answer.
    """
    if _is_uri(uri) and not uri.startswith("file://"):
        return _expand_uri(uri, suffixes, field)
    name = fs.FileSystem.from_uri(uri)[1] if uri.startswith("file://") else uri
    path = Path(os.path.normpath(Path(name).expanduser().absolute()))
    try:
        files = _expand_path(uri, path, suffixes, field)
        return [Place(str(f), s.st_size, s.st_mtime_ns) for f in files if (s := f.stat())]
    except OSError as error:
        raise InputError(
            f"{field}: {str(path)!r}: cannot be read ({error.strerror}); allow it, or name another "
            "file"
        ) from None


def short_names(places: list[Place]) -> list[str]:
    """The last path parts, as few as keep the names apart."""
    for depth in range(1, max((len(place.parts) for place in places), default=0) + 1):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [place.shown for place in places]


# --- local --------------------------------------------------------------------------------------


def _expand_path(uri: str, path: Path, suffixes: Collection[str], field: str) -> list[Path]:
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.is_file()]
        found = [p for p in found if _taken(p.relative_to(path).parts, suffixes)]
        if not found:
            raise InputError(
                f"{field}: {uri!r} is a directory without files of a known format "
                f"({', '.join(sorted(suffixes))}); put labelled files there or name another place"
            )
        return sorted(found)
    if path.is_file():
        return [path]
    try:
        pattern = str(path.relative_to(path.anchor))
        found = sorted(p for p in Path(path.anchor).glob(pattern) if p.is_file())
    except ValueError:  # a pattern that pathlib does not know, e.g. a**
        found = []
    if not found:
        raise InputError(
            f"{field}: {uri!r}: no such file, directory or match (looked for {str(path)!r}); check "
            "the path, or use 'sample' for the corpus in the package"
        )
    return found


def _taken(parts: tuple[str, ...], suffixes: Collection[str]) -> bool:
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and parts[-1].lower().endswith(tuple(suffixes))


# --- remote -------------------------------------------------------------------------------------


def _is_uri(uri: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri) is not None


def _shown(uri: str) -> str:
    if not _is_uri(uri):
        return uri
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _filesystem(uri: str, field: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI and the path in it; one that does not answer fails soon."""
    scheme = urlsplit(uri).scheme
    if scheme not in _SCHEMES:
        raise InputError(
            f"{field}: {_shown(uri)!r}: nothing here reads {scheme}://; give a path, or one of "
            f"{', '.join(f'{s}://' for s in (*_SCHEMES, 'hf', 'kaggle'))}"
        )
    try:
        if scheme == "s3":
            parts = urlsplit(uri)
            return _impatient(uri), f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        found, path = fs.FileSystem.from_uri(uri)
        return found, str(path)
    except (pa.ArrowException, OSError) as error:
        raise _no_answer(uri, field, error) from None


def _impatient(uri: str) -> fs.S3FileSystem:
    # Arrow's own URIs cannot say how long to wait; its default is minutes of retries.
    parts = urlsplit(uri)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    keys: dict[str, Any] = {}
    if parts.username:
        keys = {"access_key": unquote(parts.username), "secret_key": unquote(parts.password or "")}
    elif options.get("anonymous") == "true":
        keys = {"anonymous": True}
    region = options.get("region") or os.environ.get("AWS_REGION")
    return fs.S3FileSystem(
        **keys,
        **({"region": region} if region else {}),
        **{name: options[name] for name in ("endpoint_override", "scheme") if name in options},
        connect_timeout=_SECONDS / 2,
        request_timeout=_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
    )


def _expand_uri(uri: str, suffixes: Collection[str], field: str) -> list[Place]:
    filesystem, path = _filesystem(uri, field)
    fixed = PurePosixPath(path)
    pattern = any(sign in path for sign in "*?[")
    while any(sign in str(fixed) for sign in "*?["):
        fixed = fixed.parent
    try:
        if not pattern:
            info = filesystem.get_file_info(path)
            if info.type == fs.FileType.File:
                return [_place(info, uri)]
        listed = filesystem.get_file_info(
            fs.FileSelector(str(fixed), recursive=True, allow_not_found=True)
        )
    except (pa.ArrowException, OSError) as error:
        raise _no_answer(uri, field, error) from None
    files = sorted((i for i in listed if i.type == fs.FileType.File), key=lambda i: str(i.path))
    if pattern:
        found = [i for i in files if _glob(path).fullmatch(i.path)]
    else:
        found = [
            i for i in files if _taken(PurePosixPath(i.path).relative_to(path).parts, suffixes)
        ]
    if not found:
        raise InputError(
            f"{field}: {_shown(uri)!r}: no such file, and no matching file below it (of "
            f"{', '.join(sorted(suffixes))}); check the bucket and the path"
        )
    return [_place(info, uri) for info in found]


def _glob(pattern: str) -> re.Pattern[str]:
    """`*` within a part of the path, `**/` over any parts, `?` and `[...]` as everywhere."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", pattern)
    return re.compile(
        "".join(
            signs.get(t) or (t.replace("[!", "[^") if t[0] == "[" and len(t) > 1 else re.escape(t))
            for t in tokens
        )
    )


def _place(info: fs.FileInfo, uri: str) -> Place:
    """A listed file under the scheme, credentials and options of the URI that led to it."""
    if info.type != fs.FileType.File:
        raise FileNotFoundError(2, "No such file", _shown(uri))
    parts = urlsplit(uri)
    login, at, host = parts.netloc.rpartition("@")
    where = info.path
    if parts.scheme in ("s3", "gs", "gcs"):  # the bucket is part of Arrow's path
        host, _, where = info.path.partition("/")
    path = where if where.startswith("/") else f"/{where}"
    query = f"?{parts.query}" if parts.query else ""
    return Place(f"{parts.scheme}://{login}{at}{host}{path}{query}", info.size, info.mtime_ns)


def _no_answer(uri: str, field: str, error: BaseException) -> InputError:
    problem = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return InputError(
        f"{field}: {_shown(uri)!r}: cannot be read ({problem}); check the network, the address and "
        "the credentials (for s3:// the AWS_* variables or ~/.aws, for gs:// "
        "GOOGLE_APPLICATION_CREDENTIALS)"
    )
