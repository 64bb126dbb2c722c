"""Invented rows: the same for a seed, in the proportions promised, and counted exactly."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv

from benchmarks.synthetic import CHUNK_ROWS, expected, make_rows, write_rows
from finsent.data.config import DataConfig, SourceConfig
from finsent.normalize import normalize

pytestmark = pytest.mark.cost(1, "makes many rows")

ROWS = 20_000


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return make_rows(0, ROWS, seed=3)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(rows: pa.Table) -> None:
    assert make_rows(0, ROWS, seed=3).equals(rows)
    other = make_rows(0, ROWS, seed=4)
    same = np.intersect1d(rows["Sentence"].to_numpy(), other["Sentence"].to_numpy())
    assert same.tolist() in ([], [""])


@pytest.mark.parametrize(
    ("first", "end"), [(0, 1), (0, 1000), (999, 1001), (5000, 9999), (12_345, 20_000)]
)
def test_any_part_can_be_made_alone(rows: pa.Table, first: int, end: int) -> None:
    assert make_rows(first, end, seed=3).equals(rows.slice(first, end - first))


def test_chunks_do_not_show() -> None:
    start = CHUNK_ROWS - 50
    across = make_rows(start, start + 100)
    assert make_rows(CHUNK_ROWS, CHUNK_ROWS + 50).equals(across.slice(50))


def test_no_rows_is_an_empty_table() -> None:
    assert make_rows(0, 0).num_rows == 0


def test_files_hold_the_rows_in_order_and_need_a_csv_reader(rows: pa.Table, tmp_path: Path) -> None:
    paths = write_rows(tmp_path / "new", ROWS, files=3, seed=3)
    kept_as_written = csv.ConvertOptions(strings_can_be_null=False)
    tables = [csv.read_csv(path, convert_options=kept_as_written) for path in paths]
    assert [len(table) for table in tables] == [6666, 6667, 6667]
    assert pa.concat_tables(tables).equals(rows)
    assert '""' in paths[0].read_text("utf-8")


def _fates(rows: pa.Table) -> Counter[str]:
    """What becomes of each row, by the plainest program."""
    labels = defaultdict(list)
    fates: Counter[str] = Counter()
    texts = pc.utf8_lower(normalize(rows["Sentence"]).text).to_pylist()
    for text, label in zip(texts, rows["Sentiment"].to_pylist(), strict=True):
        if not text:
            fates["missing_text"] += 1
        elif label not in ("negative", "neutral", "positive"):
            fates["unknown_label"] += 1
        else:
            labels[text].append(label)
    for row_labels in labels.values():
        if len(set(row_labels)) > 1:
            fates["conflicts"] += len(row_labels)
            fates["conflict_texts"] += 1
        else:
            fates["kept"] += 1
            fates["duplicates"] += len(row_labels) - 1
    return fates


@pytest.mark.parametrize("count", [1, 879, 905, 1000, 1990, ROWS])
def test_what_is_expected_is_what_happens(rows: pa.Table, count: int) -> None:
    promised = expected(count, seed=3)
    fates = _fates(rows.slice(0, count))
    for fate in (
        "missing_text",
        "unknown_label",
        "duplicates",
        "conflicts",
        "conflict_texts",
        "kept",
    ):
        assert fates[fate] == getattr(promised, fate), fate


def test_repairs_are_as_expected(rows: pa.Table) -> None:
    promised, done = expected(ROWS, seed=3), normalize(rows["Sentence"])
    assert (done.mojibake, done.entities) == (promised.mojibake, promised.entities)


def test_proportions() -> None:
    promised = expected(1_000_000)
    assert promised.near == 30_000
    assert promised.unknown_label + promised.missing_text == 1000
    assert 75_000 < promised.duplicates < 80_000
    assert 9_000 < promised.conflict_texts < 10_000
    assert 3000 < promised.mojibake < 7000
    assert 3000 < promised.entities < 7000


def test_lengths_are_those_of_financial_news(rows: pa.Table) -> None:
    texts = rows["Sentence"].to_pylist()
    words = np.array([len(text.split()) for text in texts])
    characters = np.array([len(text) for text in texts])
    assert 18 < words.mean() < 24
    assert 36 < np.percentile(words, 95) < 46
    assert 105 < characters.mean() < 135


def test_hard_signs_occur(rows: pa.Table) -> None:
    texts = "\n".join(rows["Sentence"].to_pylist())
    for sign in (
        "€",
        "é",
        "Ma\u0301",
        "\u2019",
        "“",
        "&amp;",
        "&#8217;",
        "Ã¼",
        "â\u201a¬",
        '"',
        ",",
    ):
        assert sign in texts, sign


def test_duplicates_differ_in_case_and_spacing_only(rows: pa.Table) -> None:
    spellings = defaultdict(set)
    for text in rows["Sentence"].to_pylist():
        spellings[" ".join(text.split()).lower()].add(text)
    several = [texts_of_key for texts_of_key in spellings.values() if len(texts_of_key) > 1]
    assert any(text.isupper() for texts_of_key in several for text in texts_of_key)
    assert any("  " in text for texts_of_key in several for text in texts_of_key)


def test_accidental_near_texts_are_rare(rows: pa.Table) -> None:
    """Only the promised rows share most of an older text: by its words but one, in order."""
    texts = {" ".join(text.lower().split()) for text in rows["Sentence"].to_pylist()}
    seen: Counter[str] = Counter()
    for text in texts:
        words = text.split()
        if len(words) > 4:
            seen.update({" ".join([*words[:i], "*", *words[i + 1 :]]) for i in range(len(words))})
    pairs = sum(count - 1 for count in seen.values() if count > 1)
    promised = expected(ROWS, seed=3).near
    assert 0.9 * promised < pairs < 1.2 * promised


def test_the_rows_pass_the_default_limit_of_rejected_ones() -> None:
    promised = expected(ROWS)
    config = DataConfig(sources=[SourceConfig(uri="x.csv")])
    rejected = promised.unknown_label + promised.missing_text
    assert rejected / promised.rows <= config.max_rejected_fraction
