"""The directory of scored files: their names, what each holds, and who may write it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from finsent.data.config import SourceConfig
from finsent.data.sources.locations import Location
from finsent.data.sources.scored_files import KEY, MANIFEST, records_of, scored_finder
from finsent.data.sources.source_file import SourceFile
from finsent.data.uris import parse
from finsent.errors import InputError
from finsent.files import digest, directory_lock, write_json
from finsent.scoring.parts import Parts

_PARTS = ".parts"  # holds the parts of files that are not finished

Record = dict[str, Any]


@dataclass(frozen=True)
class ScoredDir:
    """A directory that `predict` writes."""

    path: Path

    def records(self) -> dict[str, Record]:
        """Return what is known of each scored file, by its path in the directory.

        A record has the keys input, identity, backend, finished, and when it is finished rows,
        labels and faults.

        Raises:
            InputError: the manifest is of something else.
        """
        if not (self.path / MANIFEST).is_file():
            return {}
        records = records_of(self.path)
        if records is None:
            raise InputError(
                f"predict.output={str(self.path)!r}: its {MANIFEST} does not list scored files. "
                "Choose another directory."
            )
        return records

    def update(self, output: str, record: Record) -> None:
        """Set one record; those that other processes write meanwhile stay."""
        with directory_lock(self.path, wait=True):
            write_json(self.path / MANIFEST, {KEY: {**self.records(), output: record}})

    def finished(self, output: str, identity: str) -> Record | None:
        """Return the record of a file that need not be scored again.

        Args:
            identity: of all that decides the answers.
        """
        record = self.records().get(output)
        is_done = record and record["finished"] and record["identity"] == identity
        return record if is_done and (self.path / output).is_file() else None

    def check_free(self, output: str, file: SourceFile) -> None:
        """Refuse to replace what does not hold the answers for this file.

        Raises:
            InputError: the name belongs to another input, or to a file that predict did not write.
        """
        record, where = self.records().get(output), f"predict.output={str(self.path)!r}"
        blocked = next((p for p in (self.path / output).parents if p.is_file()), None)
        if blocked is not None:
            raise InputError(
                f"{where}: {output!r} needs a directory where {str(blocked)!r} is a file. Choose "
                "another directory."
            )
        if not (self.path / output).exists():
            return
        if record is None:
            raise InputError(
                f"{where}: {output!r} exists and was not written by predict. Move it, or choose "
                "another directory."
            )
        if record["input"] != file.origin:
            raise InputError(
                f"{where}: {output!r} holds the answers for {record['input']!r}, not for "
                f"{file.origin!r}. Choose another directory, or name the input as "
                f"{{uri: ..., name: NAME}}, which scores it into NAME."
            )

    @contextmanager
    def parts(self, output: str) -> Iterator[Parts]:
        """Yield the parts of a file, which no other process may write meanwhile.

        Raises:
            InputError: another process writes them.
        """
        folder = self.path / _PARTS / digest(output)[:16]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with directory_lock(folder, wait=False) as is_free:
                if not is_free:
                    raise InputError(
                        f"predict.output={str(self.path)!r}: another process scores {output!r} at "
                        "this moment. Wait until it ends, or choose another directory."
                    )
                yield Parts(folder)
        finally:
            with suppress(OSError):  # this file or others have parts, too
                folder.parent.rmdir()


def choose_inputs(output: Path) -> Any:
    """Return a function that leaves scored files out of the files that an entry names.

    It raises InputError where nothing remains, or where one file is named that is in `output`.
    """
    is_scored = scored_finder()

    def choose(source: SourceConfig, places: list[Location]) -> list[Location]:
        scored = {place.uri for place in places if is_scored(place)}
        if len(places) == 1 and _root(source, places[0]) is None:  # named by itself
            if scored and Path(places[0].uri).is_relative_to(output):
                raise InputError(
                    f"predict.input: {places[0].redacted!r} was written by predict and is in "
                    "predict.output. Name other files, or another predict.output."
                )
            return places
        if places and len(scored) == len(places):
            raise InputError(
                f"predict.input: {source.uri!r} names only files that predict wrote. Name other "
                "files, or name each of these by itself to score it again."
            )
        return [place for place in places if place.uri not in scored]

    return choose


# --- names --------------------------------------------------------------------------------------


def output_names(files: list[SourceFile], format: str) -> list[str]:
    """Return the path of each scored file in its directory, whatever else is scored.

    The path is that of the input: from the working directory where it is below it, else from the
    directory or glob that names the input. An entry's `name` takes the place of the directory.

    Raises:
        InputError: two files would be scored into one, or one outside the directory.
    """
    names = [f"{_name(file)}.{format}" for file in files]
    counts = Counter(names)
    for file, name in zip(files, names, strict=True):
        if ".." in PurePosixPath(name).parts:  # an object's key may hold it, a local path does not
            raise InputError(
                f"predict.input: {file.origin!r} would be scored into {name!r}, outside "
                "predict.output. Name the file as {uri: ..., name: NAME}, which scores it into "
                "NAME."
            )
        if counts[name] > 1:
            others = [f.origin for f, n in zip(files, names, strict=True) if n == name]
            raise InputError(
                f"predict.input: {', '.join(map(repr, others[:3]))} would all be scored into "
                f"{name!r}. Give their entries names, e.g. {{uri: {file.origin}, name: NAME}}, or "
                "name a directory or glob that holds them."
            )
    return names


def _name(file: SourceFile) -> str:
    source, place = file.settings, file.location
    if source.uri.startswith(("hf://", "kaggle://")):
        name = _safe(source.name or source.uri.partition("://")[2])
        has_file = source.uri.startswith("hf://") or name.endswith(_safe(place.name))
        return name if has_file else f"{name}/{_safe(place.name)}"
    path, root = _path(place.uri), _root(source, place)
    inner = str(path.relative_to(root or path.parent))
    if source.name:
        return _safe(source.name if root is None else f"{source.name}/{inner}")
    is_local = parse(place.uri) is None
    return str(path.relative_to(Path.cwd())) if is_local and _is_here(path) else inner


def _is_here(path: PurePosixPath) -> bool:
    return path.is_relative_to(Path.cwd())


def _path(uri: str) -> PurePosixPath:
    parts = parse(uri)
    return PurePosixPath(uri if parts is None else f"/{parts.path.lstrip('/')}")


def _root(source: SourceConfig, place: Location) -> PurePosixPath | None:
    """Return the directory from which an entry names a file; None: it names the file by itself."""
    path, named, parts = _path(place.uri), _path(source.uri), parse(source.uri)
    if parts is None or parts.scheme == "file":
        local = str(named) if parts is None else unquote(str(named))
        named = PurePosixPath(os.path.normpath(Path(local).expanduser().absolute()))
    if named == path or place.uri.startswith("package://"):
        return None
    while not path.is_relative_to(named):  # a glob
        named = named.parent
    return named


def _safe(name: str) -> str:
    """Return a name as a relative path: no sign that a file system or shell may mind."""
    parts = (re.sub(r"[^\w.,=+-]", "_", part) for part in name.split("/"))
    return "/".join(part for part in parts if part not in ("", ".", ".."))
