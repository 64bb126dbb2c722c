"""Detection of a text file's character encoding by all of its bytes, in one pass.

The detector tries in this order:

1. a byte order mark (https://www.unicode.org/faq/utf_bom.html);
2. NUL bytes where UTF-16 or UTF-32 has them;
3. valid UTF-8, which text of other encodings hardly ever is by chance;
4. mostly valid UTF-8, which `finsent.data.readers.utf8_repair` decodes;
5. a Western or Central European code page under which words look like words;
6. other encodings that charset-normalizer finds plausible
   (https://charset-normalizer.readthedocs.io).
"""

from __future__ import annotations

import codecs
import re
import unicodedata

import numpy as np

from finsent.adapters import ftfy
from finsent.data.readers.utf8_repair import LOST, REPAIRED_UTF8
from finsent.errors import InputError

_HEAD_BYTES = 4096
_SAMPLE_BYTES = 16 << 10
_LINE_BYTES = 2048  # at most, on each side of a sampled character

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# The likely ones first: among equal scores the first encoding wins.
_EUROPEAN = (
    "cp1252",
    "iso8859-1",
    "iso8859-15",
    "cp1250",
    "iso8859-2",
    "mac-roman",
    "cp850",
    "cp437",
)
_OTHER = (
    *("cp1251", "koi8_r", "cp866", "mac_cyrillic", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("cp1257", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
)
_EQUAL_SCORES = 0.05  # scores that differ by less count as equal
# A text with more non-ASCII bytes than `_DENSE_SHARE`, of which more than `_MAX_ODDNESS` are odd
# under each European code page, is of another script or not text. A sparser text may have one
# rare sign.
_MAX_ODDNESS = 0.3
_DENSE_SHARE = 0.1

_MAX_RUN = 3  # non-ASCII characters in a row in European text
_MAX_CONTROLS = 0.02  # share of control characters in a text
_UNPRINTABLE = ("Cc", "Cn", "Co")  # Unicode categories: control, unassigned, private use

_CUT_EMOJI = re.compile(rb"\xf0\x9f[\x80-\xbf]?(?![\x80-\xbf])")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_ODD_SIGNS = frozenset("¤¦¬¨¸¯´ˆ˜ˇ˘˙˛˝ƒ‹›◊∂∑∏√∫≈≠∆")  # noqa: RUF001  typical of a wrong decoding
_WORD_SIGNS = frozenset("’‘·–—‑…\xad\xa0")  # noqa: RUF001  within words, as in `year-end`
_BOXES = range(0x2500, 0x25A0)  # box drawing and block elements
_LONE_LETTERS = frozenset("àÀáÁâÂåÅäÄéÉèÈêÊíÍóÓòÒôÔöÖøØúÚýñÑªºµæÆ")
_PLAIN = bytes([*range(9, 14), 0x1A, 0x1B, *range(32, 127)])


class EncodingDetector:
    """Detects the encoding of a file that is fed chunk by chunk, in constant memory."""

    def __init__(self) -> None:
        self._head: bytes | None = b""  # None: long enough, and decoded
        self._encoding = ""  # by a mark or NUL bytes; empty: UTF-8 or a code page
        self._decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
        self._is_utf8 = True  # so far
        self._high_bytes: set[int] = set()  # bytes above 0x7F; of UTF-8 not all
        self._sample = bytearray()  # lines with high bytes
        self._problem = ""

    def feed(self, chunk: bytes) -> None:
        """Examine the next bytes of the file, decompressed."""
        if self._head is None:
            self._examine(chunk)
            return
        self._head += chunk
        if len(self._head) >= _HEAD_BYTES:
            self._examine_head()

    def result(self, where: str) -> str:
        """Return the encoding, as Python names it, once all bytes were fed; `utf-8` for ASCII.

        Args:
            where: the file, for messages.

        Raises:
            InputError: the file is not text, or in none of the known encodings.
        """
        self._examine_head()
        self._finish()
        if not self._problem and not self._encoding and not self._is_utf8:
            self._encoding = self._guess()
        if self._problem:
            raise InputError(
                f"{where} {self._problem}. Set `encoding` to the file's encoding, e.g. cp1252 or "
                "utf-16, or name a text file."
            )
        return self._encoding or "utf-8"

    def _examine_head(self) -> None:
        if self._head is None:
            return
        head, self._head = self._head, None
        self._encoding = _encoding_of_head(head)
        if self._encoding:
            self._decoder = codecs.getincrementaldecoder(self._encoding)()
        self._examine(head)

    def _examine(self, chunk: bytes) -> None:
        if self._problem:
            return
        if self._encoding:
            self._decode(chunk)
        elif b"\0" in chunk:
            self._problem = (
                "has NUL bytes, so it is binary or in an unknown encoding (for a text with stray "
                "NUL bytes, set encoding: utf-8)"
            )
        else:
            # The start of a character at the end of the previous chunk.
            cut = self._decoder.getstate()[0] if self._is_utf8 else b""
            if chunk.isascii() and not cut:
                return
            if self._is_utf8:
                self._is_utf8 = self._continues(chunk)
            if not self._is_utf8 or len(self._sample) < _SAMPLE_BYTES:
                self._collect(cut + chunk)

    def _continues(self, chunk: bytes, final: bool = False) -> bool:
        try:
            self._decoder.decode(chunk, final)
        except UnicodeDecodeError:
            return False
        return True

    def _finish(self) -> None:
        if self._encoding == "utf-8-sig" and self._problem:
            self._encoding, self._problem = REPAIRED_UTF8, ""
        elif self._encoding:
            self._decode(b"", final=True)
        elif self._is_utf8:
            self._is_utf8 = self._continues(b"", final=True)

    def _decode(self, chunk: bytes, final: bool = False) -> None:
        if not self._continues(chunk, final) and not self._problem:
            self._problem = f"begins as {self._encoding} but is not"

    def _collect(self, data: bytes) -> None:
        """Keep what distinguishes code pages: which high bytes occur, and a sample of lines."""
        known = _PLAIN + bytes(self._high_bytes)
        self._high_bytes.update(byte for byte in set(data.translate(None, known)) if byte > 0x7F)
        if len(self._sample) >= _SAMPLE_BYTES:
            return
        positions = np.flatnonzero(np.frombuffer(data, np.uint8) > 0x7F)
        index = end = 0
        while index < len(positions) and len(self._sample) < _SAMPLE_BYTES:
            position = int(positions[index])
            low, high = max(end, position - _LINE_BYTES), position + _LINE_BYTES
            start = max(data.rfind(b"\n", low, position) + 1, low)
            end = data.find(b"\n", position, high)
            end = min(high, len(data)) if end < 0 else end
            self._sample += data[start:end] + b"\n"
            index = int(np.searchsorted(positions, end))

    def _guess(self) -> str:
        sample = bytes(self._sample)
        controls = len(sample.translate(None, _PLAIN + bytes(range(0x80, 0x100))))
        if controls > _MAX_CONTROLS * len(sample):
            self._problem = "is binary: it is full of control bytes"
            return ""
        if _is_mostly_utf8(sample):
            return REPAIRED_UTF8
        encoding = _european(sample, self._high_bytes) or _other(sample, self._high_bytes)
        if not encoding:
            self._problem = "is in no encoding that makes text of it"
        return encoding


def _encoding_of_head(head: bytes) -> str:
    """Return the encoding by a file's first bytes; empty where they do not show it."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding
    if len(head) < 2 or b"\0" not in head:
        return ""
    # Most characters of a text with separators and line ends are below U+0100.
    is_nul = np.frombuffer(head, np.uint8, count=len(head) // 4 * 4) == 0
    if len(is_nul):
        quarters = is_nul.reshape(-1, 4).mean(axis=0)
        if quarters[3] == 1 and quarters[2] > 0.9:
            return _if_text(head, "utf-32-le")
        if quarters[0] == 1 and quarters[1] > 0.9:
            return _if_text(head, "utf-32-be")
    even, odd = (np.frombuffer(head, np.uint8, count=len(head) // 2 * 2) == 0).reshape(-1, 2).T
    if odd.mean() > max(0.15, 4 * even.mean()):
        return _if_text(head, "utf-16-le")
    if even.mean() > max(0.15, 4 * odd.mean()):
        return _if_text(head, "utf-16-be")
    return ""


def _if_text(head: bytes, encoding: str) -> str:
    """Return the encoding where it makes text of a file's first bytes; else an empty string."""
    text = head.decode(encoding, "replace")
    unprintable = sum(unicodedata.category(sign) in _UNPRINTABLE for sign in text)
    unprintable -= sum(map(text.count, "\t\n\r"))
    has_words = any(sign in text for sign in " ,\t\n@")
    is_text = has_words and "\0" not in text and unprintable <= _MAX_CONTROLS * len(text)
    return encoding if is_text else ""


def _is_mostly_utf8(sample: bytes) -> bool:
    """Return whether more characters are valid UTF-8 than are not; halves of an emoji are valid."""
    good = sum(map(len, _NOT_ASCII.findall(sample.decode("utf-8", "ignore"))))
    text = sample.decode("utf-8", "replace")
    bad = text.count(LOST) - sample.count(LOST.encode())
    return good + _CUT_EMOJI.subn(b"", sample)[1] >= bad


def _european(sample: bytes, high_bytes: set[int]) -> str:
    """Return the first of the best European code pages; empty where none makes words."""
    scores = {
        name: _oddness(_decode_as(name, sample)) for name in _EUROPEAN if _decodes(name, high_bytes)
    }
    best = min(scores.values())
    non_ascii = len(sample.translate(None, bytes(range(128))))
    is_dense = non_ascii > max(8, _DENSE_SHARE * len(sample))
    if best > _MAX_ODDNESS and is_dense:
        return ""
    return next(name for name, score in scores.items() if score <= best + _EQUAL_SCORES)


def _decodes(name: str, high_bytes: set[int]) -> bool:
    try:
        bytes(sorted(high_bytes)).decode(name)
    except UnicodeDecodeError:
        return False
    return True


def _decode_as(name: str, sample: bytes) -> str:
    if name == "iso8859-1":
        # `normalize` repairs its control characters: it reads them as Windows means them.
        ftfy.register_codecs()
        name = ftfy.WINDOWS_1252
    return sample.decode(name)


def _other(sample: bytes, high_bytes: set[int]) -> str:
    """Return charset-normalizer's best among other encodings; empty where none is plausible."""
    # Not imported at the top: costs 40 ms, and few files need it.
    from charset_normalizer import from_bytes

    matches = from_bytes(sample, cp_isolation=list(_OTHER), enable_fallback=False)
    for match in matches:
        name = codecs.lookup(match.encoding).name
        if match.multi_byte_usage or _decodes(name, high_bytes):
            return name
    return ""


def _oddness(text: str) -> float:
    """Return the share of non-ASCII characters that are where no writer puts them."""
    odd = total = 0
    for match in _NOT_ASCII.finditer(text):
        run = match[0]
        total += len(run)
        around = (text[match.start() - 1 : match.start()] or " ") + run
        around += text[match.end() : match.end() + 1] or " "
        if len(run) > _MAX_RUN:  # another script, or not text
            odd += len(run)
        else:
            odd += sum(map(_is_odd, around, around[1:], around[2:]))
    return odd / max(total, 1)


def _is_odd(before: str, sign: str, after: str) -> bool:
    if not sign.isalpha():
        in_word = before.isalpha() and after.isalpha() and sign not in _WORD_SIGNS
        unprintable = unicodedata.category(sign) in _UNPRINTABLE
        return in_word or unprintable or sign in _ODD_SIGNS or ord(sign) in _BOXES
    if not (before.isalpha() or after.isalpha()):
        return sign not in _LONE_LETTERS
    if sign > "\u024f" or before.isdigit() or after.isdigit():
        return True
    if sign.isupper():
        return before.islower() or (before.isupper() and after.islower())
    return before.isupper() and after.isupper()
