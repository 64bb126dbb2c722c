"""Normalization of texts to one spelling, and keys that are equal for equal texts.

Most texts are normal already, and one pattern finds that. Arrow's kernels normalize the others.
Only texts with an HTML entity or a trace of mojibake are processed in Python.
"""

from __future__ import annotations

import functools
import hashlib
import html
import html.entities
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finsent.adapters import ftfy

# Patterns for Arrow are in RE2's syntax. A text that does not match `_ABNORMAL` is normal.
_ANY_ENTITY = "&[#0-9A-Za-z]+;"
_ABNORMAL = rf"[^ -~]|  |^ | $|{_ANY_ENTITY}"
_SPACES = r"[\s\x{0b}\x{1c}-\x{1f}\x{85}\p{Z}]+"
_INVISIBLE = r"[\p{Cc}\p{Cf}]+"

# `&amp;amp;` is decoded in one step at any depth. A name counts only with its semicolon.
_ENTITY = re.compile(
    r"&(?:(?P<deep>(?:amp;|AMP;|#0{0,5}38;|#[xX]0{0,4}26;)+)"
    r"|(?P<number>#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9]{1,31};))"
)
_C1 = re.compile(r"[\x80-\x9f]")
_LINE_END = re.compile(r"(?<![^\x00-\x7f])\x85")
# Results of a wrong repair of valid signs (`CAFÉ“`, `Ø£5`): phonetic letters, rare scripts, or a
# single Hebrew or Arabic letter.
_DOUBTFUL = re.compile(
    r"[\u0250-\u02af\u0700-\u08ff]|\A[^\u0590-\u06ff]*[\u0590-\u06ff][^\u0590-\u06ff]*\Z"
)


class Normalized(NamedTuple):
    """Normalized texts, and the numbers of repaired ones."""

    text: pa.Array  # of pa.string()
    mojibake: int  # rows with mojibake
    entities: int  # rows with HTML entities


def is_blank(text: str) -> bool:
    """Return whether `normalize` makes a text empty, e.g. spaces, `&nbsp;` or U+200B."""
    if "!" <= text[:1] <= "~" and text[0] != "&":  # a sign that stays; true for most texts
        return False
    try:
        normalized: str = normalize(pa.array([text], pa.string())).text[0].as_py()
    except UnicodeEncodeError:  # half a surrogate pair is a fault of its own
        return False
    return normalized == ""


def normalize(text: pa.ChunkedArray | pa.Array) -> Normalized:
    """Return texts in NFC, with single spaces, without invisible signs, HTML entities and mojibake.

    The function is idempotent: it repeats its steps until they change nothing. Letters keep their
    case, which people and cased backbones need. Nulls become empty texts.

    An entity needs its semicolon (`&amp;`, `&#8217;`; never `AT&T` or `&notes`) and a name of
    HTML 5 (https://html.spec.whatwg.org/multipage/named-characters.html). ftfy's `fix_encoding`
    (https://ftfy.readthedocs.io) repairs mojibake; see `repair_encoding` for the exceptions.
    """
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    text = pc.fill_null(text.cast(pa.string()), "")
    is_abnormal = pc.match_substring_regex(text, _ABNORMAL)
    values = text.filter(is_abnormal)
    if not len(values):
        return Normalized(text, 0, 0)
    mojibake, entities = np.zeros((2, len(values)), bool)
    rows = np.arange(len(values))
    while len(rows):
        old = values.take(pa.array(rows))
        new, was_mojibake, had_entities = _step(old)
        mojibake[rows[was_mojibake]] = True
        entities[rows[had_entities]] = True
        changed = np.asarray(pc.not_equal(new, old))
        rows, new = rows[changed], new.filter(pa.array(changed))
        has_changed = np.zeros(len(values), bool)
        has_changed[rows] = True
        values = pc.replace_with_mask(values, pa.array(has_changed), new)
    text = pc.replace_with_mask(text, is_abnormal, values)
    return Normalized(text, int(mojibake.sum()), int(entities.sum()))


class _Step(NamedTuple):
    text: pa.Array
    mojibake: list[int]  # positions
    entities: list[int]


def _step(text: pa.Array) -> _Step:
    # Mojibake consists of composed letters, white space and control characters. So NFC comes
    # before its repair, and the removal of spaces and controls after it.
    text = pc.utf8_normalize(text, form="NFC")
    is_suspicious = pc.match_substring_regex(text, _suspicious_pattern())
    mojibake, entities = [], []
    repaired_texts = []
    positions = np.flatnonzero(is_suspicious).tolist()
    for position, value in zip(positions, text.filter(is_suspicious).to_pylist(), strict=True):
        decoded = _ENTITY.sub(_decode_entity, value)
        if decoded != value:
            entities.append(position)
        decoded = _space_for_nel(decoded)
        repaired = decoded if decoded.isascii() else repair_encoding(decoded)
        if repaired != decoded:
            mojibake.append(position)
        repaired_texts.append(repaired)
    if repaired_texts:
        text = pc.replace_with_mask(text, is_suspicious, pa.array(repaired_texts, pa.string()))
    text = pc.replace_substring_regex(text, pattern=_SPACES, replacement=" ")
    text = pc.replace_substring_regex(text, pattern=_INVISIBLE, replacement="")
    return _Step(pc.utf8_trim_whitespace(text), mojibake, entities)


def _decode_entity(entity: re.Match[str]) -> str:
    if entity["deep"]:
        return "&"
    if entity["name"]:
        # Not html.unescape, which reads `&notit;` as `&not` and `it;`.
        return html.entities.html5.get(entity["name"], entity[0])
    char = html.unescape(entity[0])
    return entity[0] if char == "\ufffd" else char  # U+FFFD: the number is not a character


@functools.cache
def _suspicious_pattern() -> str:
    """Return a pattern of texts to examine in Python: those with an entity or a trace of mojibake.

    UTF-8 that was read in another encoding contains a sign that the encoding has for one of the
    bytes C0..F7, which begin a sequence, before a sign for one of 80..BF, which continue it. Text
    of a Windows encoding that was read as Latin-1 contains control characters from 80..9F.
    """

    def characters(first: int, last: int, encoding: str) -> str:
        chars = bytes(range(first, last + 1)).decode(encoding)
        return "".join(rf"\x{{{ord(char):x}}}" for char in chars)

    pairs = [
        rf"[{characters(0xC0, 0xF7, name)}][{characters(0x80, 0xBF, name)}\x{{fffd}}]"
        for name in ftfy.mojibake_encodings()
    ]
    # The space may be a former no-break space: `voilÃ le`, `costÂ 5`.
    return "|".join([_ANY_ENTITY, r"[\x{80}-\x{9f}]", "[a-z.,?!][ÂÃ] ", *pairs])


def _space_for_nel(text: str) -> str:
    """Replace NEL by a space, except where it may be part of mojibake or a Windows ellipsis."""
    return _LINE_END.sub(" ", text) if set(_C1.findall(text)) == {"\x85"} else text


def repair_encoding(text: str) -> str:
    """Undo a decoding in the wrong encoding where that is certain (`Ã¤` -> `ä`), by ftfy.

    A repair is rejected where it makes a letter that financial texts do not have.
    """
    fixed = ftfy.fix_encoding(text)
    if _DOUBTFUL.search(fixed) and not _DOUBTFUL.search(text):
        return text
    return fixed


# --- keys ---------------------------------------------------------------------------------------


def text_keys(text: pa.ChunkedArray | pa.Array) -> pa.FixedSizeBinaryArray:
    """Return the BLAKE2b-128 (RFC 7693) of each text in lower case: equal for duplicates.

    Args:
        text: normalized, without nulls.
    """
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    lowered = pc.utf8_lower(text.cast(pa.string())).cast(pa.binary()).to_pylist()
    new_hash, digests = hashlib.blake2b(digest_size=16).copy, []
    for value in lowered:
        digest = new_hash()  # a copy is faster than a new object
        digest.update(value)
        digests.append(digest.digest())
    buffer = pa.py_buffer(b"".join(digests))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(digests), [None, buffer])


def key64(keys: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint64]:
    """Return the first 8 bytes of each key as a big-endian number; shape (keys,)."""
    first_bytes = np.ascontiguousarray(_bytes_of(keys)[:, :8])
    return first_bytes.view(">u8").reshape(-1).astype(np.uint64)


def hex_keys(keys: pa.ChunkedArray | pa.Array) -> pa.StringArray:
    """Return keys as 32 hex digits each."""
    return _hex(_bytes_of(keys))


def hex_words(words: npt.NDArray[np.uint64]) -> pa.StringArray:
    """Return numbers as 16 hex digits each."""
    return _hex(np.ascontiguousarray(words.astype(">u8")).view(np.uint8).reshape(-1, 8))


def _bytes_of(keys: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint8]:
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    raw = np.frombuffer(keys.buffers()[1] or b"", np.uint8)
    return raw[keys.offset * 16 : (keys.offset + len(keys)) * 16].reshape(-1, 16)


def _hex(raw: npt.NDArray[np.uint8]) -> pa.StringArray:
    """Return bytes, shape (rows, width), as hex digits; one text per row."""
    pairs = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
    ends = np.arange(len(raw) + 1, dtype=np.int32) * (raw.shape[1] * 2)
    return pa.StringArray.from_buffers(len(raw), pa.py_buffer(ends), pa.py_buffer(pairs[raw]))
