"""Early check of a file: format, encoding and columns, before any job starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from finsent.data.config import DataConfig, Format, SourceConfig
from finsent.data.readers.csv_dialect import dialect_of
from finsent.data.readers.formats import FORMATS, read_names
from finsent.data.readers.json_values import late_keys
from finsent.data.readers.layout import FileLayout
from finsent.data.readers.signatures import SIGNATURE_BYTES
from finsent.data.sources.byte_scan import scan_bytes
from finsent.data.sources.column_selection import present_columns, requested_columns
from finsent.data.sources.decompression import decompressed, reading, zipped_name
from finsent.data.sources.format_detection import agreement, check_signature, detect
from finsent.data.sources.locations import Location
from finsent.data.sources.source_file import SourceFile, origin_of
from finsent.errors import InputError

_FORMAT_SETTINGS = ("delimiter", "quote", "escape", "header", "sheet")  # of few formats each


@dataclass(frozen=True)
class NamedFile:
    """A file that an entry of `data.sources`, `data.exclude` or another setting names."""

    location: Location
    source: SourceConfig
    excluded: bool
    hub_columns: tuple[str, ...] = ()  # columns of a hub's data set; empty: not known
    hub_name: str = ""  # of a hub's data set

    @property
    def where(self) -> str:
        """Return the setting and the file, for messages."""
        return f"{self.location.field}: {origin_of(self.location, self.source)!r}"


def inspect(file: NamedFile, name: str, config: DataConfig) -> SourceFile:
    """Check a file, and return it with all that its reader must know.

    Args:
        name: of the file within the dataset.

    Raises:
        InputError: the file is unreadable, of another format or encoding, or lacks a column.
    """
    location, source, where = file.location, file.source, file.where
    with reading(location, where):
        format, compression = _format_of(file)
        with location.open() as stream:
            check_signature(stream.read(SIGNATURE_BYTES), format, compression, where)
        encoding = source.encoding or config.encoding
        scan = scan_bytes(location, where, format, compression, encoding, source.delimiter)
        columns = requested_columns(source, format, config, file.excluded, file.hub_columns, where)
        dialect = None
        if "header" in FORMATS[format].settings:
            dialect = dialect_of(format, source, scan.head, scan.is_regular)
        layout = FileLayout(format, where, scan.encoding, dialect, source.sheet)
        names = _column_names(location, compression, layout, columns.names)
    return SourceFile(
        name=name,
        location=location,
        settings=source,
        format=format,
        compression=compression,
        encoding=scan.encoding,
        columns=present_columns(columns, names, format, location, source, where),
        sha256=scan.sha256,
        agreement=agreement(location.name) if format == "phrasebank" else None,
        excluded=file.excluded,
        dialect=dialect,
    )


def _column_names(
    location: Location, compression: str | None, layout: FileLayout, requested: list[str]
) -> list[str] | None:
    """Return the names at the head of a file, and of JSON requested keys that come up later."""
    with decompressed(location, compression) as stream:
        names = read_names(stream, layout)
    read_objects = FORMATS[layout.format].read_objects
    missing = [name for name in requested if names is not None and name not in names]
    if names is None or read_objects is None or not missing:
        return names
    with decompressed(location, compression) as stream:
        return [*names, *late_keys(read_objects(stream, layout), missing)]


def _format_of(file: NamedFile) -> tuple[Format, str | None]:
    """Return format and compression by a file's name and its settings.

    Raises:
        InputError: they do not state the format, or contradict each other.
    """
    source, where = file.source, file.where
    named, compression = detect(file.location.name)
    if compression == "zip":
        inner_name = zipped_name(file.location, where)
        inner_format, inner_compression = detect(inner_name)
        if inner_compression is not None:
            raise InputError(
                f"{where} holds {inner_name!r}, which is compressed itself. Unpack the archive, "
                "and name the file."
            )
        named = named or inner_format
    format = source.format or named
    if format is None:
        raise InputError(
            f"{where}: its name does not show its format. Set format to one of "
            f"{', '.join(get_args(Format))} for this source."
        )
    if compression == "zstd" and not FORMATS[format].is_text:
        raise InputError(
            f"{where} is {format} in zstd: {format} is read from its end, and zstd only from its "
            "beginning. Decompress it first (zstd -d FILE), and name the result."
        )
    for setting in _FORMAT_SETTINGS:
        value = getattr(source, setting)
        is_set = value != SourceConfig.model_fields[setting].default
        if is_set and setting not in FORMATS[format].settings:
            raise InputError(
                f"{where} is {format}, which has no {setting}. Leave out {value!r}, or give "
                "the file an entry of its own."
            )
    return format, compression
