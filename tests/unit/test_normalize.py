"""Normalization: one spelling of each text, the repairs, and the keys of texts."""

# ruff: noqa: RUF001  signs that look like others are what is tested

from __future__ import annotations

import hashlib
import random
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finsent.normalize import hex_keys, hex_words, is_blank, key64, normalize, text_keys
from tests.properties import examples

pytestmark = pytest.mark.cost(2, "tries many texts")

# Spaces, marks that are not seen, accents alone, letters with two spellings, and some that matter.
TRICKY: list[str] = [
    *map(chr, [0, 7, 9, 10, 13, 0x1B, 0x20, 0x7F, 0x85, 0xA0, 0xAD, 0x34F, 0x115F, 0x1680, 0x180E]),
    *map(chr, [0x2000, 0x200B, 0x200D, 0x200F, 0x2028, 0x202F, 0x2060, 0x3000, 0x3164, 0xFEFF]),
    *map(chr, [0x300, 0x301, 0x308, 0x327, 0x338, 0x344, 0x3099, 0xE0061, 0x1D165]),
    *"eEoÅK Ωſß=<>가각か\ufb1d\u0958\u2adc\u212b\u2126\u037e\U0001f600",
]
# What repairs may make of one another.
NASTY: list[str] = [
    *["&", "&amp;", "&AMP;", "amp;", "#38;", "&#", "x26;", "&am", "p;", ";", "lt;", "&lt", "&no"],
    *["&notit;", "&nbsp;", "&Tab;", "&NewLine;", "&#0;", "&#1;", "&#xD800;", "&#x110000;"],
    *["&#x200b;", "&#769;", "&#x301;", "&ZeroWidthSpace;", "&shy;", "&Atilde;", "&curren;", "#38"],
    *["&#160;", "&#195;", "&#164;", "&#133;", "&#x85;", "&nGt;", "&acE;", "Ã", "Â", "¤", "Ã¤"],
    *["ÃƒÂ¤", "â", "â‚¬", "€", "¬", "Â\x83", "Â\xa0", "\x80", "\x82", "\x85", "\x93", "\x81"],
    *["\ufffd", "?", "\x1a", "í", "Ì\x81", "é", "e", "\u0301", "\u200b", "\xad"],
    *["\t", " ", "  ", "a", "ð", "Ÿ", "˜", "Å", "¡", "√", "±", "┬ú", "Ð", "¡", "вЂ", "њ", "Ø"],
    *["\ufeff", "\u200d", "Ãƒ", "Ã\x83", "£", "À", "ß", "÷", "í°", "ê"],
]
RARE = [
    *["Ångström", "São Paulo", "AÇÃO", "Łódź", "ŽIŽKOV", "Türkiye İş Bankası", "ﬁnance", "façade"],
    *["“Émile” — élan", "L’Oréal’s “Âge Parfait”", "À la carte", "CAFÉ“Bar”", "NESTLÉ®s", "«À»"],
    *["Œuvre", "Ø€5 per share", "Preis Ø£5", "Spaß€5", "¿Qué? ¡Sí!", "5 °C ± 2 µm × 3 ½"],
    *["£5, ¥6, €7, ₹8, ₿9", "Ã is a letter", "letter Â is", "Ärzte Öl Übung ß", "Прибыль выросла"],
    *["Κέρδη αυξήθηκαν", "利益が増加", "أرباح", "רווח", "กำไร", "이익 증가", "✔ 🚀 ™ © …"],
    *["‘a’ „b“ ‚c‘", "Đặng", "Þór Æsir ð", "×²"],
]


def norm(text: str) -> str:
    return str(normalize(pa.array([text])).text[0].as_py())


def key(text: str) -> str:
    return str(hex_keys(text_keys(normalize(pa.array([text])).text))[0].as_py())


def random_texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)

    def letter() -> str:
        if rng.random() < 0.7:
            return rng.choice(TRICKY)
        code = rng.randrange(0x110000 - 0x800)  # all but the surrogates, which no file can hold
        return chr(code if code < 0xD800 else code + 0x800)

    return ["".join(letter() for _ in range(rng.randint(0, 12))) for _ in range(count)]


def assert_settled(texts: list[str]) -> None:
    """Normalized texts are normal, as Python sees it, and do not change again."""
    once = normalize(pa.array(texts, pa.string())).text
    again = normalize(once)
    assert (again.text.to_pylist(), *again[1:]) == (once.to_pylist(), 0, 0)
    for text, out in zip(texts, once.to_pylist(), strict=True):
        assert unicodedata.is_normalized("NFC", out), ascii(text)
        assert out == " ".join(out.split()), ascii(text)
        assert not [c for c in out if unicodedata.category(c) in ("Cc", "Cf")], ascii(text)


# --- spelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Net sales  rose\t5 %", "Net sales rose 5 %"),
        ("  \n both ends \r\n", "both ends"),
        (" start", "start"),
        ("end ", "end"),
        ("two\nlines", "two lines"),
        ("soft\x0bbreak", "soft break"),  # what Word and Excel write inside a cell
        ("next\x85line", "next line"),
        ("no\xa0break\u202fspaces\u3000wide", "no break spaces wide"),
        ("line\u2028and\u2029paragraph", "line and paragraph"),
        ("\ufeffBOM", "BOM"),
        ("zero\u200bwidth", "zerowidth"),
        ("soft\xadhyphen", "softhyphen"),
        ("right\u202eto left", "rightto left"),
        ("nul\0 bell\a", "nul bell"),
        ("a \u200b b", "a b"),  # two spaces meet
        ("cafe\u0301", "caf\xe9"),
        ("e\u200b\u0301", "\xe9"),  # a letter and its accent meet
        ("\u212b and \u2126", "\xc5 and \u03a9"),  # ångström and ohm signs are letters
        ("Straße ①  ½ ﬁ", "Straße ① ½ ﬁ"),  # only canonical equivalents are joined
        ("NOKIA falls", "NOKIA falls"),
        ("\U0001f680 to the moon", "\U0001f680 to the moon"),
        ('$AAPL -3.5% (q/q) & "more"', '$AAPL -3.5% (q/q) & "more"'),
        ("", ""),
        (" \u200b\t\ufeff ", ""),
    ],
)
def test_normalize_is_no_repair(text: str, expected: str) -> None:
    result = normalize(pa.array([text]))
    assert (result.text.to_pylist(), *result[1:]) == ([expected], 0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AT&amp;T", "AT&T"),
        ("it&#8217;s 5 &#x20ac;", "it’s 5 €"),
        ("a&nbsp;b&Tab;c", "a b c"),
        ("a &lt; b &GT; c", "a < b > c"),
        ("&amp;amp;lt;b", "<b"),
        ("&" + "amp;" * 100_000 + "lt;", "<"),
        ("&am\u200bp; &#3\xad8;", "& &"),  # marks that are not seen hide an entity
        ("caf&#101;&#769;", "café"),
        ("&#150;", "–"),  # as HTML reads Windows' numbers
        ("a&#8203;b", "ab"),
        ("&Atilde", "&Atilde"),
        ("&notes &notit; AT&T; S&P; R&D;", "&notes &notit; AT&T; S&P; R&D;"),
        ("&#0; &#xD800; &#x110000; &#99999999;", "&#0; &#xD800; &#x110000; &#99999999;"),
        ("http://x.example/?a=1&b=2&copy=3", "http://x.example/?a=1&b=2&copy=3"),
    ],
)
def test_entities_with_a_semicolon_are_decoded(text: str, expected: str) -> None:
    result = normalize(pa.array([text, "plain"]))
    assert (result.text.to_pylist(), *result[1:]) == ([expected, "plain"], 0, text != expected)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize(
    "text",
    ["5 €", "Mäkinen", "it’s “up” – 5 %", "São Paulo", "naïve", "Łódź", "Прибыль", "利益", "£5m"],
)
def test_mojibake_is_repaired_at_any_depth(text: str, encoding: str) -> None:
    once = text.encode().decode(encoding, errors="ignore")
    if once.encode(encoding) != text.encode():  # cp1252 has no sign for five bytes
        once = text.encode().decode("latin-1")
    twice = once.encode().decode("latin-1")
    result = normalize(pa.array([text, once, twice, f"Nokia: {once} (€)"]))
    assert result.text.to_pylist() == [text, text, text, f"Nokia: {text} (€)"]
    assert (result.mojibake, result.entities) == (3, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("â‚¬5", "€5"),
        ("said \x93up\x94\x85", "said “up”…"),  # Windows-1252 that was read as Latin-1
        ("voilÃ le", "voilà le"),  # its no-break space was made a space
        ("costÂ 5", "cost 5"),
        ("â€œ like this â€�", "“ like this �"),
        ("Ã\u200b¤", "ä"),
        ("&Atilde;&curren;", "ä"),
        ("eÌ\x81", "é"),
        ("вЂњup", "“up"),
        ("┬ú5", "£5"),
    ],
)
def test_other_mojibake(text: str, expected: str) -> None:
    result = normalize(pa.array([text]))
    assert (result.text.to_pylist(), result.mojibake) == ([expected], 1)


@pytest.mark.parametrize("text", RARE)
def test_rare_letters_stay(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    result = normalize(pa.array([text, f"Shares: {text} (5 %), up"]))
    expected = [composed, f"Shares: {composed} (5 %), up"]
    assert (result.text.to_pylist(), *result[1:]) == (expected, 0, 0)


@examples(150)
@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_text_settles(texts: list[str]) -> None:
    assert_settled(texts)


@examples(150)
@given(
    st.lists(st.lists(st.sampled_from(NASTY), max_size=12).map("".join), min_size=1, max_size=40)
)
@example(["&&amp;#38;amp;lt;", "&#195;&#xAD;\x84", "Ã&shy;\x83Â¤"])
def test_texts_of_nasty_pieces_settle(texts: list[str]) -> None:
    assert_settled(texts)


@examples(100)
@given(
    st.lists(st.sampled_from([*RARE, *NASTY]), min_size=1, max_size=6).map("".join),
    st.lists(st.sampled_from(["latin-1", "cp1252", "mac_roman", "cp437", "cp1251"]), max_size=3),
)
def test_mojibake_of_mojibake_settles(text: str, encodings: list[str]) -> None:
    for encoding in encodings:
        text = text.encode().decode(encoding, errors="replace")
    assert_settled([text])


def test_random_text_settles() -> None:
    assert_settled(random_texts(20_000, seed=1))


def test_every_character_settles() -> None:
    chars = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    once = normalize(pa.array([f"a{char}b" for char in chars])).text
    assert normalize(once).text.equals(once)


def test_canonically_equal_spellings_become_one() -> None:
    texts = random_texts(5000, seed=2)
    decomposed = [unicodedata.normalize("NFD", text) for text in texts]
    composed = normalize(pa.array(texts)).text
    assert normalize(pa.array(decomposed)).text.equals(composed)


# --- arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", [pa.string(), pa.large_string()])
def test_arrays_of_every_shape(type: pa.DataType) -> None:
    texts = [" a", None, "b", "", "Ã¤", "c  d", None, "&lt;"]
    expected = ["a", "", "b", "", "ä", "c d", "", "<"]
    array = pa.array(texts, type)
    for form in (array, pa.chunked_array([array[:3], array[3:3], array[3:]]), array[0:]):
        result = normalize(form)
        assert (result.text.to_pylist(), result.mojibake, result.entities) == (expected, 1, 1)
        assert result.text.type == pa.string()
    assert normalize(array[3:6]).text.to_pylist() == expected[3:6]
    for empty in (array[:0], pa.chunked_array([], type), pa.nulls(0)):
        result = normalize(empty)
        assert (result.text, *result[1:]) == (pa.array([], pa.string()), 0, 0)
        assert text_keys(result.text).to_pylist() == []


# --- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "other_text", "same"),
    [
        ("Profit ROSE", "profit rose", True),
        ("Profit  rose ", "Profit rose", True),
        ("caf\xe9", "CAFE\u0301", True),
        ("zero\u200bwidth", "zerowidth", True),
        ("5 &euro;", "5 â‚¬", True),
        ("Profit rose.", "Profit rose", False),
        ("up 5%", "up 5 %", False),
        ("cafe", "caf\xe9", False),
    ],
)
def test_keys_are_equal_for_duplicates_alone(text: str, other_text: str, same: bool) -> None:
    assert (key(text) == key(other_text)) is same


def test_keys_are_the_same_everywhere_and_spread() -> None:
    assert key("Profit rose") == "1d1c7580d1659f493ce4129f24d5a408"  # datasets' splits hang on it
    keys = text_keys(pa.array([f"Sentence {i}" for i in range(1000)]))
    assert keys.type == pa.binary(16)
    assert len(set(key64(keys).tolist())) == 1000


def test_keys_are_digests_of_the_lower_cased_text() -> None:
    texts = ["", "Profit ROSE 5 %", "ÄÖÅ €", "利益", "x" * 10_000]
    digests = [hashlib.blake2b(text.lower().encode(), digest_size=16) for text in texts]
    for form in (pa.array(texts), pa.chunked_array([texts[:2], texts[2:]])):
        assert text_keys(form).to_pylist() == [digest.digest() for digest in digests]
        assert hex_keys(text_keys(form)).to_pylist() == [digest.hexdigest() for digest in digests]
    assert text_keys(pa.array(texts)[1:3]).to_pylist() == [d.digest() for d in digests[1:3]]


def test_keys_as_numbers_and_digits() -> None:
    raw = [bytes(range(16)), b"\xff" * 16, bytes(16), bytes(range(240, 256))]
    keys = pa.array(raw, pa.binary(16))
    chunks = pa.chunked_array([keys[:1], keys[1:]])
    numbers = [int.from_bytes(key[:8], "big") for key in raw]
    for form, first in ((keys, 0), (chunks, 0), (keys[2:], 2), (keys[:0], 4)):
        assert key64(form).dtype == np.uint64
        assert key64(form).tolist() == numbers[first:]
        assert hex_keys(form).to_pylist() == [key.hex() for key in raw[first:]]
    words = hex_words(key64(keys)).to_pylist()
    assert words == [key.hex()[:16] for key in raw]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\n",
        "\xa0",
        "&nbsp;",
        "&amp;nbsp;",
        "\u200b",
        "\ufeff",
        "\x01",
        "Â\xa0",
        "&#8203; ",
        "&",
        "&amp;",
        "!",
        "0",
        "&nbsp;Up",
        "\u200bUp",
        "é",
        "~",
        "\ud83d",
        "Up\u200b",
    ],
)
def test_a_text_is_blank_where_nothing_is_left_of_it(text: str) -> None:
    try:
        left = normalize(pa.array([text], pa.string())).text[0].as_py()
    except UnicodeEncodeError:
        left = text
    assert is_blank(text) == (left == "")
