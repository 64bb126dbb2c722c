"""Which character encoding a text file has, by all of its bytes, in one pass.

By, in this order: a byte order mark (https://www.unicode.org/faq/utf_bom.html); NUL bytes where
UTF-16 or UTF-32 has them; valid UTF-8, which hardly any other text is by chance; mostly valid UTF-8
(`finsent.data.sources.mended` decodes it); a Western or Central European code page under which
words look like words; any other that charset-normalizer finds plausible
(https://charset-normalizer.readthedocs.io).
"""

from __future__ import annotations

import codecs
import re
import unicodedata

import numpy as np

from finsent.data.sources.mended import LOST, MENDED
from finsent.errors import InputError

_HEAD_BYTES = 4096
_SAMPLE_BYTES = 16 << 10
_LINE_BYTES = 2048  # of each side of a sign that a sample shows

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# The likely ones first: of equals the first is taken.
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
_OTHERS = (
    *("cp1251", "koi8_r", "cp866", "mac_cyrillic", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("cp1257", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
)
_EQUAL = 0.05  # scores that differ less say nothing
_ODDEST = 0.3  # above it, it is another script's text, or none ...
_DENSE = 0.1  # ... where more than this share of the bytes is beyond ASCII; else only a rare sign

_CUT_EMOJI = re.compile(rb"\xf0\x9f[\x80-\xbf]?(?![\x80-\xbf])")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_ODD_SIGNS = frozenset("¤¦¬¨¸¯´ˆ˜ˇ˘˙˛˝ƒ‹›◊∂∑∏√∫≈≠∆")  # noqa: RUF001  what a misreading makes
_IN_WORDS = frozenset("’‘·–—‑…\xad\xa0")  # noqa: RUF001  as in `year-end`
_BOXES = range(0x2500, 0x25A0)
_ALONE = frozenset("àÀáÁâÂåÅäÄéÉèÈêÊíÍóÓòÒôÔöÖøØúÚýñÑªºµæÆ")
_PLAIN = bytes([*range(9, 14), 0x1A, 0x1B, *range(32, 127)])


class EncodingProbe:
    """Told of a file's bytes piece by piece, it says in which encoding all of them make sense.

    The memory that it needs does not grow with the file.
    """

    def __init__(self) -> None:
        self._head: bytes | None = b""  # until it is long enough to tell
        self._name = ""  # by a mark or NULs; empty: one byte or UTF-8
        self._decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
        self._utf8 = True  # so far
        self._high: set[int] = set()  # bytes above 0x7F; of UTF-8 not all
        self._sample = bytearray()  # lines with such bytes
        self._problem = ""

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the file, decompressed."""
        if self._head is None:
            self._take(chunk)
            return
        self._head += chunk
        if len(self._head) >= _HEAD_BYTES:
            self._begin()

    def result(self, where: str) -> str:
        """The encoding, as Python names it, once all bytes were fed; `utf-8` for none.

        Args:
            where: the file, for messages.

        Raises:
            InputError: the file is no text, or in no encoding that is known here.
        """
        self._begin()
        self._end()
        if not self._problem and not self._name and not self._utf8:
            self._name = self._guess()
        if self._problem:
            raise InputError(
                f"{where} {self._problem}; set encoding to the file's own, e.g. cp1252 or utf-16, "
                "or give a text file"
            )
        return self._name or "utf-8"

    def _begin(self) -> None:
        if self._head is None:
            return
        head, self._head = self._head, None
        self._name = _by_head(head)
        if self._name:
            self._decoder = codecs.getincrementaldecoder(self._name)()
        self._take(head)

    def _take(self, chunk: bytes) -> None:
        if self._problem:
            return
        if self._name:
            self._decode(chunk)
        elif b"\0" in chunk:
            self._problem = (
                "has NUL bytes, so it is binary or in an unknown encoding (where they are stray "
                "ones in a text, encoding: utf-8 takes it)"
            )
        else:
            cut = self._decoder.getstate()[0] if self._utf8 else b""  # a begun letter
            if chunk.isascii() and not cut:
                return
            if self._utf8:
                self._utf8 = self._goes_on(chunk)
            if not self._utf8 or len(self._sample) < _SAMPLE_BYTES:
                self._collect(cut + chunk)

    def _goes_on(self, chunk: bytes, final: bool = False) -> bool:
        try:
            self._decoder.decode(chunk, final)
        except UnicodeDecodeError:
            return False
        return True

    def _end(self) -> None:
        if self._name == "utf-8-sig" and self._problem:
            self._name, self._problem = MENDED, ""
        elif self._name:
            self._decode(b"", final=True)
        elif self._utf8:
            self._utf8 = self._goes_on(b"", final=True)

    def _decode(self, chunk: bytes, final: bool = False) -> None:
        if not self._goes_on(chunk, final) and not self._problem:
            self._problem = f"begins as {self._name} but is not"

    def _collect(self, data: bytes) -> None:
        """Keep what tells one code page from another: which bytes occur, and some lines."""
        known = _PLAIN + bytes(self._high)
        self._high.update(byte for byte in set(data.translate(None, known)) if byte > 0x7F)
        if len(self._sample) >= _SAMPLE_BYTES:
            return
        places = np.flatnonzero(np.frombuffer(data, np.uint8) > 0x7F)
        index = end = 0
        while index < len(places) and len(self._sample) < _SAMPLE_BYTES:
            place = int(places[index])
            low, high = max(end, place - _LINE_BYTES), place + _LINE_BYTES
            start = max(data.rfind(b"\n", low, place) + 1, low)
            end = data.find(b"\n", place, high)
            end = min(high, len(data)) if end < 0 else end
            self._sample += data[start:end] + b"\n"
            index = int(np.searchsorted(places, end))

    def _guess(self) -> str:
        sample = bytes(self._sample)
        controls = len(sample.translate(None, _PLAIN + bytes(range(0x80, 0x100))))
        if controls > 0.02 * len(sample):
            self._problem = "is binary: it is full of control bytes"
            return ""
        if _is_mostly_utf8(sample):
            return MENDED
        name = _european(sample, self._high) or _other(sample, self._high)
        if not name:
            self._problem = "is in no encoding that makes text of it"
        return name


def _by_head(head: bytes) -> str:
    """The encoding by a file's first bytes; empty where they do not tell."""
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    if len(head) < 2 or b"\0" not in head:
        return ""
    # Most signs of any text with separators and line ends are below U+0100.
    whole = np.frombuffer(head, np.uint8, count=len(head) // 4 * 4) == 0
    if len(whole):
        quarters = whole.reshape(-1, 4).mean(axis=0)
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


def _if_text(head: bytes, name: str) -> str:
    text = head.decode(name, "replace")
    odd = sum(unicodedata.category(sign) in ("Cc", "Cn", "Co") for sign in text)
    plain = sum(map(text.count, "\t\n\r"))
    parted = any(sign in text for sign in " ,\t\n@")
    return name if parted and "\0" not in text and odd - plain <= 0.02 * len(text) else ""


def _is_mostly_utf8(sample: bytes) -> bool:
    """Whether more letters are valid UTF-8 than are not; the halves of an emoji are UTF-8, too."""
    good = sum(map(len, _NOT_ASCII.findall(sample.decode("utf-8", "ignore"))))
    text = sample.decode("utf-8", "replace")
    bad = text.count(LOST) - sample.count(LOST.encode())
    return good + _CUT_EMOJI.subn(b"", sample)[1] >= bad


def _european(sample: bytes, high: set[int]) -> str:
    """The first of the best code pages; empty where none makes words."""
    scores = {
        name: _oddness(_decode_as(name, sample)) for name in _EUROPEAN if _decodes(name, high)
    }
    best = min(scores.values())
    beyond = len(sample.translate(None, bytes(range(128))))
    dense = beyond > max(8, _DENSE * len(sample))
    if best > _ODDEST and dense:
        return ""
    return next(name for name, score in scores.items() if score <= best + _EQUAL)


def _decodes(name: str, high: set[int]) -> bool:
    try:
        bytes(sorted(high)).decode(name)
    except UnicodeDecodeError:
        return False
    return True


def _decode_as(name: str, sample: bytes) -> str:
    if name == "iso8859-1":
        # Its controls are mended by `normalize`: taken for what Windows means by them.
        import ftfy.bad_codecs  # noqa: F401  makes the codec known

        name = "sloppy-windows-1252"
    return sample.decode(name)


def _other(sample: bytes, high: set[int]) -> str:
    """The best of the other encodings by charset-normalizer; empty where none is plausible."""
    from charset_normalizer import from_bytes

    found = from_bytes(sample, cp_isolation=list(_OTHERS), enable_fallback=False)
    for match in found:
        name = codecs.lookup(match.encoding).name
        if match.multi_byte_usage or _decodes(name, high):
            return name
    return ""


def _oddness(text: str) -> float:
    """The share of the signs beyond ASCII that stand where no writer puts them."""
    odd = total = 0
    for found in _NOT_ASCII.finditer(text):
        run = found[0]
        total += len(run)
        around = (text[found.start() - 1 : found.start()] or " ") + run
        around += text[found.end() : found.end() + 1] or " "
        if len(run) > 3:  # another script, or none
            odd += len(run)
        else:
            odd += sum(map(_is_odd, around, around[1:], around[2:]))
    return odd / max(total, 1)


def _is_odd(before: str, sign: str, after: str) -> bool:
    if not sign.isalpha():
        in_word = before.isalpha() and after.isalpha() and sign not in _IN_WORDS
        unused = unicodedata.category(sign) in ("Cc", "Cn", "Co")
        return in_word or unused or sign in _ODD_SIGNS or ord(sign) in _BOXES
    if not (before.isalpha() or after.isalpha()):
        return sign not in _ALONE
    if sign > "\u024f" or before.isdigit() or after.isdigit():
        return True
    if sign.isupper():
        return before.islower() or (before.isupper() and after.islower())
    return before.isupper() and after.isupper()
