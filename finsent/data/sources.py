"""The files of a dataset's sources: found, checked early, digested, and opened for reading."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

import pyarrow as pa

from finsent.data import formats
from finsent.data.config import SAMPLE, DataConfig, Format, SourceConfig
from finsent.data.encodings import EncodingProbe
from finsent.data.formats import Columns
from finsent.data.places import Place, expand, short_names
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
        hub = self.settings.uri.startswith(("hf://", "kaggle://"))
        return self.settings.uri if hub or self.settings.uri == SAMPLE else self.place.shown

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides the rows that it gives: not where it lies."""
        settings = {
            name: getattr(self.settings, name)
            for name in type(self.settings).model_fields
            if name not in ("uri", "name")
        }
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

    def rows(self, index: int) -> Iterator[pa.Table]:
        """Stream the file's rows: schema `finsent.data.formats.ROWS`, `index` as the source.

        Raises:
            InputError: the file is gone, has changed, or cannot be read.
        """
        where = _where(self.place)
        with _reading(self.place, where), _open(self.place, self.compression) as stream:
            yield from formats.read_rows(
                self.format, stream, index, self.encoding, self.columns, where
            )


def find_sources(config: DataConfig, cache: Path) -> list[SourceFile]:
    """Expand `data.sources` and `data.exclude` to files, check each one's head, and digest it.

    Args:
        cache: directory for what hubs deliver.

    Raises:
        InputError: a source is missing, empty, binary, or lacks a column.
    """
    found: dict[str, _Found] = {}
    for excluded, sources in ((False, config.sources), (True, config.exclude)):
        for source in sources:
            for one in _expand(source, excluded, cache):
                found.setdefault(f"{excluded} {one.place.uri}", one)  # a file counts once
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


def _expand(source: SourceConfig, excluded: bool, cache: Path) -> list[_Found]:
    field = "data.exclude" if excluded else "data.sources"
    if source.uri == SAMPLE:
        sample = str(resources.files("finsent.data.sample") / "sentences.csv")
        return [_Found(place, source, excluded) for place in expand(sample, (), field)]
    if source.uri.startswith(("hf://", "kaggle://")):
        from finsent.data.hubs import fetch

        fetched = fetch(source, cache)
        places = expand(str(fetched.path), (), field)
        return [_Found(place, source, excluded, fetched.columns) for place in places]
    suffixes = [
        suffix + packed for suffix in formats.SUFFIXES for packed in ("", *formats.COMPRESSIONS)
    ]
    return [_Found(place, source, excluded) for place in expand(source.uri, suffixes, field)]


def _names(files: list[_Found]) -> list[str]:
    """What the column `source` says: the given name, or as little of the path as tells apart."""
    short = short_names([one.place for one in files])
    shared = [one.source.name for one in files if one.source.name]
    names = [
        name if not given else (given if shared.count(given) == 1 else f"{given}/{name}")
        for name, given in ((n, one.source.name) for n, one in zip(short, files, strict=True))
    ]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"data.sources: two sources are named {name!r}; give each a name of its own"
            )
    return names


# --- checks -------------------------------------------------------------------------------------

_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"%PDF": "a PDF",
    b"PAR1": "Parquet",
    b"\x1f\x8b": "gzip-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
}


def _survey(found: _Found, name: str, config: DataConfig) -> SourceFile:
    place, source = found.place, found.source
    where = _where(place)
    named, compression = formats.detect(place.name)
    format = source.format or named
    if format is None:
        raise InputError(
            f"{where}: its name does not say its format; set format to one of "
            f"{', '.join(get_args(Format))} for this source"
        )
    declared = source.encoding or config.encoding
    with _reading(place, where):
        _check_magic(place, format, compression, where)
        if format == "parquet":
            sha256, encoding = _digest(place), "utf-8"
        else:
            sha256, encoding = _read_all(place, compression, declared, where)
        columns = _columns(found, format, config)
        with _open(place, compression) as stream:
            there = formats.read_columns(format, stream, encoding, where)
    if there is not None:
        _check_columns(columns, there, where, found)
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
        agreement=formats.agreement(place.name) if format == "phrasebank" else None,
        excluded=found.excluded,
    )


def _check_magic(place: Place, format: Format, compression: str | None, where: str) -> None:
    with place.open() as stream:
        head = stream.read(8)
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
    expected = f"{compression}-compressed" if compression else ""
    if format == "parquet":
        expected = "Parquet"
    if not head:
        raise InputError(f"{where} is empty; it needs labelled rows")
    if found != expected:
        raise InputError(
            f"{where} is {found or 'something else'}, not {_kind(format, compression)}; convert "
            "or rename it, or set the source's format"
        )


def _kind(format: Format, compression: str | None) -> str:
    kind = {"jsonl": "JSON Lines", "parquet": "Parquet", "phrasebank": "PhraseBank text"}.get(
        format, f"a {format.upper()} file"
    )
    return f"{kind} in {compression}" if compression else kind


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
                    f"data.encoding={declared!r}: {place.shown!r} is not in it ({error}); set "
                    "data.encoding, or the source's encoding, to the file's own, e.g. cp1252, or "
                    "to auto"
                ) from None
    encoding = probe.result(where) if decoder is None else declared
    return (_digest(place) if compression else sha256.hexdigest()), encoding


def _columns(found: _Found, format: Format, config: DataConfig) -> Columns:
    source = found.source
    unit = config.split.group_by or config.split.time.column
    if format == "phrasebank":
        if unit is not None and not found.excluded:
            raise InputError(
                f"{_where(found.place)}: PhraseBank files have no column {unit!r}, by which "
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


def _check_columns(columns: Columns, there: list[str], where: str, found: _Found) -> None:
    fields = {
        "text": (columns.text, "text" if found.source.text else "data.text_column"),
        "label": (columns.label, "label" if found.source.label else "data.label_column"),
        "unit": (columns.unit, "data.split.group_by or data.split.time.column"),
    }
    for wanted, field in fields.values():
        if wanted is not None and there.count(wanted) != 1:
            problem = "no such column" if wanted not in there else "stands more than once"
            raise InputError(
                f"{field}={wanted!r}: {problem} in {where}; its columns are "
                f"{', '.join(map(repr, there))[:300]}; set {field} to one of them"
            )


# --- opening ------------------------------------------------------------------------------------


def _where(place: Place) -> str:
    return f"data.sources: {place.shown!r}"


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
