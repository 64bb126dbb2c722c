"""Encoding detection: byte order marks, NUL bytes, UTF-8, code pages, and binary files."""

# ruff: noqa: RUF001  signs that look like others are what is tested

from __future__ import annotations

import codecs
import io
import random
import re
import zlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv

from finsent.data.readers.encoding_detection import EncodingDetector
from finsent.errors import InputError
from finsent.normalize import normalize
from tests.conftest import SHARED
from tests.properties import examples

pytestmark = pytest.mark.cost(1.5, "tries many texts")

ENGLISH = "The “adjusted” profit rose – it’s up 5 %\nCafé Bar won’t pay\n"
FINNISH = "Mäkinen Oyj nosti ennustettaan 5 %.\nJyväskylä ja Äänekoski: myynti jäi vähäiseksi.\n"
GERMAN = "Die Erlöse stiegen um 5 %.\nMünchener Rück: größer als üblich\nÖl fällt\n"
FRENCH = "Le résultat a progressé de 5 %.\nÇa baisse où ? Noël à Orléans.\n"
PORTUGUESE = "A receita subiu 5 %.\nSão Paulo: ações não caíram.\n"
POLISH = "Spółka zwiększyła zysk o 5 %.\nŁódź: żaden bank nie stracił.\nŚwięta były udane.\n"
RUSSIAN = "Прибыль компании выросла на 5 %.\nАкции банка упали.\n"
GREEK = "Τα κέρδη αυξήθηκαν κατά 5 %.\nΗ τράπεζα ανακοίνωσε αποτελέσματα.\n"
JAPANESE = "利益が五パーセント増加した。\n株価は下落した。日本銀行の発表による。\n"
CHINESE = "公司利润增长百分之五。\n股票下跌,银行宣布新政策。\n"


def detect(data: bytes, chunk: int = 1 << 20) -> str:
    detector = EncodingDetector()
    for start in range(0, len(data), chunk):
        detector.feed(data[start : start + chunk])
    return detector.result("data.sources: 'a.csv'")


@pytest.mark.parametrize("chunk", [1, 3, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("text", "written", "named"),
    [
        ("", "utf-8", "utf-8"),
        ("Profit rose\n", "ascii", "utf-8"),
        *((text, "utf-8", "utf-8") for text in (ENGLISH, FINNISH, RUSSIAN, JAPANESE, "€")),
        (FINNISH, "utf-8-sig", "utf-8-sig"),
        ("", "utf-8-sig", "utf-8-sig"),
        *((ENGLISH, name, name) for name in ("utf-16", "utf-32", "utf-16-le", "utf-16-be")),
        *((FINNISH, name, name) for name in ("utf-32-le", "utf-32-be")),
        *(("text,label\n" + JAPANESE, name, name) for name in ("utf-16-le", "utf-32-be")),
        *((text, "cp1252", "cp1252") for text in (ENGLISH, FINNISH, GERMAN, FRENCH, PORTUGUESE)),
        *((text, "latin-1", "cp1252") for text in (FINNISH, GERMAN, FRENCH, PORTUGUESE)),
        *((text, "mac-roman", "mac-roman") for text in (ENGLISH, FINNISH, GERMAN, FRENCH)),
        (POLISH, "cp1250", "cp1250"),
        (POLISH, "iso8859-2", "iso8859-2"),
        ("Profit rose to 5 €.\nShares cost 3 €\n", "cp1252", "cp1252"),
        ("Profit rose to 5 €.\nShares cost 3 €\n", "iso8859-15", "iso8859-15"),
        ("Profit rose to 5 €.\nShares cost 3 €\n", "mac-roman", "mac-roman"),
        ("Sales of Nokia† fell while profit rose\n", "cp1252", "cp1252"),
        ("MÄKINEN OYJ\nSÃO PAULO\n", "cp1252", "cp1252"),
        (FINNISH, "cp850", "cp850"),
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN, "koi8_r", "koi8-r"),
        (GREEK, "cp1253", "cp1253"),
        (JAPANESE, "shift_jis", "shift_jis"),
        (CHINESE, "gb18030", "gb18030"),
    ],
)
def test_encodings_are_found(text: str, written: str, named: str, chunk: int) -> None:
    assert detect(text.encode(written), chunk) == named


@pytest.mark.parametrize("written", ["cp1252", "utf-8", "mac-roman"])
@pytest.mark.parametrize("size", [100, 5000, 3 << 20])
def test_one_sign_at_the_end_is_seen(written: str, size: int) -> None:
    head = ("y" * 99 + "\n") * (size // 100)
    data = (head + "Jyväskylä and the Café\n" + "Flat\n" * 10).encode(written)
    assert detect(data) == written
    assert detect(data, 7777) == written


@pytest.mark.parametrize("byte", [0x81, 0x8D, 0x8F, 0x90, 0x9D])
@pytest.mark.parametrize("late", [False, True])
def test_the_encoding_decodes_all_bytes_wherever_they_are(byte: int, late: bool) -> None:
    texts, odd = (FINNISH * 2000).encode("cp1252"), b"odd " + bytes([byte]) + b" sign\n"
    data = texts + odd if late else odd + texts
    name = detect(data, 10_000)
    assert name == "iso8859-1"  # the code page lacks this byte
    assert "Mäkinen" in data.decode(name)


def test_windows_signs_in_latin_1_are_mended_later() -> None:
    data = (ENGLISH + "\x81\n").encode("latin-1", "ignore") + ENGLISH.encode("cp1252")
    texts = data.decode(detect(data)).splitlines()[-2:]
    assert normalize(pa.array(texts)).text.to_pylist() == ENGLISH.splitlines()


@pytest.mark.parametrize("chunk", [50, 1 << 20])
def test_a_file_of_two_encodings_loses_nothing(chunk: int) -> None:
    data = (ENGLISH + JAPANESE + FINNISH).encode() * 3 + FINNISH.encode("cp1252")
    assert detect(data, chunk) == "utf-8-mended"
    rows = [line for line in data.decode("utf-8-mended").split("\n") if line]
    expected = [*(ENGLISH + JAPANESE + FINNISH).splitlines() * 3, *FINNISH.splitlines()]
    assert normalize(pa.array(rows)).text.to_pylist() == expected


def test_the_end_may_be_within_a_letter() -> None:
    assert detect("Flat\nCafé".encode("cp1252")) == "cp1252"
    assert detect((FINNISH + "Café").encode()[:-1]) == "utf-8-mended"


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"text,label\nFlat\0,neutral\n", "has NUL bytes"),
        (b"Flat,neutral\n" * 1000 + b"\0", "has NUL bytes"),
        (bytes(range(256)) * 20, "has NUL bytes"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + zlib.compress(random.Random(0).randbytes(9000)), "NUL"),
        (random.Random(1).randbytes(9000).replace(b"\0", b""), "is binary"),
        (b"\xff\xfeF\0l", "begins as utf-16 but is not"),
        (b"\xff\xfe\0\0" + b"\xff" * 8, "begins as utf-32 but is not"),
        (b"F\0l\0a\0t\0\n\0" * 2000 + b"\0\xd8F\0", "begins as utf-16-le but is not"),
        (bytes(random.Random(2).choices(range(0x80, 0x100), k=9000)), "is in no encoding"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, what: str, chunk: int) -> None:
    with pytest.raises(InputError) as caught:
        detect(data, chunk)
    remedy = "Set `encoding` to the file's encoding, e.g. cp1252 or utf-16, or name a text file"
    assert re.fullmatch(rf"data.sources: 'a.csv' .*{what}.*\. {remedy}\.", str(caught.value))


@examples(300)
@given(st.binary(max_size=300).map(lambda data: data.replace(b"\0", b"")))
def test_what_is_found_decodes_all_bytes(data: bytes) -> None:
    try:
        name = detect(data)
    except InputError:
        return
    assert isinstance(data.decode(name), str)


@examples(200)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.integers(1, 9))
def test_any_utf_8_is_found(text: str, chunk: int) -> None:
    assert (text + "€").encode().decode(detect((text + "€").encode(), chunk)).endswith("€")
    assert detect(("x" + text).encode(), chunk) == "utf-8"


@pytest.mark.parametrize(
    "written",
    ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "cp1252", "mac-roman"],
)
def test_arrow_knows_the_names(written: str) -> None:
    data = ("text,label\n" + FINNISH.replace("\n", ",neutral\n")).encode(written)
    options = csv.ReadOptions(encoding=detect(data))
    table = csv.read_csv(io.BytesIO(data), read_options=options)
    assert table["text"].to_pylist() == FINNISH.splitlines()


@pytest.mark.parametrize("share", ["All", "75", "66", "50"])
def test_phrasebank_is_latin(share: str) -> None:
    path = SHARED / "phrasebank" / f"Sentences_{share}Agree.txt"
    if not path.exists():
        pytest.skip("Financial PhraseBank is not here")
    data = path.read_bytes()
    name = detect(data)
    assert name == "cp1252"
    assert data.decode(name) == data.decode("iso8859-1")


ROCKET = "🚀".encode()


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("others", ["", "Nestlé says Böhler\n", "日本の売上\n"])
def test_half_an_emoji_is_lost_and_nothing_else(size: int, others: str) -> None:
    data = others.encode() + b"Flat\nTesla to the moon " + ROCKET[:size] + b",positive\n"
    if size == 1 and not others:
        data += "Nestlé\n".encode()
    name = detect(data)
    assert name == "utf-8-mended"
    text = data.decode(name)
    assert text.startswith(others)
    assert "Tesla to the moon \ufffd,positive" in text
    assert text.count("\ufffd") == 1


@pytest.mark.parametrize("size", [2, 3])  # the last byte alone is the euro of cp1252
def test_the_other_half_of_an_emoji_is_lost_too(size: int) -> None:
    data = "Nestlé, Böhler, Zoë, Café\n".encode() + ROCKET[-size:] + b" up\n"
    text = data.decode(detect(data))
    assert text.split("\n")[1] == "\ufffd" * size + " up"


def test_a_mark_before_mostly_utf_8_is_no_text() -> None:
    data = b"\xef\xbb\xbfFlat caf\xe9 and Nestl\xc3\xa9"
    assert data.decode(detect(data)) == "Flat café and Nestlé"


@examples(100)
@given(st.lists(st.sampled_from(["Nestlé", "5 €", "日本", "🚀", "a“b”", "x\n"]), min_size=3))
def test_mended_is_utf_8_where_all_of_it_is_valid_in_any_pieces(words: list[str]) -> None:
    text = " ".join(words)
    for size in (1, 3, 1000):
        decoder = codecs.getincrementaldecoder("utf-8-mended")()
        data = text.encode()
        pieces = [decoder.decode(data[s : s + size]) for s in range(0, len(data), size)]
        assert "".join(pieces) + decoder.decode(b"", True) == text
