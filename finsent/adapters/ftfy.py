"""ftfy: its repair of mojibake, and its table of encodings, which it does not document.

The functions import ftfy when they are called: it costs 70 ms, and many processes meet no text
that needs it.
"""

from __future__ import annotations

WINDOWS_1252 = "sloppy-windows-1252"  # cp1252 with a character for each of the 256 bytes


def register_codecs() -> None:
    """Make Python know `WINDOWS_1252` and ftfy's other codecs, which its import registers."""
    import ftfy.bad_codecs  # noqa: F401


def mojibake_encodings() -> tuple[str, ...]:
    """Return the single-byte encodings as which ftfy assumes that UTF-8 may have been read.

    `ftfy.chardata` is not a documented module. The pattern that selects texts for ftfy must know
    the same encodings as ftfy, so that no text with mojibake is left out.
    """
    from ftfy.chardata import CHARMAP_ENCODINGS  # 0.1 s; most data has no mojibake

    register_codecs()
    return tuple(CHARMAP_ENCODINGS)


def fix_encoding(text: str) -> str:
    """Return a text with its mojibake repaired.

    ftfy repairs lost bytes only where the text has U+FFFD: `Ã?` stays.
    """
    import ftfy  # as above

    config = ftfy.TextFixerConfig(replace_lossy_sequences="\ufffd" in text, explain=False)
    return ftfy.fix_encoding(text, config)
