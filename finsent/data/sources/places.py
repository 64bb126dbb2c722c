"""Where files are: local paths and everything that Arrow has a file system for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from finsent.data.config import Format
from finsent.data.sources import listing
from finsent.data.sources.heads import KNOWN_NAMES
from finsent.data.sources.uris import Uri, parse
from finsent.errors import InputError, one_line

_SECONDS = 10.0  # until an object store that does not answer is given up
_SCHEMES = ("s3", "gs", "gcs", "hdfs", "abfs", "abfss")
_PACKAGED = "package"


@dataclass(frozen=True)
class Place:
    """One file. It is opened where it is read, so that it can cross processes."""

    uri: str  # an absolute local path, or a URI
    size: int  # bytes
    mtime_ns: int | None  # None: its time says nothing
    field: str = "data.sources"  # the setting that names it

    @property
    def shown(self) -> str:
        """The URI without credentials and options, for messages and manifests."""
        uri = parse(self.uri)
        return self.uri if uri is None else uri.shown

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.parts[-1]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path, with the bucket where there is one."""
        uri = parse(self.uri)
        return PurePosixPath(self.uri if uri is None else uri.host + uri.path).parts

    def open(self) -> BinaryIO:
        """The file's bytes, from their start.

        Raises:
            OSError: it is gone or may not be read.
        """
        uri = parse(self.uri)
        if uri is None or uri.scheme == _PACKAGED:
            return _local(self.uri, uri).open("rb")
        filesystem, base = _filesystem(uri, self.field)
        return cast(BinaryIO, filesystem.open_input_file(base + uri.path))

    def check_unchanged(self) -> None:
        """Refuse a file that is not the one that was found.

        Raises:
            InputError: its size or time has changed.
            OSError: it is gone.
        """
        uri = parse(self.uri)
        if uri is None or uri.scheme == _PACKAGED:
            stat = _local(self.uri, uri).stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
        else:
            filesystem, base = _filesystem(uri, self.field)
            info = filesystem.get_file_info(base + uri.path)
            if info.type != fs.FileType.File:
                raise FileNotFoundError(2, "No such file", self.shown)
            size, mtime_ns = info.size, info.mtime_ns
        if size != self.size or (self.mtime_ns is not None and mtime_ns != self.mtime_ns):
            raise InputError(
                f"{self.field}: {self.shown!r} has changed since it was found; run again when it "
                "is complete"
            )


def packaged(path: str, field: str) -> Place:
    """A file of this package, wherever the package lies on the machine that reads it.

    Its time is that of the installation, so it says nothing.

    Args:
        path: within the package.
        field: the setting, for messages.
    """
    uri = f"{_PACKAGED}://finsent/{path}"
    return Place(uri, _local(uri, parse(uri)).stat().st_size, None, field)


def _local(path: str, uri: Uri | None) -> Path:
    return Path(path if uri is None else str(resources.files(uri.host)) + uri.path)


def expand(uri: str, format: Format | None, field: str) -> list[Place]:
    """The files that a path, directory, glob or URI names, in order.

    Args:
        format: of the files, where it is set; None: a directory gives the files whose names say it.
        field: the setting, for messages.

    Raises:
        InputError: nothing is there, it may not be read, or its file system does not answer.
    """
    parts = parse(uri)
    if parts is not None and parts.scheme != "file":
        return _expand_uri(parts, format, field)
    name = uri if parts is None else unquote(parts.path)
    path = Path(os.path.normpath(Path(name).expanduser().absolute()))
    try:
        files = _expand_path(uri, path, format, field)
        return [Place(str(f), s.st_size, s.st_mtime_ns, field) for f in files if (s := f.stat())]
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


def _expand_path(uri: str, path: Path, format: Format | None, field: str) -> list[Path]:
    if path.is_dir():
        everything = [*listing.walk(path)]
        listing.refuse_dead_links(everything, field)
        files = {p: p.relative_to(path).parts for p in everything if p.is_file()}
        listing.refuse_tables(files.values(), uri, field)
        found = [p for p, parts in files.items() if listing.is_data(parts, format)]
        listing.tell_skipped(uri, [p for p in files.values() if not listing.is_data(p, format)])
        if not found:
            raise InputError(
                f"{field}: {uri!r} is a directory without files of a known format "
                f"({KNOWN_NAMES}); put labeled files there, name another place, or set the "
                "source's format"
            )
        return sorted(found)
    if path.is_file():
        return [path]
    fixed = _fixed(PurePosixPath(path))
    matches = {p: p.relative_to(fixed).parts for p in listing.match(path, Path(fixed))}
    found = [p for p, parts in matches.items() if not listing.is_leftover(parts, str(path))]
    listing.tell_skipped(
        uri, [parts for parts in matches.values() if listing.is_leftover(parts, str(path))]
    )
    if not found:
        raise InputError(
            f"{field}: {uri!r}: no such file, directory or match (looked for {str(path)!r}); check "
            "the path, or use 'sample' for the corpus in the package"
        )
    folders = {folder for file in found for folder in file.parents if folder.is_relative_to(fixed)}
    inner = [p.relative_to(fixed).parts for f in folders for p in f.glob("_delta_log/*")]
    listing.refuse_tables(inner, uri, field)
    return found


def _fixed(path: PurePosixPath) -> PurePosixPath:
    """The folder above the first sign of a glob."""
    while any(sign in str(path) for sign in "*?["):
        path = path.parent
    return path


# --- remote -------------------------------------------------------------------------------------


def _filesystem(uri: Uri, field: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and what stands before the URI's path in it.

    One that does not answer fails soon.
    """
    if uri.scheme not in _SCHEMES:
        known = ", ".join(f"{s}://" for s in ("file", *_SCHEMES, "hf", "kaggle"))
        raise InputError(
            f"{field}: {uri.shown!r}: nothing here reads {uri.scheme}://; give a path, or one of "
            f"{known}"
        )
    try:
        if uri.scheme == "s3":
            return _impatient_s3(uri), uri.host
        if uri.scheme in ("gs", "gcs"):
            return _impatient_gs(uri), uri.host
        # Without the path: Arrow takes `?` and `#` in it for the start of something else.
        found, base = fs.FileSystem.from_uri(f"{uri.root}/{uri.tail}")
        return found, str(base).rstrip("/")
    except (pa.ArrowException, OSError) as error:
        raise _no_answer(uri, field, error) from None


def _impatient_gs(uri: Uri) -> fs.GcsFileSystem:
    # Arrow's own URIs wait 15 minutes for a network, and longer for a login.
    return fs.GcsFileSystem(
        anonymous=uri.options.get("anonymous") == "true",
        scheme=uri.options.get("scheme", "https"),
        endpoint_override=uri.options.get("endpoint_override"),
        retry_time_limit=timedelta(seconds=_SECONDS),
    )


def _impatient_s3(uri: Uri) -> fs.S3FileSystem:
    # Arrow's own URIs cannot say how long to wait; its default is minutes of retries.
    options = uri.options
    user, _, password = uri.login.partition(":")
    keys: dict[str, Any] = {}
    if user:
        keys = {"access_key": unquote(user), "secret_key": unquote(password)}
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


def _expand_uri(uri: Uri, format: Format | None, field: str) -> list[Place]:
    filesystem, base = _filesystem(uri, field)
    path = (base + uri.path).rstrip("/")
    fixed = _fixed(PurePosixPath(path))
    pattern = any(sign in uri.path for sign in "*?[")
    try:
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:  # also one with glob signs in its name
            return [_place(info, uri, base, field)]
        listed = filesystem.get_file_info(
            fs.FileSelector(str(fixed), recursive=True, allow_not_found=True)
        )
    except (pa.ArrowException, OSError) as error:
        raise _no_answer(uri, field, error) from None
    files = sorted((i for i in listed if i.type == fs.FileType.File), key=lambda i: str(i.path))
    parts = {i.path: PurePosixPath(i.path).relative_to(fixed).parts for i in files}
    if pattern:
        matches = [i for i in files if _glob(path).fullmatch(i.path)]
        found = [i for i in matches if not listing.is_leftover(parts[i.path], path)]
        listing.tell_skipped(uri.shown, [parts[i.path] for i in matches if i not in found])
        roots = {folder for i in found for folder in PurePosixPath(i.path).parents}
        inner = [p for i in files if (p := parts[i.path]) and _log_root(i.path) in roots]
        listing.refuse_tables(inner, uri.shown, field)
    else:
        listing.refuse_tables(parts.values(), uri.shown, field)
        found = [i for i in files if listing.is_data(parts[i.path], format)]
        listing.tell_skipped(uri.shown, [parts[i.path] for i in files if i not in found])
    if not found:
        raise InputError(
            f"{field}: {uri.shown!r}: no such file, and no matching file below it ({KNOWN_NAMES}); "
            "check the bucket and the path, or set the source's format"
        )
    return [_place(info, uri, base, field) for info in found]


def _log_root(path: str) -> PurePosixPath | None:
    """The folder of the Delta table whose log a file belongs to."""
    folder = PurePosixPath(path).parent
    return folder.parent if folder.name == "_delta_log" else None


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


def _place(info: fs.FileInfo, uri: Uri, base: str, field: str) -> Place:
    """A listed file under the scheme, login and options of the URI that led to it."""
    path = info.path.removeprefix(base)
    return Place(f"{uri.root}{path}{uri.tail}", info.size, info.mtime_ns, field)


def _no_answer(uri: Uri, field: str, error: BaseException) -> InputError:
    problem = one_line(error)
    return InputError(
        f"{field}: {uri.shown!r}: cannot be read ({problem}); check the network, the address and "
        "the credentials (for s3:// the AWS_* variables or ~/.aws, for gs:// "
        "GOOGLE_APPLICATION_CREDENTIALS)"
    )
