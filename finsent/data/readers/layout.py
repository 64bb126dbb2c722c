"""The layout of a file: all that a reader must know to turn its bytes into records."""

from __future__ import annotations

from dataclasses import dataclass

from finsent.data.config import Format
from finsent.data.readers.csv_dialect import Dialect

DELIMITERS: dict[Format, str] = {"csv": ",", "tsv": "\t"}  # where neither file nor settings say


@dataclass(frozen=True)
class FileLayout:
    """Format, encoding and dialect of one file's decompressed bytes."""

    format: Format
    where: str  # the file, for messages
    encoding: str = "utf-8"
    dialect: Dialect | None = None  # of a CSV or a workbook; None: the format's default
    sheet: str | None = None  # of a workbook; None: the only sheet that has rows

    @property
    def delimiter(self) -> str:
        """Return the delimiter of a CSV or TSV."""
        return DELIMITERS[self.format] if self.dialect is None else self.dialect.delimiter

    @property
    def has_header(self) -> bool:
        """Return whether the first record of a CSV or a workbook names the columns."""
        return self.dialect is None or self.dialect.has_header
