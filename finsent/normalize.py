"""One spelling for texts that look alike, and the keys by which equal ones meet.

Most texts need nothing and are only looked at. The rest go through Arrow's kernels, and through
Python only where an HTML entity or a trace of mojibake shows.
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

# Patterns for Arrow are in RE2's syntax. A text without any of `_ODD` is as it should be.
_ANY_ENTITY = "&[#0-9A-Za-z]+;"
_ODD = rf"[^ -~]|  |^ | $|{_ANY_ENTITY}"
_SPACES = r"[\s\x{0b}\x{1c}-\x{1f}\x{85}\p{Z}]+"
_UNSEEN = r"[\p{Cc}\p{Cf}]+"

# `&amp;amp;` and the like are one step however deep; only names that HTML gives a semicolon count.
_ENTITY = re.compile(
    r"&(?:(?P<deep>(?:amp;|AMP;|#0{0,5}38;|#[xX]0{0,4}26;)+)"
    r"|(?P<number>#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9]{1,31};))"
)
_C1 = re.compile(r"[\x80-\x9f]")
_LINE_END = re.compile(r"(?<![^\x00-\x7f])\x85")
# What a wrong repair makes of true signs (`CAFÉ“`, `Ø£5`): phonetic letters, rare scripts, or one
# Hebrew or Arabic letter alone.
_DOUBTFUL = re.compile(
    r"[\u0250-\u02af\u0700-\u08ff]|\A[^\u0590-\u06ff]*[\u0590-\u06ff][^\u0590-\u06ff]*\Z"
)


class Normalized(NamedTuple):
    """Texts, and in how many of them something was repaired."""

    text: pa.Array  # of pa.string()
    mojibake: int  # rows
    entities: int  # rows


def is_blank(text: str) -> bool:
    """Return whether `normalize` leaves nothing of a text, e.g. of spaces, `&nbsp;` or U+200B."""
    if "!" <= text[:1] <= "~" and text[0] != "&":  # a sign that stays: most texts cost no more
        return False
    try:
        left: str = normalize(pa.array([text], pa.string())).text[0].as_py()
    except UnicodeEncodeError:  # half a surrogate pair is a fault of its own
        return False
    return left == ""


def normalize(text: pa.ChunkedArray | pa.Array) -> Normalized:
    """NFC, single spaces, no control or invisible signs, no HTML entities, no mojibake.

    Idempotent: the steps are repeated until they change nothing. Letters keep their case: readers
    of the data want it, and cased backbones too. Nulls become empty texts.

    Entities need their semicolon (`&amp;`, `&#8217;`; never `AT&T` or `&notes`) and a name of
    HTML 5 (https://html.spec.whatwg.org/multipage/named-characters.html). Mojibake is found and
    repaired by ftfy's `fix_encoding` (https://ftfy.readthedocs.io), less its guesses: see
    `repair_encoding`.
    """
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    text = pc.fill_null(text.cast(pa.string()), "")
    odd = pc.match_substring_regex(text, _ODD)
    values = text.filter(odd)
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
        here = np.zeros(len(values), bool)
        here[rows] = True
        values = pc.replace_with_mask(values, pa.array(here), new)
    text = pc.replace_with_mask(text, odd, values)
    return Normalized(text, int(mojibake.sum()), int(entities.sum()))


class _Step(NamedTuple):
    text: pa.Array
    mojibake: list[int]  # positions
    entities: list[int]


def _step(text: pa.Array) -> _Step:
    # Mojibake is a matter of composed letters, of white space and of controls: NFC goes before
    # its repair, the others after it.
    text = pc.utf8_normalize(text, form="NFC")
    suspicious = pc.match_substring_regex(text, _suspicious())
    mojibake, entities = [], []
    repaired = []
    places = np.flatnonzero(suspicious).tolist()
    for place, value in zip(places, text.filter(suspicious).to_pylist(), strict=True):
        plain = _ENTITY.sub(_decode_entity, value)
        if plain != value:
            entities.append(place)
        plain = _line_ends(plain)
        fixed = plain if plain.isascii() else repair_encoding(plain)
        if fixed != plain:
            mojibake.append(place)
        repaired.append(fixed)
    if repaired:
        text = pc.replace_with_mask(text, suspicious, pa.array(repaired, pa.string()))
    text = pc.replace_substring_regex(text, pattern=_SPACES, replacement=" ")
    text = pc.replace_substring_regex(text, pattern=_UNSEEN, replacement="")
    return _Step(pc.utf8_trim_whitespace(text), mojibake, entities)


def _decode_entity(found: re.Match[str]) -> str:
    if found["deep"]:
        return "&"
    if found["name"]:
        # Not html.unescape, which reads `&notit;` as `&not` and `it;`.
        return html.entities.html5.get(found["name"], found[0])
    char = html.unescape(found[0])
    return found[0] if char == "\ufffd" else char  # a number that is no character


@functools.cache
def _suspicious() -> str:
    """What a text must have to be worth the slow look: an entity or a trace of mojibake.

    UTF-8 read in another encoding shows one of the signs that the encoding gives to the bytes
    C0..F7, which begin a sequence, next to one that it gives to 80..BF, which go on with it. Text
    of a Windows encoding read as Latin-1 shows controls from 80..9F.
    """
    from ftfy.chardata import CHARMAP_ENCODINGS  # also makes its codecs known

    def signs(first: int, last: int, encoding: str) -> str:
        chars = bytes(range(first, last + 1)).decode(encoding)
        return "".join(rf"\x{{{ord(char):x}}}" for char in chars)

    pairs = [
        rf"[{signs(0xC0, 0xF7, name)}][{signs(0x80, 0xBF, name)}\x{{fffd}}]"
        for name in CHARMAP_ENCODINGS
    ]
    # A space may have been a no-break space: `voilÃ le`, `costÂ 5`.
    return "|".join([_ANY_ENTITY, r"[\x{80}-\x{9f}]", "[a-z.,?!][ÂÃ] ", *pairs])


def _line_ends(text: str) -> str:
    """NEL as white space, where it can be no part of mojibake and no Windows ellipsis."""
    return _LINE_END.sub(" ", text) if set(_C1.findall(text)) == {"\x85"} else text


def repair_encoding(text: str) -> str:
    """Undo a decoding in the wrong encoding where that is certain (`Ã¤` -> `ä`), by ftfy.

    Not taken for mojibake: what would become a letter that such texts do not have.
    """
    from ftfy import TextFixerConfig, fix_encoding

    # What is lost is looked for only where its sign is: not in `Ã?`.
    config = TextFixerConfig(replace_lossy_sequences="\ufffd" in text, explain=False)
    fixed = fix_encoding(text, config)
    if _DOUBTFUL.search(fixed) and not _DOUBTFUL.search(text):
        return text
    return fixed


# --- keys ---------------------------------------------------------------------------------------


def text_keys(text: pa.ChunkedArray | pa.Array) -> pa.FixedSizeBinaryArray:
    """BLAKE2b-128 (RFC 7693) of each text in lower case: equal for duplicates.

    Args:
        text: normalized, without nulls.
    """
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    lowered = pc.utf8_lower(text.cast(pa.string())).cast(pa.binary()).to_pylist()
    new, digests = hashlib.blake2b(digest_size=16).copy, []
    for value in lowered:
        digest = new()  # a copy costs less than new parameters
        digest.update(value)
        digests.append(digest.digest())
    buffer = pa.py_buffer(b"".join(digests))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(digests), [None, buffer])


def key64(keys: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each key, the highest first, as a number; shape (keys,)."""
    first = np.ascontiguousarray(_bytes_of(keys)[:, :8])
    return first.view(">u8").reshape(-1).astype(np.uint64)


def hex_keys(keys: pa.ChunkedArray | pa.Array) -> pa.StringArray:
    """Keys as 32 hex digits."""
    return _hex(_bytes_of(keys))


def hex_words(words: npt.NDArray[np.uint64]) -> pa.StringArray:
    """Numbers as 16 hex digits."""
    return _hex(np.ascontiguousarray(words.astype(">u8")).view(np.uint8).reshape(-1, 8))


def _bytes_of(keys: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint8]:
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    raw = np.frombuffer(keys.buffers()[1] or b"", np.uint8)
    return raw[keys.offset * 16 : (keys.offset + len(keys)) * 16].reshape(-1, 16)


def _hex(raw: npt.NDArray[np.uint8]) -> pa.StringArray:
    """Bytes, shape (rows, width), as hex digits."""
    pairs = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
    ends = np.arange(len(raw) + 1, dtype=np.int32) * (raw.shape[1] * 2)
    return pa.StringArray.from_buffers(len(raw), pa.py_buffer(ends), pa.py_buffer(pairs[raw]))
