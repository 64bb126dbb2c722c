"""A hash chain over records: a later change of a record is found and located.

Each link is the SHA-256 of the link before and of the record's digest. The chain contains digests
only, so a log can drop a record, keep its digest, and still be verified.

The chain has no key: a person who can rewrite every link can also forge the chain. Keep a copy of
the newest link elsewhere to exclude that.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from finsent.files import digest
from finsent.records import JsonObject

START = "0" * 64  # the link before the first record


class HashChain:
    """The newest link of a chain, to which records are appended."""

    def __init__(self, head: str = START) -> None:
        """Continue a chain after a link.

        Args:
            head: the newest link.
        """
        self.head = head

    def append(self, record: JsonObject) -> str:
        """Append a record and return its link."""
        return self.append_digest(digest(record))

    def append_digest(self, record_digest: str) -> str:
        """Append a record of which only the SHA-256 of its canonical JSON is known."""
        self.head = sha256(f"{self.head}{record_digest}".encode()).hexdigest()
        return self.head


def first_tampered(records: Iterable[tuple[JsonObject, str]], previous: str = START) -> int | None:
    """Return the position of the first record that does not match its link; None: all match.

    A changed, inserted or reordered record is at this position. A deleted record was before it.
    A deletion of the newest records is not found: compare the last link with a stored one.

    Args:
        records: each record and its stored link.
        previous: the link before the first record.
    """
    chain = HashChain(previous)
    for position, (record, link) in enumerate(records):
        if chain.append(record) != link:
            return position
    return None
