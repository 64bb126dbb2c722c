"""Detection of files that are not plain text, by their first bytes."""

from __future__ import annotations

SIGNATURE_BYTES = 8  # enough for each of the signatures

NO_SIGNATURE = ""  # of a text, or of an Arrow stream
ZIP = "a zip archive or an Excel workbook"
OLD_OFFICE = "an old Office document (e.g. .xls)"
PARQUET = "Parquet"
ARROW = "an Arrow file"

_KINDS = {
    b"PK\x03\x04": ZIP,
    b"%PDF": "a PDF",
    b"PAR1": PARQUET,
    b"\x1f\x8b": "gzip-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"BZh": "bz2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"ARROW1": ARROW,
    b"\xd0\xcf\x11\xe0": OLD_OFFICE,
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"SQLite f": "an SQLite database",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}


def binary_kind(head: bytes) -> str:
    """Return the kind of a file that is not text; `NO_SIGNATURE` for all others.

    Args:
        head: the first `SIGNATURE_BYTES` bytes of the file.
    """
    return next((kind for mark, kind in _KINDS.items() if head.startswith(mark)), NO_SIGNATURE)
