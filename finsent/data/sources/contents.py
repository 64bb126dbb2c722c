"""What all bytes of a source file say: its digest, its encoding, and how its CSV is quoted."""

from __future__ import annotations

import codecs
import hashlib
from typing import NamedTuple

from finsent.data.config import Format
from finsent.data.sources import heads
from finsent.data.sources.dialect import QuoteAudit
from finsent.data.sources.encodings import EncodingProbe
from finsent.data.sources.opening import READ_BYTES, digest_of, opened
from finsent.data.sources.places import Place
from finsent.errors import InputError

CSV: tuple[Format, ...] = ("csv", "tsv")
_SIGN_BYTES = 64  # of a head: enough for Excel's `sep=;`


class Contents(NamedTuple):
    """The findings."""

    sha256: str
    encoding: str
    head: str  # the decoded beginning of a CSV
    is_regular: bool  # of a CSV, see `QuoteAudit`


def read_contents(
    place: Place,
    where: str,
    format: Format,
    compression: str | None,
    declared: str,
    delimiter: str | None,
) -> Contents:
    """Read a file once, from its first byte to its last.

    Args:
        where: the file, for messages.
        declared: its encoding; `auto`: by its bytes.
        delimiter: of a CSV; None: the usual one.

    Raises:
        InputError: the file is not text, or not in its encoding.
    """
    if format in heads.TYPED:
        return Contents(digest_of(place), "utf-8", "", True)
    sha256, probe, head = hashlib.sha256(), EncodingProbe(), b""
    audit = QuoteAudit(delimiter or ("\t" if format == "tsv" else ","))
    decoder = None if declared == "auto" else codecs.getincrementaldecoder(declared)()
    with opened(place, compression) as stream:
        while chunk := stream.read(READ_BYTES):
            head = head or chunk[:_SIGN_BYTES]
            if format in CSV:
                audit.feed(chunk)
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
    return Contents(
        sha256=digest_of(place) if compression else sha256.hexdigest(),
        encoding=encoding,
        head=head.decode(encoding, "ignore"),
        is_regular=audit.result(encoding),
    )
