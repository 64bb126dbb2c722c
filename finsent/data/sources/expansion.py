"""Expansion of paths, directories, globs and URIs to the locations of files."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from finsent.data.config import Format
from finsent.data.sources.file_systems import filesystem_of, unreachable
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
from finsent.data.sources.locations import Location
from finsent.errors import InputError
from finsent.uris import Uri, parse

_GLOB_SIGNS = "*?["


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
            f"{field}: {str(path)!r}: cannot be read ({error.strerror}). Allow it, or name another "
            "file."
        ) from None
    return [Location(str(file), stat.st_size, stat.st_mtime_ns, field) for file, stat in stats]


# --- local --------------------------------------------------------------------------------------


def _expand_path(uri: str, path: Path, format: Format | None, field: str) -> list[Path]:
    if path.is_dir():
        return _expand_folder(uri, path, format, field)
    if path.is_file():
        return [path]
    root = _folder_above_glob(PurePosixPath(path))
    parts_of = {p: p.relative_to(root).parts for p in match(path, Path(root))}
    leftovers = {p for p, parts in parts_of.items() if is_leftover(parts, str(path))}
    log_skipped(uri, [parts for p, parts in parts_of.items() if p in leftovers])
    files = [p for p in parts_of if p not in leftovers]
    if not files:
        raise InputError(
            f"{field}: {uri!r}: no such file, directory or match (looked for {str(path)!r}). Check "
            "the path, or use 'sample' for the corpus in the package."
        )
    folders = {folder for file in files for folder in file.parents if folder.is_relative_to(root)}
    logs = [p.relative_to(root).parts for f in folders for p in f.glob("_delta_log/*")]
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
            f"({KNOWN_NAMES}). Put labeled files there, name another place, or set the "
            "source's format."
        )
    return sorted(files)


def _folder_above_glob(path: PurePosixPath) -> PurePosixPath:
    """Return the folder above the first glob sign."""
    while any(sign in str(path) for sign in _GLOB_SIGNS):
        path = path.parent
    return path


# --- remote -------------------------------------------------------------------------------------


def _expand_uri(uri: Uri, format: Format | None, field: str) -> list[Location]:
    filesystem, prefix = filesystem_of(uri, field)
    path = (prefix + uri.path).rstrip("/")
    root = _folder_above_glob(PurePosixPath(path))
    try:
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:  # also a file with glob signs in its name
            return [_location(info, uri, prefix, field)]
        listed = filesystem.get_file_info(
            fs.FileSelector(str(root), recursive=True, allow_not_found=True)
        )
    except (pa.ArrowException, OSError) as error:
        raise unreachable(uri, field, error) from None
    by_path = {str(i.path): i for i in listed if i.type == fs.FileType.File}
    parts_of = {p: PurePosixPath(p).relative_to(root).parts for p in sorted(by_path)}
    if any(sign in uri.path for sign in _GLOB_SIGNS):
        candidates = [p for p in parts_of if _glob(path).fullmatch(p)]
        skipped = {p for p in candidates if is_leftover(parts_of[p], path)}
        folders = {f for p in candidates if p not in skipped for f in PurePosixPath(p).parents}
        table_parts = [parts for p, parts in parts_of.items() if _log_root(p) in folders]
    else:
        candidates = [*parts_of]
        skipped = {p for p in candidates if not is_data(parts_of[p], format)}
        table_parts = [*parts_of.values()]
    refuse_tables(table_parts, uri.redacted, field)
    log_skipped(uri.redacted, [parts_of[p] for p in candidates if p in skipped])
    files = [p for p in candidates if p not in skipped]
    if not files:
        raise InputError(
            f"{field}: {uri.redacted!r}: no such file, and no matching file below it "
            f"({KNOWN_NAMES}). Check the bucket and the path, or set the source's format."
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
