"""Locations of files: local paths, and URIs of file systems that Arrow supports."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from finsent.data.config import Format
from finsent.data.readers.messages import first_line
from finsent.data.sources.folder_listing import (
    is_data,
    is_leftover,
    log_skipped,
    match,
    refuse_dead_links,
    refuse_tables,
    walk,
)
from finsent.data.sources.format_detection import KNOWN_NAMES
from finsent.data.sources.uris import Uri, parse
from finsent.errors import InputError

_TIMEOUT_SECONDS = 10.0  # of an object store
_SCHEMES = ("s3", "gs", "gcs", "hdfs", "abfs", "abfss")
_PACKAGED = "package"  # scheme of files of this package
_GLOB_SIGNS = "*?["


@dataclass(frozen=True)
class Location:
    """The location of one file, which can cross processes: a reader opens the file itself."""

    uri: str  # an absolute local path, or a URI
    size: int  # bytes
    mtime_ns: int | None  # None: the time does not show a change
    field: str = "data.sources"  # the setting that names it

    @property
    def shown(self) -> str:
        """Return the URI without credentials and options, for messages and manifests."""
        uri = parse(self.uri)
        return self.uri if uri is None else uri.shown

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.parts[-1]

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the parts of the path, after the bucket of an object store."""
        uri = parse(self.uri)
        return PurePosixPath(self.uri if uri is None else uri.host + uri.path).parts

    def open(self) -> BinaryIO:
        """Open the file's bytes, from their start.

        Raises:
            OSError: the file is gone or may not be read.
        """
        uri = parse(self.uri)
        if uri is None or uri.scheme == _PACKAGED:
            return _local(self.uri, uri).open("rb")
        filesystem, prefix = _filesystem(uri, self.field)
        return cast(BinaryIO, filesystem.open_input_file(prefix + uri.path))

    def check_unchanged(self) -> None:
        """Refuse a file that has changed since it was found.

        Raises:
            InputError: its size or time has changed.
            OSError: the file is gone.
        """
        uri = parse(self.uri)
        if uri is None or uri.scheme == _PACKAGED:
            stat = _local(self.uri, uri).stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
        else:
            filesystem, prefix = _filesystem(uri, self.field)
            info = filesystem.get_file_info(prefix + uri.path)
            if info.type != fs.FileType.File:
                raise FileNotFoundError(2, "No such file", self.shown)
            size, mtime_ns = info.size, info.mtime_ns
        if size != self.size or (self.mtime_ns is not None and mtime_ns != self.mtime_ns):
            raise InputError(
                f"{self.field}: {self.shown!r} has changed since it was found; run again when it "
                "is complete"
            )


def packaged(path: str, field: str) -> Location:
    """Return a file of this package, wherever the package is installed on the reading machine.

    Its time is that of the installation, so it does not show a change.

    Args:
        path: within the package.
        field: the setting, for messages.
    """
    uri = f"{_PACKAGED}://finsent/{path}"
    return Location(uri, _local(uri, parse(uri)).stat().st_size, None, field)


def _local(path: str, uri: Uri | None) -> Path:
    return Path(path if uri is None else str(resources.files(uri.host)) + uri.path)


def expand(uri: str, format: Format | None, field: str) -> list[Location]:
    """Return the files that a path, directory, glob or URI names, in order.

    Args:
        format: of the files; None: of a directory, the files whose names show a format.
        field: the setting, for messages.

    Raises:
        InputError: no such file exists, it may not be read, or its file system does not answer.
    """
    parts = parse(uri)
    if parts is not None and parts.scheme != "file":
        return _expand_uri(parts, format, field)
    name = uri if parts is None else unquote(parts.path)
    path = Path(os.path.normpath(Path(name).expanduser().absolute()))
    try:
        files = _expand_path(uri, path, format, field)
        stats = [(file, file.stat()) for file in files]
    except OSError as error:
        raise InputError(
            f"{field}: {str(path)!r}: cannot be read ({error.strerror}); allow it, or name another "
            "file"
        ) from None
    return [Location(str(file), stat.st_size, stat.st_mtime_ns, field) for file, stat in stats]


def short_names(locations: list[Location]) -> list[str]:
    """Return the ends of paths, as short as the names stay distinct."""
    for depth in range(1, max((len(location.parts) for location in locations), default=0) + 1):
        names = ["/".join(location.parts[-depth:]) for location in locations]
        if len(set(names)) == len(names):
            return names
    return [location.shown for location in locations]


# --- local --------------------------------------------------------------------------------------


def _expand_path(uri: str, path: Path, format: Format | None, field: str) -> list[Path]:
    if path.is_dir():
        return _expand_folder(uri, path, format, field)
    if path.is_file():
        return [path]
    fixed = _fixed(PurePosixPath(path))
    parts_of = {p: p.relative_to(fixed).parts for p in match(path, Path(fixed))}
    leftovers = {p for p, parts in parts_of.items() if is_leftover(parts, str(path))}
    log_skipped(uri, [parts for p, parts in parts_of.items() if p in leftovers])
    files = [p for p in parts_of if p not in leftovers]
    if not files:
        raise InputError(
            f"{field}: {uri!r}: no such file, directory or match (looked for {str(path)!r}); check "
            "the path, or use 'sample' for the corpus in the package"
        )
    folders = {folder for file in files for folder in file.parents if folder.is_relative_to(fixed)}
    logs = [p.relative_to(fixed).parts for f in folders for p in f.glob("_delta_log/*")]
    refuse_tables(logs, uri, field)
    return files


def _expand_folder(uri: str, path: Path, format: Format | None, field: str) -> list[Path]:
    paths = [*walk(path)]
    refuse_dead_links(paths, field)
    parts_of = {p: p.relative_to(path).parts for p in paths if p.is_file()}
    refuse_tables(parts_of.values(), uri, field)
    skipped = {p for p, parts in parts_of.items() if not is_data(parts, format)}
    log_skipped(uri, [parts for p, parts in parts_of.items() if p in skipped])
    files = [p for p in parts_of if p not in skipped]
    if not files:
        raise InputError(
            f"{field}: {uri!r} is a directory without files of a known format "
            f"({KNOWN_NAMES}); put labeled files there, name another place, or set the "
            "source's format"
        )
    return sorted(files)


def _fixed(path: PurePosixPath) -> PurePosixPath:
    """The folder above the first sign of a glob."""
    while any(sign in str(path) for sign in _GLOB_SIGNS):
        path = path.parent
    return path


# --- remote -------------------------------------------------------------------------------------


def _filesystem(uri: Uri, field: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URI, and the prefix of the URI's path in it.

    Raises:
        InputError: the scheme is unknown, or the file system does not answer within seconds.
    """
    if uri.scheme not in _SCHEMES:
        known = ", ".join(f"{s}://" for s in ("file", *_SCHEMES, "hf", "kaggle"))
        raise InputError(
            f"{field}: {uri.shown!r}: finsent does not read {uri.scheme}://; give a path, or one "
            f"of {known}"
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
        raise _unreachable(uri, field, error) from None


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


def _expand_uri(uri: Uri, format: Format | None, field: str) -> list[Location]:
    filesystem, prefix = _filesystem(uri, field)
    path = (prefix + uri.path).rstrip("/")
    fixed = _fixed(PurePosixPath(path))
    try:
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:  # also a file with glob signs in its name
            return [_location(info, uri, prefix, field)]
        listed = filesystem.get_file_info(
            fs.FileSelector(str(fixed), recursive=True, allow_not_found=True)
        )
    except (pa.ArrowException, OSError) as error:
        raise _unreachable(uri, field, error) from None
    by_path = {str(i.path): i for i in listed if i.type == fs.FileType.File}
    parts_of = {p: PurePosixPath(p).relative_to(fixed).parts for p in sorted(by_path)}
    if any(sign in uri.path for sign in _GLOB_SIGNS):
        candidates = [p for p in parts_of if _glob(path).fullmatch(p)]
        skipped = {p for p in candidates if is_leftover(parts_of[p], path)}
        folders = {f for p in candidates if p not in skipped for f in PurePosixPath(p).parents}
        table_parts = [parts for p, parts in parts_of.items() if _log_root(p) in folders]
    else:
        candidates = [*parts_of]
        skipped = {p for p in candidates if not is_data(parts_of[p], format)}
        table_parts = [*parts_of.values()]
    refuse_tables(table_parts, uri.shown, field)
    log_skipped(uri.shown, [parts_of[p] for p in candidates if p in skipped])
    files = [p for p in candidates if p not in skipped]
    if not files:
        raise InputError(
            f"{field}: {uri.shown!r}: no such file, and no matching file below it ({KNOWN_NAMES}); "
            "check the bucket and the path, or set the source's format"
        )
    return [_location(by_path[p], uri, prefix, field) for p in files]


def _log_root(path: str) -> PurePosixPath | None:
    """Return the folder of the Delta table whose log a file belongs to; None for other files."""
    folder = PurePosixPath(path).parent
    return folder.parent if folder.name == "_delta_log" else None


def _glob(pattern: str) -> re.Pattern[str]:
    """Return a glob as a regular expression: `**/` matches any folders, `*` stays within one."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", pattern)
    return re.compile(
        "".join(
            signs.get(t) or (t.replace("[!", "[^") if t[0] == "[" and len(t) > 1 else re.escape(t))
            for t in tokens
        )
    )


def _location(info: fs.FileInfo, uri: Uri, prefix: str, field: str) -> Location:
    """Return a listed file under the scheme, login and options of the URI that led to it."""
    path = info.path.removeprefix(prefix)
    return Location(f"{uri.root}{path}{uri.tail}", info.size, info.mtime_ns, field)


def _unreachable(uri: Uri, field: str, error: BaseException) -> InputError:
    problem = first_line(error)[:300]
    return InputError(
        f"{field}: {uri.shown!r}: cannot be read ({problem}); check the network, the address and "
        "the credentials (for s3:// the AWS_* variables or ~/.aws, for gs:// "
        "GOOGLE_APPLICATION_CREDENTIALS)"
    )
