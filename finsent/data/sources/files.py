"""The files that a dataset's sources name: found, checked early, and digested."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from finsent.data.config import SAMPLE, DataConfig, SourceConfig
from finsent.data.sources.expansion import expand
from finsent.data.sources.file_inspection import NamedFile, inspect
from finsent.data.sources.format_detection import agreement, detect, is_plain_text
from finsent.data.sources.hubs import fetch
from finsent.data.sources.locations import Location, packaged, short_names
from finsent.data.sources.scored_files import without_scored
from finsent.data.sources.source_file import SourceFile, is_of_hub
from finsent.errors import InputError

log = logging.getLogger(__name__)

_INSPECTION_THREADS = 4  # hashing and reading release the interpreter's lock


class _FileKey(NamedTuple):
    uri: str
    excluded: bool


def find_sources(config: DataConfig, cache: Path) -> list[SourceFile]:
    """Expand `data.sources` and `data.exclude` to files, check each file's head, and digest it.

    Of a directory or glob in `data.sources`, files that predict wrote are left out.

    Args:
        cache: directory for files of hubs, on storage that every machine sees.

    Raises:
        InputError: a source is missing, empty, binary, or lacks a column; or two entries configure
            different readings of one file.
    """
    files: dict[_FileKey, NamedFile] = {}
    for excluded, sources in ((False, config.sources), (True, config.exclude)):
        for source in sources:
            for file in _source_files(source, excluded, cache):
                if _FileKey(file.location.uri, not excluded) in files:
                    raise InputError(
                        f"{file.where} is also in data.sources; a file is trained on or stays "
                        "unseen. Leave it out of one of them."
                    )
                # A file counts once.
                first_file = files.setdefault(_FileKey(file.location.uri, excluded), file)
                _check_same_reading(first_file, file, config)
    named = list(files.values())
    names = _names(named)
    with ThreadPoolExecutor(_INSPECTION_THREADS) as pool:
        inspected = pool.map(lambda file, name: inspect(file, name, config), named, names)
        return _without_lone_agreement(list(inspected))


def find_texts(
    sources: list[SourceConfig],
    config: DataConfig,
    cache: Path,
    field: str,
    choose: Callable[[SourceConfig, list[Location]], list[Location]] = lambda _, locations: (
        locations
    ),
) -> list[SourceFile]:
    """Expand entries to files whose texts need no label, and check each file's head.

    Args:
        cache: directory for files of hubs.
        field: the setting that names the sources, for messages.
        choose: selects from the files that an entry names.

    Raises:
        InputError: a source is missing, empty, binary, or lacks the column of the text.
    """
    files: dict[str, NamedFile] = {}
    for source in sources:
        named = _expand(source, True, cache, field)
        chosen = {location.uri for location in choose(source, [f.location for f in named])}
        for file in named:
            if file.location.uri not in chosen:
                continue
            if source.format is None and is_plain_text(file.location.name):
                file = replace(file, source=_as_text(source))
            first_file = files.setdefault(file.location.uri, file)
            _check_same_reading(first_file, file, config)
    unique = list(files.values())
    names = short_names([file.location for file in unique])
    return [inspect(file, name, config) for file, name in zip(unique, names, strict=True)]


def _as_text(source: SourceConfig) -> SourceConfig:
    """Return an entry for a file with one text per line."""
    # Not validated: `inspect` refuses keys that are for CSV, and names the file.
    return source.model_copy(update={"format": "text"})


def _source_files(source: SourceConfig, excluded: bool, cache: Path) -> list[NamedFile]:
    """Return the files of an entry; of labeled ones, without those that predict wrote."""
    files = _expand(source, excluded, cache, "data.exclude" if excluded else "data.sources")
    if excluded:
        return files
    labeled = without_scored(source.uri, [file.location for file in files])
    return [file for file in files if file.location in labeled]


def _expand(source: SourceConfig, excluded: bool, cache: Path, field: str) -> list[NamedFile]:
    if source.uri == SAMPLE:
        return [NamedFile(packaged("data/sample/sentences.csv", field), source, excluded)]
    if is_of_hub(source):
        fetched = fetch(source, cache, field)
        locations = expand(str(fetched.path), source.format, field)
        return [
            NamedFile(location, source, excluded, fetched.columns, fetched.name)
            for location in locations
        ]
    locations = expand(source.uri, source.format, field)
    # PhraseBank's files contain each other's sentences: the strictest file that has a sentence
    # states its agreement, so it comes first.
    locations.sort(key=lambda location: -(agreement(location.name) or 0))
    return [NamedFile(location, source, excluded) for location in locations]


def _without_lone_agreement(files: list[SourceFile]) -> list[SourceFile]:
    """Return the files without the agreement of a PhraseBank file that has no stricter one.

    Such a file does not show on which of its sentences more annotators agreed.
    """
    shares = {file.agreement for file in files if file.agreement is not None}
    if len(shares) != 1 or shares == {1.0}:
        return files
    names = ", ".join(file.name for file in files if file.agreement is not None)
    log.warning(
        "%s: the column agreement stays empty, as the file does not show on which sentences more "
        "annotators agreed. Name PhraseBank's stricter files, too.",
        names,
    )
    return [replace(file, agreement=None) for file in files]


def _check_same_reading(first: NamedFile, second: NamedFile, config: DataConfig) -> None:
    """Refuse two entries that configure different readings of one file.

    Raises:
        InputError: the entries differ in a setting.
    """
    settings, other_settings = _effective(first, config), _effective(second, config)
    differing = [name for name in settings if settings[name] != other_settings[name]]
    if differing:
        entries = [
            json.dumps(file.source.model_dump(mode="json"), ensure_ascii=False)
            for file in (first, second)
        ]
        raise InputError(
            f"{second.where} is named by two entries that differ in {', '.join(differing)}: "
            f"{entries[0]} and {entries[1]}. Let one of them name it, e.g. by a narrower glob, or "
            "give both the same settings."
        )


def _effective(file: NamedFile, config: DataConfig) -> dict[str, object]:
    """Return the settings of an entry for a file, with the defaults that it inherits."""
    source = file.source
    settings = {name: getattr(source, name) for name in type(source).model_fields if name != "uri"}
    return {
        **settings,
        "format": source.format or detect(file.location.name)[0],
        "encoding": source.encoding or config.encoding,
        "text": source.text or config.text_column,
        "label": source.label or config.label_column,
    }


def _names(files: list[NamedFile]) -> list[str]:
    """Return the values of the column `source`.

    A value is the configured name, or the end of the path, as short as the names stay distinct.
    """
    short = iter(short_names([file.location for file in files if not file.hub_name]))
    configured = [file.source.name for file in files if file.source.name]
    names = []
    for file in files:
        name = file.hub_name or next(short)
        if file.source.name:
            is_unique = configured.count(file.source.name) == 1
            name = file.source.name if is_unique else f"{file.source.name}/{name}"
        names.append(name)
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"data.sources: two sources are named {name!r}. Give each a name of its own."
            )
    return names
