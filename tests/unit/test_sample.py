"""The sample corpus follows its guidelines."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path

import pytest

from finsent.labels import LABELS
from finsent.normalize import normalize

Row = tuple[str, str]


def grams(sentence: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", sentence.lower())
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)} or {tuple(words)}


@pytest.fixture(scope="module")
def raw() -> bytes:
    return (resources.files("finsent.data.sample") / "sentences.csv").read_bytes()


@pytest.fixture(scope="module")
def rows(raw: bytes) -> list[Row]:
    lines = csv.reader(raw.decode("utf-8").splitlines())
    assert next(lines) == ["Sentence", "Sentiment"]
    return [(sentence, label) for sentence, label in lines]


def test_encoding_is_plain_utf8(raw: bytes) -> None:
    text = raw.decode("utf-8")
    assert not text.startswith("\ufeff")
    assert "\r" not in text
    assert "\ufffd" not in text
    assert len(raw) < 500_000


def test_sentences_are_clean(rows: list[Row]) -> None:
    import pyarrow as pa

    sentences = [sentence for sentence, _ in rows]
    assert normalize(pa.array(sentences)).text.to_pylist() == sentences
    assert all(3 <= len(s.split()) <= 80 for s in sentences)


def test_size_and_balance(rows: list[Row]) -> None:
    assert len(rows) >= 1500
    shares = {
        label: count / len(rows) for label, count in Counter(label for _, label in rows).items()
    }
    assert set(shares) == set(LABELS)
    assert 0.45 <= shares["neutral"] <= 0.55
    assert 0.25 <= shares["positive"] <= 0.35
    assert 0.15 <= shares["negative"] <= 0.25


def test_no_two_sentences_share_more_than_60_percent_of_their_3_grams(rows: list[Row]) -> None:
    sets = [grams(sentence) for sentence, _ in rows]
    where: dict[tuple[str, ...], list[int]] = defaultdict(list)
    close = []
    for i, own_grams in enumerate(sets):
        shared = Counter(j for gram in own_grams for j in where[gram])
        close += [
            (rows[j][0], rows[i][0])
            for j, count in shared.items()
            if count > 0.6 * min(len(own_grams), len(sets[j]))
        ]
        for gram in own_grams:
            where[gram].append(i)
    assert close == []


def test_no_sentence_stands_in_the_real_data(rows: list[Row], shared_data: Path) -> None:
    def key(text: str) -> str:
        return " ".join(re.findall(r"\w+", text.lower()))

    ours = {key(sentence) for sentence, _ in rows}
    with (shared_data / "financial-sentiment.csv").open(encoding="utf-8", newline="") as stream:
        theirs = {key(row["Sentence"]) for row in csv.DictReader(stream)}
    for file in (shared_data / "phrasebank").glob("*.txt"):
        lines = file.read_text(encoding="iso-8859-1").splitlines()
        theirs |= {key(line.rpartition("@")[0]) for line in lines}
    assert len(theirs) > 4000
    assert not ours & theirs
