"""Normalised texts, keys of duplicates, and the reasons of rejected rows."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

import pyarrow as pa
import pytest

from finsent.data.clean import CLEAN, clean, normalise, text_keys
from finsent.data.config import DataConfig
from finsent.data.sources import ROWS
from finsent.labels import LABELS

# Spaces, marks that are not seen, accents alone, letters with two spellings, and some that matter.
TRICKY: list[str] = [
    *map(chr, [0, 7, 9, 10, 13, 0x1B, 0x20, 0x7F, 0x85, 0xA0, 0xAD, 0x34F, 0x115F, 0x1680, 0x180E]),
    *map(chr, [0x2000, 0x200B, 0x200D, 0x200F, 0x2028, 0x202F, 0x2060, 0x3000, 0x3164, 0xFEFF]),
    *map(chr, [0x300, 0x301, 0x308, 0x327, 0x338, 0x344, 0x3099, 0xE0061, 0x1D165]),
    *"eEoÅK Ωſß=<>가각か\ufb1d\u0958\u2adc\u212b\u2126\u037e\U0001f600",
]


def norm(text: str) -> str:
    return str(normalise(pa.array([text]))[0].as_py())


def key(text: str) -> str:
    return str(text_keys(normalise(pa.array([text])))[0].as_py())


def cleaned(rows: list[dict[str, Any]], **changed: Any) -> list[dict[str, Any]]:
    blank = {"source": 0, "row": 2, "raw_text": "Flat", "raw_label": "neutral", "fault": None}
    table = pa.Table.from_pylist([blank | row for row in rows], schema=ROWS)
    out = clean(table, DataConfig(**changed))
    assert out.schema == CLEAN
    found: list[dict[str, Any]] = out.to_pylist()
    return found


def random_texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)

    def letter() -> str:
        if rng.random() < 0.7:
            return rng.choice(TRICKY)
        code = rng.randrange(0x110000 - 0x800)  # all but the surrogates, which no file can hold
        return chr(code if code < 0xD800 else code + 0x800)

    return ["".join(letter() for _ in range(rng.randint(0, 12))) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Net sales  rose\t5 %", "Net sales rose 5 %"),
        ("  \n both ends \r\n", "both ends"),
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
        ("$AAPL -3.5% (q/q) & \"more\"", "$AAPL -3.5% (q/q) & \"more\""),
        ("", ""),
        (" \u200b\t\ufeff ", ""),
    ],
)  # fmt: skip
def test_normalise(text: str, wanted: str) -> None:
    assert norm(text) == wanted


def test_normalise_is_idempotent_and_leaves_nothing_unseen_on_random_text() -> None:
    texts = random_texts(20_000, seed=1)
    once = normalise(pa.array(texts))
    assert normalise(once).to_pylist() == once.to_pylist()
    for text, out in zip(texts, once.to_pylist(), strict=True):
        assert unicodedata.is_normalized("NFC", out), ascii(text)
        assert out == " ".join(out.split()), ascii(text)
        assert not [c for c in out if unicodedata.category(c) in ("Cc", "Cf")], ascii(text)


def test_canonically_equal_spellings_become_one() -> None:
    texts = random_texts(5000, seed=2)
    decomposed = [unicodedata.normalize("NFD", text) for text in texts]
    composed = normalise(pa.array(texts)).to_pylist()
    assert normalise(pa.array(decomposed)).to_pylist() == composed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Profit ROSE", "profit rose", True),
        ("Profit  rose ", "Profit rose", True),
        ("caf\xe9", "CAFE\u0301", True),
        ("zero\u200bwidth", "zerowidth", True),
        ("Profit rose.", "Profit rose", False),
        ("up 5%", "up 5 %", False),
        ("cafe", "caf\xe9", False),
    ],
)
def test_keys_are_equal_for_duplicates_alone(one: str, other: str, same: bool) -> None:
    assert (key(one) == key(other)) is same


def test_keys_are_the_same_everywhere_and_spread() -> None:
    assert key("Profit rose") == "1d1c7580d1659f493ce4129f24d5a408"  # datasets' splits hang on it
    keys = text_keys(pa.array([f"Sentence {i}" for i in range(1000)])).to_pylist()
    assert len({k[:8] for k in keys}) == 1000
    assert {len(k) for k in keys} == {32}


@pytest.mark.parametrize(
    ("label", "wanted"),
    [(label, label) for label in LABELS]
    + [("Positive", "positive"), (" NEUTRAL\t", "neutral"), ("\xa0negative", "negative")],
)
def test_labels_become_ids(label: str, wanted: str) -> None:
    (row,) = cleaned([{"raw_label": label}])
    assert LABELS[row["label"]] == wanted
    assert row["reason"] is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"raw_text": ""}, "missing_text"),
        ({"raw_text": " \u200b\n"}, "missing_text"),
        ({"raw_label": ""}, "missing_label"),
        ({"raw_label": " \t"}, "missing_label"),
        ({"raw_label": None}, "missing_label"),
        ({"raw_label": "bullish"}, "unknown_label"),
        ({"raw_label": "2"}, "unknown_label"),
        ({"raw_label": "positive."}, "unknown_label"),
        ({"raw_text": "x" * 21}, "text_too_long"),
        ({"raw_text": "é" * 20}, None),  # characters, not bytes
        ({"raw_text": "x" + " " * 90 + "y"}, None),  # as long as it is after normalising
        ({"raw_text": "a,b", "raw_label": None, "fault": "malformed_row: x"}, "malformed_row: x"),
        # The first that applies, in the order in which one would mend them.
        ({"raw_text": "", "raw_label": ""}, "missing_text"),
        ({"raw_text": "x" * 21, "raw_label": "bullish"}, "text_too_long"),
        ({"raw_text": "", "fault": "malformed_row: x"}, "malformed_row: x"),
    ],
)
def test_bad_rows_get_their_reason_and_no_label(row: dict[str, Any], reason: str | None) -> None:
    (out,) = cleaned([row], max_chars=20)
    assert out["reason"] == reason
    assert (out["label"] is None) is (reason is not None)


def test_rows_keep_their_order_their_places_and_their_raw_form() -> None:
    rows: list[dict[str, Any]] = [
        {"source": 1, "row": 9, "raw_text": " A\tb ", "raw_label": "Positive"},
        {"source": 0, "row": 2, "raw_text": "", "raw_label": "x"},
        {"source": 0, "row": 3},
    ]
    out = cleaned(rows)
    assert [(r["source"], r["row"]) for r in out] == [(1, 9), (0, 2), (0, 3)]
    assert (out[0]["raw_text"], out[0]["raw_label"], out[0]["text"]) == (
        " A\tb ",
        "Positive",
        "A b",
    )
    assert [r["reason"] for r in out] == [None, "missing_text", None]


def test_a_block_without_rows_stays_one() -> None:
    assert cleaned([]) == []
