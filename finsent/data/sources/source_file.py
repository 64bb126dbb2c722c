"""One file of a dataset's sources: its identity, its size and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from finsent.data.config import SAMPLE, Format, SourceConfig
from finsent.data.readers.columns import Columns
from finsent.data.readers.csv_dialect import Dialect
from finsent.data.readers.formats import FORMATS, FileFormat, read_names, read_rows
from finsent.data.readers.layout import FileLayout
from finsent.data.sources.decompression import decompressed, reading
from finsent.data.sources.locations import Location

_UNPACKED_FACTOR = 3  # size as plain text of compressed files and of those with typed columns
# Settings that older versions lack. They are left out of an identity where they have their
# default, so that the ids of old dataset versions stay.
_LATER_SETTINGS = (
    *("delimiter", "header", "quote", "escape", "sheet"),
    *("where", "drop_labels", "bad_bytes", "license"),
)


@dataclass(frozen=True)
class SourceFile:
    """One file of a dataset's sources, and how to read it."""

    name: str  # unique within the dataset; the same on every machine
    location: Location
    settings: SourceConfig  # of the source that the file belongs to
    format: Format
    compression: str | None
    encoding: str
    columns: Columns
    sha256: str
    agreement: float | None = None  # share of annotators that agreed, where the name states it
    excluded: bool = False  # its texts must not be in the dataset
    dialect: Dialect | None = None  # of a CSV, and whether a workbook has a header

    @property
    def bytes(self) -> int:
        """Return the size as stored, compressed or not."""
        return self.location.size

    @property
    def unpacked_bytes(self) -> int:
        """Return about the size that the rows have as plain text."""
        is_packed = self.compression is not None or not self.file_format.is_text
        return self.bytes * (_UNPACKED_FACTOR if is_packed else 1)

    @property
    def origin(self) -> str:
        """Return where the file comes from, for people; without credentials."""
        return origin_of(self.location, self.settings)

    @property
    def identity(self) -> dict[str, object]:
        """Return the JSON of all that decides the file's rows; its location does not."""
        fields = type(self.settings).model_fields
        settings = {
            name: getattr(self.settings, name)
            for name, field in fields.items()
            if name not in ("uri", "name")
            and (
                name not in _LATER_SETTINGS
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
        """Return the setting and the file, for messages."""
        return f"{self.location.field}: {self.origin!r}"

    @property
    def file_format(self) -> FileFormat:
        """Return how files of its format are read."""
        return FORMATS[self.format]

    @property
    def layout(self) -> FileLayout:
        """Return what a reader must know of the file's bytes."""
        return FileLayout(
            format=self.format,
            where=self.where,
            encoding=self.encoding,
            dialect=self.dialect,
            sheet=self.settings.sheet,
        )

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file's bytes, decompressed.

        Raises:
            InputError: the file is gone, has changed, or cannot be read.
        """
        with (
            reading(self.location, self.where),
            decompressed(self.location, self.compression) as stream,
        ):
            yield stream

    def column_names(self) -> list[str] | None:
        """Return the names at the head of the file; None where its format has none.

        Raises:
            InputError: the head is not what the format requires.
        """
        with self.open() as stream:
            return read_names(stream, self.layout)

    def count_rows(self) -> int:
        """Return about the number of records: of most texts, the number of line breaks.

        Raises:
            InputError: the file cannot be read.
        """
        count = self.file_format.count_rows
        if count is None:
            return sum(map(len, self.rows(0)))
        with self.open() as stream:
            return count(stream)

    def rows(self, source: int) -> Iterator[pa.Table]:
        """Yield the file's rows in their order, as tables of `columns.schema`.

        Args:
            source: value of the column `source`.

        Raises:
            InputError: the file is gone, has changed, or cannot be read.
        """
        with self.open() as stream:
            yield from read_rows(stream, self.layout, self.columns, source)


def origin_of(location: Location, source: SourceConfig) -> str:
    """Return where a file comes from, for people; without credentials."""
    return source.uri if source.uri == SAMPLE or is_of_hub(source) else location.redacted


def is_of_hub(source: SourceConfig) -> bool:
    """Return whether a source is a data set of Hugging Face's hub or of Kaggle."""
    return source.uri.startswith(("hf://", "kaggle://"))
