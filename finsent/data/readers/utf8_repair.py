"""The codec `utf-8-mended`: UTF-8 in which some bytes are of another encoding, or are lost.

A byte that is a plausible letter or sign in Windows' cp1252 is decoded as such. The rest of a
character that was cut becomes U+FFFD. Valid UTF-8 is not changed.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

REPAIRED_UTF8 = "utf-8-mended"  # manifests of dataset versions hold this name
LOST = "\ufffd"  # replaces a character that was lost

_HANDLER = "finsent-repair"
_LINE_BYTES = 64 << 10  # a longer line is decoded in parts
_SIGNS = frozenset("€‚„…†‡‰‹‘’“”•–—™›©®°£§«»¢¥±·")  # noqa: RUF001  not in words
_EMOJI = 0xF0  # begins a character of four bytes, mostly an emoji
_PUNCTUATION = 0xE2  # begins a character of three bytes, mostly a quote or a dash


def _repair(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement of bytes that are not UTF-8; an error handler of `bytes.decode`."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    data, start, end = error.object, error.start, error.end
    if end - start > 1:  # a character of several bytes that is cut
        return LOST, end
    sign = _windows(data[start : start + 1])
    before, after = _windows(data[start - 1 : start]), _windows(data[end : end + 1])
    return (sign if _belongs(data[start], sign, before, after) else LOST), end


def _belongs(byte: int, sign: str, before: str, after: str) -> bool:
    """Return whether a byte is a plausible cp1252 character, not a part of a cut UTF-8 one."""
    if byte < 0xC0 and (after >= "\x80" or before >= "\x80"):  # one of several parts
        return False
    if not sign.isalpha():
        return sign in _SIGNS
    if byte == _EMOJI or (byte == _PUNCTUATION and not after.isalpha()):
        return False
    return before.isalpha() or after.isalpha()


def _windows(data: bytes) -> str:
    return data.decode("cp1252", "ignore")


def _decode(data: Buffer, errors: str = "strict") -> tuple[str, int]:
    del errors  # every byte has a replacement
    text = bytes(data).decode("utf-8", _HANDLER)
    return text.removeprefix("\ufeff"), len(bytes(data))


class _Decoder(codecs.BufferedIncrementalDecoder):
    """Decodes line by line, so that all bytes around a bad byte are known."""

    _has_begun = False

    def _buffer_decode(self, data: Buffer, errors: str, final: bool) -> tuple[str, int]:
        del errors
        data = bytes(data)
        end = len(data) if final else data.rfind(b"\n") + 1
        if not end and len(data) > _LINE_BYTES:
            end = data.rfind(b" ") + 1 or len(data)
        text = data[:end].decode("utf-8", _HANDLER)
        if text and not self._has_begun:
            self._has_begun, text = True, text.removeprefix("\ufeff")
        return text, end

    def reset(self) -> None:
        """Forget all bytes that were decoded."""
        super().reset()
        self._has_begun = False


def _search(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != REPAIRED_UTF8:
        return None
    return codecs.CodecInfo(
        codecs.utf_8_encode, _decode, name=REPAIRED_UTF8, incrementaldecoder=_Decoder
    )


codecs.register_error(_HANDLER, _repair)
codecs.register(_search)
