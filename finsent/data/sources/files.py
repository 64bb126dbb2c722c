"""The files of a dataset's sources: found, checked early, digested, and opened for reading."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.config import SAMPLE, DataConfig, Format, SourceConfig
from finsent.data.sources import formats, heads
from finsent.data.sources.contents import CSV, read_contents
from finsent.data.sources.dialect import Dialect, dialect_of
from finsent.data.sources.formats import Columns
from finsent.data.sources.json_records import late_keys
from finsent.data.sources.opening import count_lines, opened, reading, zipped_name
from finsent.data.sources.places import Place, expand, packaged, short_names
from finsent.data.sources.predicted import without_scored
from finsent.data.sources.wanted import present_columns, requested_columns
from finsent.errors import InputError

log = logging.getLogger(__name__)

_SETTINGS_OF: dict[str, tuple[Format, ...]] = {  # the formats that have a use for them
    "delimiter": CSV,
    "quote": CSV,
    "escape": CSV,
    "header": (*CSV, "excel"),
    "sheet": ("excel",),
}
_LATER = (
    *("delimiter", "header", "quote", "escape", "sheet"),
    *("where", "drop_labels", "bad_bytes", "license"),
)


@dataclass(frozen=True)
class SourceFile:
    """One file of a dataset's sources, with all that its reader must know."""

    name: str  # unique within the dataset; the same on every machine
    place: Place
    settings: SourceConfig  # of the source that it belongs to
    format: Format
    compression: str | None
    encoding: str
    columns: Columns
    sha256: str
    agreement: float | None = None  # share of annotators that agreed, where the name says so
    excluded: bool = False  # its texts must not be in the dataset
    dialect: Dialect | None = None  # of a CSV, and whether a workbook has a header

    @property
    def bytes(self) -> int:
        """Size as it lies there, compressed or not."""
        return self.place.size

    @property
    def unpacked_bytes(self) -> int:
        """About what its rows take as plain text: packed ones unfold to three times their size."""
        return self.bytes * (3 if self.compression or self.format in heads.TYPED else 1)

    @property
    def origin(self) -> str:
        """Where it comes from, for people; without credentials."""
        return _origin(self.place, self.settings)

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides the rows that it gives: not where it lies."""
        fields = type(self.settings).model_fields
        settings = {
            name: getattr(self.settings, name)
            for name, field in fields.items()
            if name not in ("uri", "name")
            # A setting that came later says nothing where it is not set: versions keep their ids.
            and (
                name not in _LATER
                or getattr(self.settings, name) != field.get_default(call_default_factory=True)
            )
        }
        if self.columns.given:
            settings["given"] = self.columns.given
        return {
            "name": self.name,
            "sha256": self.sha256,
            "excluded": self.excluded,
            "agreement": self.agreement,
            **settings,
            "format": self.format,
            "encoding": self.encoding,
            "columns": self.columns.names,
        }

    @property
    def where(self) -> str:
        """The setting and the file, for messages."""
        return f"{self.place.field}: {self.origin!r}"

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file's bytes, decompressed.

        Raises:
            InputError: the file is gone, has changed, or cannot be read.
        """
        with reading(self.place, self.where), opened(self.place, self.compression) as stream:
            yield stream

    def column_names(self) -> list[str] | None:
        """The names at the head of the file; None where its format has none.

        Raises:
            InputError: the head is not what the format says.
        """
        with self.open() as stream:
            return formats.read_names(
                self.format, stream, self.encoding, self.where, self.dialect, self.settings.sheet
            )

    def count_rows(self) -> int:
        """How many records there are, about: a text's line breaks count, too.

        Raises:
            InputError: the file cannot be read.
        """
        with reading(self.place, self.where):
            if self.format == "parquet":
                with opened(self.place, self.compression) as stream:
                    return int(pq.ParquetFile(stream).metadata.num_rows)
            if self.format in ("arrow", "excel", "json"):
                return sum(map(len, self.rows(0)))
            with opened(self.place, self.compression) as stream:
                return count_lines(stream)

    def rows(self, index: int) -> Iterator[pa.Table]:
        """Stream the file's rows in their order: schema `columns.schema`, `index` as the source.

        Raises:
            InputError: the file is gone, has changed, or cannot be read.
        """
        with self.open() as stream:
            yield from formats.read_rows(
                self.format,
                stream,
                index,
                self.encoding,
                self.columns,
                self.where,
                dialect=self.dialect,
                sheet=self.settings.sheet,
            )


def find_sources(config: DataConfig, cache: Path) -> list[SourceFile]:
    """Expand `data.sources` and `data.exclude` to files, check each one's head, and digest it.

    Of a directory or glob in `data.sources`, files that predict wrote are left out.

    Args:
        cache: directory for what hubs deliver, on storage that every machine sees.

    Raises:
        InputError: a source is missing, empty, binary, or lacks a column; or two entries want the
            same file read differently.
    """
    found: dict[tuple[str, bool], _Found] = {}
    for excluded, sources in ((False, config.sources), (True, config.exclude)):
        for source in sources:
            named = _expand(source, excluded, cache)
            places = [one.place for one in named]
            left = places if excluded else without_scored(source.uri, places)
            for one in (one for one in named if one.place in left):
                if (one.place.uri, not excluded) in found:
                    raise InputError(
                        f"{one.where} is also in data.sources; a file is learned from or stays "
                        "unseen: leave it out of one of them"
                    )
                first = found.setdefault((one.place.uri, excluded), one)  # a file counts once
                _check_same(first, one, config)
    files = list(found.values())
    names = _names(files)
    with ThreadPoolExecutor(4) as pool:  # hashing and reading release the interpreter's lock
        surveyed = list(pool.map(lambda one, name: _survey(one, name, config), files, names))
    return _with_known_agreement(surveyed)


def _with_known_agreement(files: list[SourceFile]) -> list[SourceFile]:
    """The files; a PhraseBank file alone does not say in how much of it more annotators agreed."""
    shares = {file.agreement for file in files if file.agreement is not None}
    if len(shares) != 1 or shares == {1.0}:
        return files
    names = ", ".join(file.name for file in files if file.agreement is not None)
    log.warning(
        "%s: the column agreement stays empty, as the sentences on which more annotators agreed "
        "are not told from the others; name PhraseBank's stricter files, too",
        names,
    )
    return [replace(file, agreement=None) for file in files]


@dataclass(frozen=True)
class _Found:
    place: Place
    source: SourceConfig
    excluded: bool
    columns: tuple[str, ...] = ()  # where a hub says
    name: str = ""  # where a hub says

    @property
    def where(self) -> str:
        """The file, for messages."""
        return f"{self.place.field}: {_origin(self.place, self.source)!r}"


def _origin(place: Place, source: SourceConfig) -> str:
    return source.uri if source.uri == SAMPLE or _of_hub(source) else place.shown


def _of_hub(source: SourceConfig) -> bool:
    return source.uri.startswith(("hf://", "kaggle://"))


def find_texts(
    sources: list[SourceConfig],
    config: DataConfig,
    cache: Path,
    field: str,
    choose: Callable[[SourceConfig, list[Place]], list[Place]] = lambda _, places: places,
) -> list[SourceFile]:
    """Expand entries to files whose texts need no label, and check each one's head.

    Args:
        field: the setting that names them, for messages.
        choose: which of the files that an entry names are meant.

    Raises:
        InputError: a source is missing, empty, binary, or lacks the column of the text.
    """
    found: dict[str, _Found] = {}
    for source in sources:
        named = _expand(source, True, cache, field)
        chosen = {place.uri for place in choose(source, [one.place for one in named])}
        for one in (one for one in named if one.place.uri in chosen):
            if source.format is None and _is_text(one.place.name):
                one = replace(one, source=_as_text(source))
            _check_same(found.setdefault(one.place.uri, one), one, config)
    files = list(found.values())
    names = short_names([one.place for one in files])
    return [_survey(one, name, config) for one, name in zip(files, names, strict=True)]


def _as_text(source: SourceConfig) -> SourceConfig:
    """Return an entry for a file with one text per line, to which the keys for CSV do not apply."""
    keys = source.model_fields_set & {"delimiter", "escape", "quote"}
    defaults = {key: SourceConfig.model_fields[key].default for key in keys}
    return source.replaced(format="text", **defaults)


def _expand(
    source: SourceConfig, excluded: bool, cache: Path, field: str | None = None
) -> list[_Found]:
    field = field or ("data.exclude" if excluded else "data.sources")
    if source.uri == SAMPLE:
        return [_Found(packaged("data/sample/sentences.csv", field), source, excluded)]
    if _of_hub(source):
        from finsent.data.sources.hubs import fetch

        fetched = fetch(source, cache, field)
        places = expand(str(fetched.path), source.format, field)
        return [_Found(place, source, excluded, fetched.columns, fetched.name) for place in places]
    places = expand(source.uri, source.format, field)
    # PhraseBank's files hold each other's sentences: the first that has one says its agreement.
    places.sort(key=lambda place: -(heads.agreement(place.name) or 0))
    return [_Found(place, source, excluded) for place in places]


def _check_same(first: _Found, again: _Found, config: DataConfig) -> None:
    """One file has one reading.

    Raises:
        InputError: two entries name a file and differ in what they say of it.
    """
    a, b = _effective(first, config), _effective(again, config)
    differ = [name for name in a if a[name] != b[name]]
    if differ:
        entries = [
            json.dumps(found.source.model_dump(mode="json"), ensure_ascii=False)
            for found in (first, again)
        ]
        raise InputError(
            f"{again.where} is named by two entries that differ in {', '.join(differ)}: "
            f"{entries[0]} and {entries[1]}; let one of them name it, e.g. by a narrower glob, or "
            "give both the same settings"
        )


def _effective(found: _Found, config: DataConfig) -> dict[str, Any]:
    """What an entry says of a file, its defaults filled in."""
    source = found.source
    said = {name: getattr(source, name) for name in type(source).model_fields if name != "uri"}
    return {
        **said,
        "format": source.format or heads.detect(found.place.name)[0],
        "encoding": source.encoding or config.encoding,
        "text": source.text or config.text_column,
        "label": source.label or config.label_column,
    }


def _names(files: list[_Found]) -> list[str]:
    """What the column `source` says: the given name, or as little of the path as tells apart."""
    short = iter(short_names([one.place for one in files if not one.name]))
    shared = [one.source.name for one in files if one.source.name]
    names = []
    for one in files:
        name, given = one.name or next(short), one.source.name
        names.append(
            name if not given else given if shared.count(given) == 1 else f"{given}/{name}"
        )
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"data.sources: two sources are named {name!r}; give each a name of its own"
            )
    return names


# --- checks -------------------------------------------------------------------------------------


def _survey(found: _Found, name: str, config: DataConfig) -> SourceFile:
    place, source, where = found.place, found.source, found.where
    with reading(place, where):
        format, compression = _format(found)
        with place.open() as stream:
            heads.check_magic(stream.read(8), format, compression, where)
        declared = source.encoding or config.encoding
        contents = read_contents(place, where, format, compression, declared, source.delimiter)
        columns = requested_columns(source, format, config, found.excluded, found.columns, where)
        dialect = None
        if format in CSV or format == "excel":
            dialect = dialect_of(format, source, contents.head, contents.is_regular)
        with opened(place, compression) as stream:
            there = formats.read_names(
                format, stream, contents.encoding, where, dialect, source.sheet
            )
        missing = [name for name in columns.names if name not in (there or columns.names)]
        if missing and format in ("json", "jsonl"):  # the head's records may all lack a key
            with opened(place, compression) as stream:
                late = late_keys(format, stream, contents.encoding, where, missing)
            there = [*(there or ()), *late]
    return SourceFile(
        name=name,
        place=place,
        settings=source,
        format=format,
        compression=compression,
        encoding=contents.encoding,
        columns=present_columns(columns, there, format, place, source, where),
        sha256=contents.sha256,
        agreement=heads.agreement(place.name) if format == "phrasebank" else None,
        excluded=found.excluded,
        dialect=dialect,
    )


def _format(found: _Found) -> tuple[Format, str | None]:
    """Format and compression by a file's name and its settings.

    Raises:
        InputError: they do not say the format, or contradict each other.
    """
    source, where = found.source, found.where
    named, compression = heads.detect(found.place.name)
    if compression == "zip":
        inner = zipped_name(found.place, where)
        inner_format, packed = heads.detect(inner)
        if packed is not None:
            raise InputError(
                f"{where} holds {inner!r}, which is compressed itself; unpack the archive, and "
                "name the file"
            )
        named = named or inner_format
    format = source.format or named
    if format is None:
        raise InputError(
            f"{where}: its name does not say its format; set format to one of "
            f"{', '.join(get_args(Format))} for this source"
        )
    if compression == "zstd" and format in heads.TYPED:
        raise InputError(
            f"{where} is {format} in zstd, which cannot be read from its end; decompress it first "
            "(zstd -d FILE), and name the result"
        )
    for name, formats_of in _SETTINGS_OF.items():
        value = getattr(source, name)
        if value != SourceConfig.model_fields[name].default and format not in formats_of:
            raise InputError(
                f"{where} is {format}, which has no {name}; leave out {value!r}, or give "
                "the file an entry of its own"
            )
    return format, compression


def _is_text(name: str) -> bool:
    if heads.detect(name)[0] is not None:  # PhraseBank
        return False
    for suffix in heads.COMPRESSIONS:
        name = name.removesuffix(suffix)
    return name.lower().endswith(".txt")
