"""The fate of every row: kept, duplicate, conflict or excluded, and exactly one of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.data.config import DataConfig
from finsent.data.ingest.settle import KEPT, Settled, excluded_rows, settle
from finsent.labels import LABELS
from tests.properties import examples
from tests.unit.settling import SOURCES, G, N, P, Record, key, settled, table, traits

pytestmark = pytest.mark.cost(1.5, "tries many corpora")


POLICIES: list[Any] = [
    "drop",
    "majority",
    "priority",
    "keep",
    "error",
    {"prefer": [G, P]},
    {"prefer": [N]},
]


def places(rows: pa.Table) -> list[tuple[int, int]]:
    sources = [int(s[1]) if isinstance(s, str) else s for s in rows["source"].to_pylist()]
    return sorted(zip(sources, rows["row"].to_pylist(), strict=True))


# --- what holds whatever the rows are -------------------------------------------------------------


@st.composite
def record_lists(draw: st.DrawFn) -> list[Record]:
    """Few texts under many labels, in the order of the sources, as the exchange delivers them."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, len(SOURCES) - 1),
                st.sampled_from(["Firm A grew", "FIRM A grew", "Firm B", "Firm C", "D"]),
                st.sampled_from([P, P, N, G]),
            ),
            max_size=25,
        )
    )
    return [
        Record(source, row, text, None if SOURCES[source].excluded else label)
        for row, (source, text, label) in enumerate(sorted(drawn, key=lambda d: d[0]), start=2)
    ]


class Corpus:
    """Labeled rows by text, for checks of their fates."""

    def __init__(self, records: list[Record]) -> None:
        self.labeled = [record for record in records if record.label is not None]
        self.unseen = {record.text.lower() for record in records if record.label is None}
        self.texts: dict[str, list[Record]] = {}
        for record in self.labeled:
            if record.text.lower() not in self.unseen:
                self.texts.setdefault(record.text.lower(), []).append(record)
        self.disputed = {
            text: rows for text, rows in self.texts.items() if len({row.label for row in rows}) > 1
        }


def check_kept(corpus: Corpus, kept: pa.Table, policy: Any) -> dict[str, list[str]]:
    """Check the kept rows, and return the labels of each kept text."""
    assert kept.schema == KEPT
    keys = kept["key"].to_pylist()
    assert keys == sorted(keys)
    first_records: dict[tuple[str, str | None], Record] = {}
    for record in corpus.labeled:
        first_records.setdefault((record.text.lower(), record.label), record)
    text_of_key = {key(text): text for text in corpus.texts}
    chosen: dict[str, list[str]] = {}
    for row in kept.to_pylist():
        text, label = text_of_key[row["key"]], LABELS[row["label"]]
        first_record = first_records[text, label]  # in the order of the sources
        assert (row["source"], row["row"], row["text"]) == (
            first_record.source,
            first_record.row,
            first_record.text,
        )
        chosen.setdefault(text, []).append(label)
    if policy == "keep":
        assert {text: set(labels) for text, labels in chosen.items()} == {
            text: {row.label for row in rows} for text, rows in corpus.texts.items()
        }
    assert policy == "keep" or all(len(labels) == 1 for labels in chosen.values())
    assert corpus.texts.keys() - chosen.keys() <= corpus.disputed.keys()  # only a conflict drops
    return chosen


def check_decisions(
    corpus: Corpus, result: Settled, policy: Any, chosen: dict[str, list[str]]
) -> None:
    """Check the table of conflicts: every row of every disputed text, with the decision."""
    assert places(result.conflicts) == sorted(
        (row.source, row.row) for rows in corpus.disputed.values() for row in rows
    )
    assert sum(result.decisions.values()) == len(corpus.disputed)
    expected = {
        text: f"kept as {chosen[text][0]}" if text in chosen else "dropped"
        for text in corpus.disputed
    }
    if policy == "keep":
        expected = dict.fromkeys(corpus.disputed, "kept under each label")
    columns = (result.conflicts[name].to_pylist() for name in ("text", "decision"))
    assert {text.lower(): decision for text, decision in zip(*columns, strict=True)} == expected
    assert result.decisions == Counter(expected.values())


@examples(250)
@given(record_lists(), st.sampled_from(POLICIES))
def test_every_labeled_row_has_exactly_one_fate(records: list[Record], policy: Any) -> None:
    result, corpus = settled(records, policy), Corpus(records)

    # All fates together, source by source, are all labeled rows.
    total = np.sum([result.fates[fate] for fate in result.fates], axis=0)
    row_counts = [sum(row.source == s for row in corpus.labeled) for s in range(len(SOURCES))]
    assert total.tolist() == row_counts
    assert set(result.fates) == {"kept", "duplicates", "conflicts", "excluded"}

    # What must stay unseen takes precedence over everything else.
    excluded = [row for row in corpus.labeled if row.text.lower() in corpus.unseen]
    assert places(result.excluded) == sorted((row.source, row.row) for row in excluded)
    assert set(result.excluded["reason"].to_pylist()) <= {"same_as_excluded"}

    chosen = check_kept(corpus, result.kept, policy)
    check_decisions(corpus, result, policy, chosen)

    # No classifier can be right more often than on each text's most frequent label.
    assert result.best_votes == sum(
        max(Counter(row.label for row in rows).values()) for rows in corpus.texts.values()
    )
    assert result.kept_best_votes == len(chosen)


@examples(100)
@given(record_lists(), st.sampled_from(POLICIES), st.integers(2, 4), st.randoms())
def test_partitions_and_their_order_change_nothing(
    records: list[Record], policy: Any, partitions: int, random: Any
) -> None:
    complete = settled(records, policy)
    spread = [[r for r in records if key(r.text)[0] % partitions == p] for p in range(partitions)]
    for rows in spread:  # the texts in another order, each text's rows in theirs
        rank = {text.lower(): random.random() for text in (r.text for r in rows)}
        rows.sort(key=lambda r: rank[r.text.lower()])
    parts = [settled(rows, policy) for rows in spread]
    for name in ("kept", "conflicts", "excluded", "texts"):
        joined = pa.concat_tables([getattr(block, name) for block in parts])
        together = [("key", "ascending"), ("label" if name == "kept" else "key", "ascending")]
        table = getattr(complete, name)
        assert joined.schema == table.schema
        assert joined.sort_by(together).to_pylist() == table.sort_by(together).to_pylist()
    for fate in complete.fates:
        added = np.sum([block.fates[fate] for block in parts], axis=0)
        assert added.tolist() == complete.fates[fate].tolist()
    assert sum((block.decisions for block in parts), Counter()) == complete.decisions
    assert sum(block.best_votes for block in parts) == complete.best_votes


# --- texts ----------------------------------------------------------------------------------------


def test_texts_to_compare_do_not_depend_on_labels() -> None:
    records = [
        Record(0, 7, "Up", P),
        Record(0, 9, "Down", G),
        Record(1, 3, "Seen elsewhere", None),
        Record(2, 2, "UP", G),
        Record(3, 4, "seen elsewhere", N),
    ]
    for policy in POLICIES:
        rows = sorted(settled(records, policy).texts.to_pylist(), key=lambda row: row["order"])
        assert [(row["text"], row["excluded"]) for row in rows] == [
            ("Up", False),  # dropped by some policies
            ("Down", False),
            ("Seen elsewhere", True),
        ]
        assert [row["order"] for row in rows] == [7, 9, (1 << 40) + 3]
        assert [row["key"] for row in rows] == [
            int.from_bytes(key(row["text"])[:8], "big") for row in rows
        ]


def test_keys_that_share_their_first_half_are_two_texts() -> None:
    first, second = b"same-hlf" + b"a" * 8, b"same-hlf" + b"b" * 8
    records = [
        Record(0, 2, "Up", P),
        Record(0, 3, "Down", G),
        Record(0, 4, "up", P),
        Record(2, 2, "UP", P),
    ]
    keys = [second, first, second, second]
    result = settle(table(records, keys), traits(SOURCES), DataConfig())
    kept_texts = [(row["key"], row["text"]) for row in result.kept.to_pylist()]
    assert kept_texts == [(first, "Down"), (second, "Up")]
    assert result.fates["duplicates"].tolist() == [1, 0, 1, 0, 0]


# --- odd tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("records", [[], [Record(1, 2, "Unseen", None)]])
def test_no_labeled_rows_give_empty_tables(records: list[Record], policy: Any) -> None:
    result, full = settled(records, policy), settled([Record(0, 2, "a", P), Record(0, 3, "a", G)])
    for name in ("kept", "conflicts", "excluded"):
        assert len(getattr(result, name)) == 0
        assert getattr(result, name).schema == getattr(full, name).schema
    assert result.texts.schema == full.texts.schema
    assert len(result.texts) == len(records)
    assert all(counts.tolist() == [0] * len(SOURCES) for counts in result.fates.values())
    assert (result.best_votes, result.kept_best_votes, result.decisions) == (0, 0, {})


def test_rows_in_chunks_and_slices_are_settled_as_one_table() -> None:
    records = [Record(0, n, f"Firm {n % 5}", P if n % 7 else G) for n in range(2, 40)]
    complete = table(records)
    chunked = pa.concat_tables([complete.slice(0, 0), complete.slice(0, 11), complete.slice(11)])
    sliced = pa.concat_tables([table(records[:3]), complete]).combine_chunks().slice(3)
    for other in (chunked, sliced):
        result = settle(other, traits(SOURCES), DataConfig(conflicts="majority"))
        assert result.kept == settled(records, "majority").kept


def test_rows_excluded_later_have_the_same_columns() -> None:
    result = settled([Record(0, 2, "Up", P), Record(1, 2, "Flat", None), Record(2, 3, "Flat", N)])
    near = np.array([1 << 40 | 2], np.uint64)
    later = excluded_rows(result.kept, np.array([True]), "near_excluded", near, traits(SOURCES))
    assert later.schema == result.excluded.schema
    [row] = later.to_pylist()
    assert row == {
        "key": key("up").hex(),
        "text": "Up",
        "label": P,
        "source": "s0.csv",
        "row": 2,
        "raw_text": "Up",
        "reason": "near_excluded",
        "match_source": "s1.csv",
        "match_row": 2,
    }
    [same] = result.excluded.to_pylist()
    assert (same["reason"], same["match_source"], same["match_row"]) == (
        "same_as_excluded",
        "s1.csv",
        2,
    )
