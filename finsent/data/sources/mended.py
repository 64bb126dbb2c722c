"""The codec `utf-8-mended`: UTF-8 in which some bytes are of another encoding, or are lost.

A byte that makes a letter or a sign of its word in Windows' cp1252 is read as that. What is left of
a sign that was cut becomes U+FFFD. All other texts of the file stay what they are.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

MENDED = "utf-8-mended"
LOST = "\ufffd"  # what stands for a sign that was lost

_HANDLER = "finsent-mended"
_LINE_BYTES = 64 << 10  # a longer line is decoded in parts
_MARKS = frozenset("€‚„…†‡‰‹‘’“”•–—™›©®°£§«»¢¥±·")  # noqa: RUF001  signs that stand alone
_EMOJI = 0xF0  # begins four bytes, an emoji's for the most part
_PUNCTUATION = 0xE2  # begins three bytes, of quotes and dashes for the most part


def _mend(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `bytes.decode`: what stands for the bytes that are no UTF-8."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    data, start, end = error.object, error.start, error.end
    if end - start > 1:  # a sign of several bytes that is cut
        return LOST, end
    sign = _windows(data[start : start + 1])
    before, after = _windows(data[start - 1 : start]), _windows(data[end : end + 1])
    return (sign if _belongs(data[start], sign, before, after) else LOST), end


def _belongs(byte: int, sign: str, before: str, after: str) -> bool:
    """Whether a byte is a sign of cp1252 at its place, not a piece of another one in UTF-8."""
    if byte < 0xC0 and (after >= "\x80" or before >= "\x80"):  # one of several pieces
        return False
    if not sign.isalpha():
        return sign in _MARKS
    if byte == _EMOJI or (byte == _PUNCTUATION and not after.isalpha()):
        return False
    return before.isalpha() or after.isalpha()


def _windows(data: bytes) -> str:
    return data.decode("cp1252", "ignore")


def _decode(data: Buffer, errors: str = "strict") -> tuple[str, int]:
    del errors  # there are none
    text = bytes(data).decode("utf-8", _HANDLER)
    return text.removeprefix("\ufeff"), len(bytes(data))


class _Decoder(codecs.BufferedIncrementalDecoder):
    """Decodes line by line, so that the bytes around a bad byte decide wherever the file is cut."""

    _begun = False

    def _buffer_decode(self, data: Buffer, errors: str, final: bool) -> tuple[str, int]:
        del errors
        data = bytes(data)
        end = len(data) if final else data.rfind(b"\n") + 1
        if not end and len(data) > _LINE_BYTES:
            end = data.rfind(b" ") + 1 or len(data)
        text = data[:end].decode("utf-8", _HANDLER)
        if text and not self._begun:
            self._begun, text = True, text.removeprefix("\ufeff")
        return text, end

    def reset(self) -> None:
        """Begin anew."""
        super().reset()
        self._begun = False


def _search(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != MENDED:
        return None
    return codecs.CodecInfo(codecs.utf_8_encode, _decode, name=MENDED, incrementaldecoder=_Decoder)


codecs.register_error(_HANDLER, _mend)
codecs.register(_search)
