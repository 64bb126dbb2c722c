"""What finsent assumes of ftfy beyond its documentation; fails where an upgrade changes it."""

from __future__ import annotations

from finsent.adapters import ftfy


def test_the_table_of_encodings_holds_codecs_with_a_character_for_each_high_byte() -> None:
    encodings = ftfy.mojibake_encodings()
    assert {"latin-1", ftfy.WINDOWS_1252} <= set(encodings), encodings
    for encoding in encodings:
        characters = bytes(range(0x80, 0x100)).decode(encoding)
        assert len(characters) == 128, f"ftfy's {encoding} is not a single-byte encoding"


def test_the_codec_of_windows_1252_has_no_gaps() -> None:
    ftfy.register_codecs()
    assert bytes(range(256)).decode(ftfy.WINDOWS_1252)[0x80] == "€"


def test_mojibake_is_repaired_and_a_lost_byte_only_by_its_sign() -> None:
    assert ftfy.fix_encoding("Ã¤") == "ä"
    assert ftfy.fix_encoding("Ã?") == "Ã?"
