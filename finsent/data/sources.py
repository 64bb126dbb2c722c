"""The files of a dataset's sources: found, checked early, digested, and opened for reading."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data import formats, heads
from finsent.data.config import SAMPLE, DataConfig, Format, SourceConfig
from finsent.data.encodings import EncodingProbe
from finsent.data.formats import Columns
from finsent.data.places import Place, expand, packaged, short_names
from finsent.errors import InputError

_READ_BYTES = 4 << 20


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

    @property
    def bytes(self) -> int:
        """Size as it lies there, compressed or not."""
        return self.place.size

    @property
    def unpacked_bytes(self) -> int:
        """About what its rows take as plain text: packed ones unfold to three times their size."""
        return self.bytes * (3 if self.compression or self.format == "parquet" else 1)

    @property
    def origin(self) -> str:
        """Where it comes from, for people; without credentials."""
        return _origin(self.place, self.settings)

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides the rows that it gives: not where it lies."""
        settings = {
            name: getattr(self.settings, name)
            for name in type(self.settings).model_fields
            if name not in ("uri", "name", "delimiter")
        }
        if self.settings.delimiter is not None:
            settings["delimiter"] = self.settings.delimiter
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
        with _reading(self.place, self.where), _open(self.place, self.compression) as stream:
            yield stream

    def column_names(self) -> list[str] | None:
        """The names at the head of the file; None where its format has none.

        Raises:
            InputError: the head is not what the format says.
        """
        with self.open() as stream:
            return heads.read_columns(
                self.format, stream, self.encoding, self.where, self.settings.delimiter
            )

    def count_rows(self) -> int:
        """How many records there are, about: a text's line breaks count, too.

        Raises:
            InputError: the file cannot be read.
        """
        with _reading(self.place, self.where):
            if self.format == "parquet":
                with self.place.open() as stream:
                    return int(pq.ParquetFile(stream).metadata.num_rows)
            with _open(self.place, self.compression) as stream:
                lines = sum(
                    chunk.count(b"\n") for chunk in iter(lambda: stream.read(_READ_BYTES), b"")
                )
        return lines

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
                self.settings.delimiter,
            )


def find_sources(config: DataConfig, cache: Path) -> list[SourceFile]:
    """Expand `data.sources` and `data.exclude` to files, check each one's head, and digest it.

    Args:
        cache: directory for what hubs deliver, on storage that every machine sees.

    Raises:
        InputError: a source is missing, empty, binary, or lacks a column; or two entries want the
            same file read differently.
    """
    found: dict[tuple[str, bool], _Found] = {}
    for excluded, sources in ((False, config.sources), (True, config.exclude)):
        for source in sources:
            for one in _expand(source, excluded, cache):
                if (one.place.uri, not excluded) in found:
                    raise InputError(
                        f"{one.where} is also in data.sources; a file is learnt from or stays "
                        "unseen: leave it out of one of them"
                    )
                first = found.setdefault((one.place.uri, excluded), one)  # a file counts once
                _check_same(first, one, config)
    files = list(found.values())
    names = _names(files)
    with ThreadPoolExecutor(4) as pool:  # hashing and reading release the interpreter's lock
        return list(pool.map(lambda one, name: _survey(one, name, config), files, names))


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
                one = replace(one, source=source.model_copy(update={"format": "text"}))
            _check_same(found.setdefault(one.place.uri, one), one, config)
    files = list(found.values())
    names = short_names([one.place for one in files])
    return [_survey(one, name, config) for one, name in zip(files, names, strict=True)]


def _expand(
    source: SourceConfig, excluded: bool, cache: Path, field: str | None = None
) -> list[_Found]:
    field = field or ("data.exclude" if excluded else "data.sources")
    if source.uri == SAMPLE:
        return [_Found(packaged("data/sample/sentences.csv", field), source, excluded)]
    if _of_hub(source):
        from finsent.data.hubs import fetch

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
    named, compression = heads.detect(place.name)
    format = source.format or named
    if format is None:
        raise InputError(
            f"{where}: its name does not say its format; set format to one of "
            f"{', '.join(get_args(Format))} for this source"
        )
    if source.delimiter is not None and format not in ("csv", "tsv"):
        raise InputError(
            f"{where} is {format}, which has no delimiter; leave out {source.delimiter!r}, or give "
            "the file an entry of its own"
        )
    declared = source.encoding or config.encoding
    with _reading(place, where):
        with place.open() as stream:
            heads.check_magic(stream.read(8), format, compression, where)
        if format == "parquet":
            sha256, encoding = _digest(place), "utf-8"
        else:
            sha256, encoding = _read_all(place, compression, declared, where)
        columns = _columns(found, format, config)
        with _open(place, compression) as stream:
            there = heads.read_columns(format, stream, encoding, where, source.delimiter)
    if there is not None:
        _check_columns(columns, there, format, found)
        columns = replace(columns, last=there[-1])
    return SourceFile(
        name=name,
        place=place,
        settings=source,
        format=format,
        compression=compression,
        encoding=encoding,
        columns=columns,
        sha256=sha256,
        agreement=heads.agreement(place.name) if format == "phrasebank" else None,
        excluded=found.excluded,
    )


def _is_text(name: str) -> bool:
    if heads.detect(name)[0] is not None:  # PhraseBank
        return False
    for suffix in heads.COMPRESSIONS:
        name = name.removesuffix(suffix)
    return name.lower().endswith(".txt")


def _digest(place: Place) -> str:
    sha256 = hashlib.sha256()
    with place.open() as stream:
        while chunk := stream.read(_READ_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()


def _read_all(place: Place, compression: str | None, declared: str, where: str) -> tuple[str, str]:
    """The digest of a text file's bytes and its encoding, which `auto` takes from all of them."""
    sha256, probe = hashlib.sha256(), EncodingProbe()
    decoder = None if declared == "auto" else codecs.getincrementaldecoder(declared)()
    with _open(place, compression) as stream:
        while chunk := stream.read(_READ_BYTES):
            if not compression:
                sha256.update(chunk)
            if decoder is None:
                probe.feed(chunk)
                continue
            try:
                decoder.decode(chunk)
            except UnicodeError as error:
                raise InputError(
                    f"data.encoding={declared!r}: {where.partition(': ')[2]} is not in it "
                    f"({error}); set data.encoding, or the source's encoding, to the file's own, "
                    "e.g. cp1252, or to auto"
                ) from None
    encoding = probe.result(where) if decoder is None else declared
    return (_digest(place) if compression else sha256.hexdigest()), encoding


def _columns(found: _Found, format: Format, config: DataConfig) -> Columns:
    source = found.source
    unit = config.split.group_by or config.split.time.column
    if format == "text":
        if not found.excluded:
            raise InputError(
                f"{found.where} is text without labels; name a file that has a column of them"
            )
        return Columns("text", None, None)
    if format == "phrasebank":
        if unit is not None and not found.excluded:
            raise InputError(
                f"{found.where}: PhraseBank files have no column {unit!r}, by which "
                "data.split divides the rows; leave the file out, or split by text"
            )
        return Columns("sentence", None if found.excluded else "label", None)
    text, label = config.text_column, config.label_column
    if found.columns:
        from finsent.data.hubs import LABEL_NAMES, TEXT_NAMES, usual

        text = usual(found.columns, text, TEXT_NAMES)
        label = usual(found.columns, label, LABEL_NAMES)
    label = source.label or label
    return Columns(
        text=source.text or text,
        label=None if found.excluded else label,
        unit=None if found.excluded else unit,
    )


def _check_columns(columns: Columns, there: list[str], format: Format, found: _Found) -> None:
    where, shown, source = found.where, ", ".join(map(repr, there))[:300], found.source
    fields = {
        "text": (columns.text, "text" if source.text else "data.text_column"),
        "label": (columns.label, "label" if source.label else "data.label_column"),
        "unit": (columns.unit, "data.split.group_by or data.split.time.column"),
    }
    for key, (wanted, field) in fields.items():
        if wanted is None or there.count(wanted) == 1:
            continue
        remedy = field if key == "unit" else f"{key} for this source"
        if wanted in there:
            raise InputError(
                f"{field}={wanted!r}: {there.count(wanted)} columns of {where} have this name; "
                f"rename all but one in the file, or set {remedy} to another of {shown}"
            )
        raise InputError(
            f"{field}={wanted!r}: no such column in {where}; its columns are {shown}; "
            f"{heads.column_remedy(wanted, there, format, remedy)}"
        )
    if columns.text == columns.label:
        raise InputError(
            f"{where}: text and label are both the column {columns.text!r}; name two columns"
        )


# --- opening ------------------------------------------------------------------------------------


@contextmanager
def _reading(place: Place, where: str) -> Iterator[None]:
    """What can go wrong while a file is read, as one line for its owner."""
    try:
        place.check_unchanged()
        yield
        place.check_unchanged()
    except EOFError as error:
        raise InputError(f"{where} is cut off ({error}); fetch or make it again") from None
    except UnicodeError as error:
        raise InputError(
            f"{where}: its bytes are not in its encoding ({error}); set data.encoding, or the "
            "source's encoding, to the file's own, e.g. cp1252"
        ) from None
    except pa.ArrowException as error:
        raise InputError(f"{where} is damaged ({_short(error)}); fetch or make it again") from None
    except OSError as error:
        if error.strerror is None:  # not from the system: what unpacks it gave up
            raise InputError(
                f"{where} is damaged or cut off ({_short(error)}); fetch or make it again"
            ) from None
        raise InputError(
            f"{where}: cannot be read ({error.strerror}); mend or allow it, or name another file"
        ) from None


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def _open(place: Place, compression: str | None) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed."""
    with place.open() as raw:
        if compression is None:
            yield raw
        elif compression == "gzip":
            import gzip

            # Not Arrow's: it takes a cut-off file for a whole one.
            with gzip.open(raw) as stream:
                yield cast(BinaryIO, stream)
        else:
            with pa.CompressedInputStream(raw, compression) as stream:
                yield cast(BinaryIO, stream)
