"""Detection of a file's format and compression by its name and its first bytes."""

from __future__ import annotations

import re

from finsent.data.config import Format
from finsent.data.readers.formats import FORMATS
from finsent.data.readers.signatures import ZIP, binary_kind
from finsent.errors import InputError

_FORMAT_OF_SUFFIX: dict[str, Format] = {
    suffix: name for name, format in FORMATS.items() for suffix in format.suffixes
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bz2", ".zip": "zip"}
KNOWN_NAMES = (
    f"{', '.join(_FORMAT_OF_SUFFIX)} or PhraseBank's Sentences_*Agree.txt, plain or with "
    f"{' or '.join(COMPRESSIONS)}"
)
_PHRASEBANK = re.compile(r"^Sentences_(All|\d+)Agree\.txt$")  # Malo et al. 2014, as published


def detect(name: str) -> tuple[Format | None, str | None]:
    """Return format and compression by a file's name; None where the name does not show them."""
    name, compression = _split_compression(name)
    if _PHRASEBANK.match(name):
        return "phrasebank", compression
    _, dot, suffix = name.rpartition(".")
    return _FORMAT_OF_SUFFIX.get(dot + suffix.lower()), compression


def is_plain_text(name: str) -> bool:
    """Return whether a file's name ends in `.txt` and is not one of PhraseBank's."""
    if detect(name)[0] is not None:
        return False
    return _split_compression(name)[0].lower().endswith(".txt")


def agreement(name: str) -> float | None:
    """Return the least share of annotators that agreed on the rows of a PhraseBank file.

    Returns:
        None: the name is not one of PhraseBank's files.
    """
    match = _PHRASEBANK.match(_split_compression(name)[0])
    if match is None:
        return None
    return 1.0 if match[1] == "All" else int(match[1]) / 100


def _split_compression(name: str) -> tuple[str, str | None]:
    compression = None
    for suffix, kind in COMPRESSIONS.items():
        if name.lower().endswith(suffix):
            name, compression = name[: -len(suffix)], kind
    return name, compression


def check_signature(head: bytes, format: Format, compression: str | None, where: str) -> None:
    """Refuse a file whose first bytes contradict its name or settings.

    Args:
        head: its first 8 bytes, as they are stored.
        where: the file, for messages.

    Raises:
        InputError: it is empty or of another kind.
    """
    if not head:
        raise InputError(f"{where} is empty. It needs labeled rows.")
    kind = binary_kind(head)
    if kind not in _expected_kinds(format, compression):
        description = FORMATS[format].description
        expected = f"{description} in {compression}" if compression else description
        raise InputError(
            f"{where} is {kind or 'something else'}, not {expected}. Convert or rename it, or set "
            "the source's format."
        )


def _expected_kinds(format: Format, compression: str | None) -> tuple[str, ...]:
    if compression is None:
        return FORMATS[format].signatures
    return (ZIP,) if compression == "zip" else (f"{compression}-compressed",)
