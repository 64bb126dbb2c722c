"""One scan over all bytes of a source file: digest, encoding, and how its CSV is quoted."""

from __future__ import annotations

import codecs
import hashlib
from typing import NamedTuple

from finsent.data.config import Format
from finsent.data.readers.csv_dialect import QuoteAudit
from finsent.data.readers.encoding_detection import EncodingDetector
from finsent.data.readers.formats import FORMATS
from finsent.data.readers.layout import DELIMITERS
from finsent.data.sources.decompression import READ_BYTES, decompressed, stored_digest
from finsent.data.sources.locations import Location
from finsent.errors import InputError

_HEAD_BYTES = 64  # enough for Excel's first line `sep=;`


class ByteScan(NamedTuple):
    """Findings of a scan of a file's bytes."""

    sha256: str  # of the file as it is stored
    encoding: str
    head: str  # the decoded beginning of a text
    is_regular: bool  # of a CSV, see `QuoteAudit`


def scan_bytes(
    location: Location,
    where: str,
    format: Format,
    compression: str | None,
    encoding: str,
    delimiter: str | None,
) -> ByteScan:
    """Read a file once, from its first byte to its last.

    Args:
        where: the file, for messages.
        encoding: a codec's name, or `auto`: detect the encoding.
        delimiter: of a CSV; None: the format's default.

    Raises:
        InputError: the file is not text, or not in its encoding.
    """
    if not FORMATS[format].is_text:
        return ByteScan(stored_digest(location), "utf-8", "", True)
    is_csv = FORMATS[format].is_csv
    audit = QuoteAudit(delimiter or DELIMITERS.get(format, ","))
    sha256, head = hashlib.sha256(), b""
    check = EncodingDetector() if encoding == "auto" else _EncodingCheck(encoding, where)
    with decompressed(location, compression) as stream:
        while chunk := stream.read(READ_BYTES):
            head = head or chunk[:_HEAD_BYTES]
            if is_csv:
                audit.feed(chunk)
            if not compression:
                sha256.update(chunk)
            check.feed(chunk)
    encoding = check.result(where)
    return ByteScan(
        sha256=stored_digest(location) if compression else sha256.hexdigest(),
        encoding=encoding,
        head=head.decode(encoding, "ignore"),
        is_regular=audit.result(encoding),
    )


class _EncodingCheck:
    """Checks that all bytes are in the encoding that the settings state."""

    def __init__(self, encoding: str, where: str) -> None:
        self._encoding, self._where = encoding, where
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def feed(self, chunk: bytes) -> None:
        try:
            self._decoder.decode(chunk)
        except UnicodeError as error:
            raise InputError(
                f"data.encoding={self._encoding!r}: {self._where.partition(': ')[2]} is in "
                f"another encoding ({error}). Set data.encoding, or the source's encoding, to the "
                "file's own, e.g. cp1252, or to auto."
            ) from None

    def result(self, where: str) -> str:
        del where
        return self._encoding
