"""The directory of scored files: their names, their records, and locks for their writers."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from pydantic import ValidationError

from finsent.data.config import SourceConfig
from finsent.data.sources.locations import Location
from finsent.data.sources.scored_files import KEY, MANIFEST, records_of, scored_finder
from finsent.data.sources.source_file import SourceFile
from finsent.errors import InputError
from finsent.files import digest, directory_lock, write_json
from finsent.scoring.parts import Parts
from finsent.scoring.records import ScoredFile
from finsent.uris import parse

_PARTS = ".parts"  # directory with the parts of files that are not finished


@dataclass(frozen=True)
class ScoredDir:
    """A directory that `predict` writes."""

    path: Path

    def records(self) -> dict[str, ScoredFile]:
        """Return the record of each scored file, by its path in the directory.

        Raises:
            InputError: the manifest is of something else, or damaged.
        """
        if not (self.path / MANIFEST).is_file():
            return {}
        records = records_of(self.path)
        if records is None:
            raise InputError(
                f"predict.output={str(self.path)!r}: its {MANIFEST} does not list scored files. "
                "Choose another directory."
            )
        try:
            return {name: ScoredFile.model_validate(record) for name, record in records.items()}
        except ValidationError as error:
            problem = error.errors()[0]
            raise InputError(
                f"{self.path / MANIFEST}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}. "
                "Choose another predict.output."
            ) from None

    def update(self, output: str, record: ScoredFile) -> None:
        """Set one record; records that other processes write meanwhile stay."""
        with directory_lock(self.path, wait=True):
            records = {**self.records(), output: record}
            content = {name: record.model_dump() for name, record in records.items()}
            write_json(self.path / MANIFEST, {KEY: content})

    def finished(self, output: str, identity: str) -> ScoredFile | None:
        """Return the record of a finished file; None: the file must be scored.

        Args:
            identity: digest of all that decides the answers.
        """
        record = self.records().get(output)
        if record is None or not record.finished or record.identity != identity:
            return None
        return record if (self.path / output).is_file() else None

    def check_free(self, output: str, file: SourceFile) -> None:
        """Check that a scored file replaces no file but earlier answers for the same input.

        Raises:
            InputError: the name belongs to another input, or to a file that predict did not write.
        """
        record, setting = self.records().get(output), f"predict.output={str(self.path)!r}"
        blocking = next((p for p in (self.path / output).parents if p.is_file()), None)
        if blocking is not None:
            raise InputError(
                f"{setting}: {output!r} needs a directory where {str(blocking)!r} is a file. "
                "Choose another directory."
            )
        if not (self.path / output).exists():
            return
        if record is None:
            raise InputError(
                f"{setting}: {output!r} exists and was not written by predict. Move it, or choose "
                "another directory."
            )
        if record.input != file.origin:
            raise InputError(
                f"{setting}: {output!r} holds the answers for {record.input!r}, not for "
                f"{file.origin!r}. Choose another directory, or name the input as "
                f"{{uri: ..., name: NAME}}, which scores it into NAME."
            )

    @contextmanager
    def parts(self, output: str) -> Iterator[Parts]:
        """Yield the parts of a file, locked against other processes.

        Raises:
            InputError: another process writes them.
        """
        folder = self.path / _PARTS / digest(output)[:16]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with directory_lock(folder, wait=False) as is_free:
                if not is_free:
                    raise InputError(
                        f"predict.output={str(self.path)!r}: another process scores {output!r} "
                        "now. Wait until that process ends, or choose another directory."
                    )
                yield Parts(folder)
        finally:
            with suppress(OSError):  # this or other files still have parts
                folder.parent.rmdir()


def choose_inputs(output: Path) -> Callable[[SourceConfig, list[Location]], list[Location]]:
    """Return a function that leaves scored files out of the files that an entry names.

    The function raises InputError where no file remains, or where an entry names one file that is
    in `output`.
    """
    is_scored = scored_finder()

    def choose(source: SourceConfig, locations: list[Location]) -> list[Location]:
        scored = {location.uri for location in locations if is_scored(location)}
        is_single = len(locations) == 1 and _root(source, locations[0]) is None
        if is_single:
            if scored and Path(locations[0].uri).is_relative_to(output):
                raise InputError(
                    f"predict.input: {locations[0].redacted!r} was written by predict and is in "
                    "predict.output. Name other files, or another predict.output."
                )
            return locations
        if locations and len(scored) == len(locations):
            raise InputError(
                f"predict.input: {source.uri!r} names only files that predict wrote. Name other "
                "files, or name each of these by itself to score it again."
            )
        return [location for location in locations if location.uri not in scored]

    return choose


# --- names --------------------------------------------------------------------------------------


def output_names(files: list[SourceFile], format: str) -> list[str]:
    """Return the path of each scored file in its directory, independent of the other files.

    The path is the input's path from the working directory, where the input is below the working
    directory. Else the path is from the directory or glob that names the input, and an entry's
    `name` replaces that directory.

    Raises:
        InputError: two files would be scored into one, or one outside the directory.
    """
    names = [f"{_name(file)}.{format}" for file in files]
    counts = Counter(names)
    for file, name in zip(files, names, strict=True):
        if ".." in PurePosixPath(name).parts:  # possible in an object's key, not in a local path
            raise InputError(
                f"predict.input: {file.origin!r} would be scored into {name!r}, outside "
                "predict.output. Name the file as {uri: ..., name: NAME}, which scores it into "
                "NAME."
            )
        if counts[name] > 1:
            origins = [f.origin for f, n in zip(files, names, strict=True) if n == name]
            raise InputError(
                f"predict.input: {', '.join(map(repr, origins[:3]))} would all be scored into "
                f"{name!r}. Give their entries names, e.g. {{uri: {file.origin}, name: NAME}}, or "
                "name a directory or glob that holds them."
            )
    return names


def _name(file: SourceFile) -> str:
    source, location = file.settings, file.location
    if source.uri.startswith(("hf://", "kaggle://")):
        name = _safe(source.name or source.uri.partition("://")[2])
        has_file = source.uri.startswith("hf://") or name.endswith(_safe(location.name))
        return name if has_file else f"{name}/{_safe(location.name)}"
    path, root = _path(location.uri), _root(source, location)
    inner = str(path.relative_to(root or path.parent))
    if source.name:
        return _safe(source.name if root is None else f"{source.name}/{inner}")
    is_local = parse(location.uri) is None
    is_below = is_local and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd())) if is_below else inner


def _path(uri: str) -> PurePosixPath:
    parts = parse(uri)
    return PurePosixPath(uri if parts is None else f"/{parts.path.lstrip('/')}")


def _root(source: SourceConfig, location: Location) -> PurePosixPath | None:
    """Return the directory from which an entry names a file; None: it names the file by itself."""
    path, named, parts = _path(location.uri), _path(source.uri), parse(source.uri)
    if parts is None or parts.scheme == "file":
        local = str(named) if parts is None else unquote(str(named))
        named = PurePosixPath(os.path.normpath(Path(local).expanduser().absolute()))
    if named == path or location.uri.startswith("package://"):
        return None
    while not path.is_relative_to(named):  # a glob
        named = named.parent
    return named


def _safe(name: str) -> str:
    """Return a name as a relative path without characters that a file system or shell refuses."""
    parts = (re.sub(r"[^\w.,=+-]", "_", name_part) for name_part in name.split("/"))
    return "/".join(name_part for name_part in parts if name_part not in ("", ".", ".."))
