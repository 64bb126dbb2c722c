"""Cleaning of rows: labels, units of the split, and reasons of rejected rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.data.config import DataConfig, SourceConfig, SplitConfig, TimeSplitConfig
from finsent.data.readers.columns import ROWS
from finsent.data.rows.clean import GOOD, REJECTED, Cleaned, clean, parse_times
from finsent.labels import LABELS
from finsent.normalize import key64, text_keys
from tests.properties import examples

PLAIN = SourceConfig(uri="news.csv")
BLANK = {
    "source": 3,
    "row": 2,
    "raw_text": "Flat",
    "raw_label": "neutral",
    "unit": None,
    "fault": None,
}


def cleaned(
    rows: Sequence[dict[str, Any]],
    source: SourceConfig = PLAIN,
    excluded: bool = False,
    **changed: Any,
) -> Cleaned:
    table = pa.Table.from_pylist([BLANK | row for row in rows], schema=ROWS)
    result = clean(table, source, excluded, DataConfig(**changed))
    assert (result.good.schema, result.rejected.schema) == (GOOD, REJECTED)
    assert len(result.good) + len(result.rejected) == len(rows)
    return result


def labels(spellings: Sequence[str | None], **source: Any) -> list[str | None]:
    """The label of each spelling, or None where its row is rejected as of an unknown one."""
    rows = [{"row": n, "raw_label": spelling} for n, spelling in enumerate(spellings)]
    result = cleaned(rows, SourceConfig(uri="news.csv", **source))
    reasons = dict(zip(*(result.rejected[c].to_pylist() for c in ("row", "reason")), strict=True))
    assert set(reasons.values()) <= {"unknown_label"}
    ids = dict(zip(*(result.good[c].to_pylist() for c in ("row", "label")), strict=True))
    return [LABELS[ids[n]] if n in ids else None for n in range(len(spellings))]


# --- labels ---------------------------------------------------------------------------------------


def test_labels_are_case_insensitive() -> None:
    spellings = ["negative", "Neutral", " POSITIVE\t", "\xa0positive", "bullish", "1", "positive."]
    expected = ["negative", "neutral", "positive", "positive", None, None, None]
    assert labels(spellings) == expected


@pytest.mark.parametrize(
    ("label_map", "spellings", "expected"),
    [
        (
            {"Bullish": "positive", "bearish ": "negative"},
            ["bullish", " BULLISH ", "Bearish", "neutral", "bull"],
            ["positive", "positive", "negative", "neutral", None],
        ),
        (
            {0: "negative", 1: "neutral", 2: "positive"},
            ["0", "1", "2", "0.0", "2.0", "3", "00", "-0", "1.5"],
            ["negative", "neutral", "positive", "negative", "positive", None, None, None, None],
        ),
        ({-1: "negative"}, ["-1", "-1.0", "1"], ["negative", "negative", None]),
        # A Parquet column of floats says 1 where pandas shows 1.0.
        ({1.0: "positive", -1.0: "negative"}, ["1.0", "1", "-1"], [*["positive"] * 2, "negative"]),
        ({0.5: "positive"}, ["0.5", "0.50", ".5"], ["positive", None, None]),
        ({True: "positive", False: "negative"}, ["true", "False"], ["positive", "negative"]),
        ({"ÜBER": "positive"}, ["über", "Über"], ["positive", "positive"]),
        ({"positive": "negative"}, ["positive", "Positive"], ["negative", "negative"]),
    ],
)
def test_label_map(
    label_map: dict[Any, str], spellings: list[str], expected: list[str | None]
) -> None:
    assert labels(spellings, label_map=label_map) == expected


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("-0.11", "negative"),
        ("-0.1", "neutral"),  # the bounds belong to neutral
        ("0", "neutral"),
        ("2e-1", "neutral"),
        (" 0.2 ", "neutral"),
        ("0.2000001", "positive"),
        ("-3", "negative"),
        ("Infinity", None),
        ("-inf", None),
        ("NaN", None),
        ("nan", None),
        ("0,5", None),
        ("positive", None),
    ],
)
def test_thresholds(score: str, expected: str | None) -> None:
    assert labels([score], thresholds=(-0.1, 0.2)) == [expected]


@examples(50)
@given(st.lists(st.floats(-1, 1), min_size=1))
def test_higher_scores_never_have_lower_labels(scores: list[float]) -> None:
    score_labels = labels([repr(score) for score in sorted(scores)], thresholds=(0, 0))
    ids = [LABELS.index(label) for label in score_labels if label]
    assert len(ids) == len(scores)
    assert ids == sorted(ids)
    assert [label == "neutral" for label in score_labels] == [
        score == 0 for score in sorted(scores)
    ]


# --- unusable rows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"raw_text": ""}, "missing_text"),
        ({"raw_text": None}, "missing_text"),
        ({"raw_text": " \u200b\n"}, "missing_text"),
        ({"raw_label": ""}, "missing_label"),
        ({"raw_label": " \t\xa0"}, "missing_label"),
        ({"raw_label": None}, "missing_label"),
        ({"raw_label": "bullish"}, "unknown_label"),
        ({"raw_label": "2"}, "unknown_label"),
        ({"raw_text": "x" * 21}, "text_too_long"),
        ({"raw_text": "é" * 20}, None),  # characters, not bytes
        ({"raw_text": "x" + " " * 90 + "y"}, None),  # as long as it is after normalizing
        ({"raw_text": "a,b", "raw_label": None, "fault": "malformed_row: x"}, "malformed_row: x"),
        # The first that applies, in the order in which one would mend them.
        ({"raw_text": "", "raw_label": ""}, "missing_text"),
        ({"raw_text": "x" * 21, "raw_label": "bullish"}, "text_too_long"),
        ({"raw_text": "", "fault": "swallowed_rows: x"}, "swallowed_rows: x"),
    ],
)
@pytest.mark.parametrize("companions", [0, 1])
def test_reasons(row: dict[str, Any], reason: str | None, companions: int) -> None:
    result = cleaned([{"row": 9, **row}] + [{}] * companions, max_chars=20)
    assert len(result.good) == companions + (reason is None)
    raw = BLANK | row
    assert result.rejected.to_pylist() == [
        {"source": 3, "row": 9, "reason": reason}
        | {name: raw[name] for name in ("raw_text", "raw_label")}
    ] * (reason is not None)


def test_an_excluded_text_needs_no_label_and_no_unit() -> None:
    rows: list[dict[str, Any]] = [
        {"raw_label": None, "raw_text": "Flat"},
        {"raw_label": "bullish", "raw_text": "Up"},
        {"raw_label": "positive", "raw_text": ""},
    ]
    result = cleaned(rows, excluded=True, split=SplitConfig(group_by="firm"))
    assert result.good["text"].to_pylist() == ["Flat", "Up"]
    assert result.good["label"].to_pylist() == [None, None]
    assert result.good["unit"].null_count == 0
    assert result.rejected["reason"].to_pylist() == ["missing_text"]


# --- texts and keys -------------------------------------------------------------------------------


def test_the_raw_text_is_kept_only_where_it_differs() -> None:
    rows: list[dict[str, Any]] = [
        {"row": 5, "raw_text": " Up\t5 "},
        {"row": 4, "raw_text": "Up 5"},
        {"row": 6},
    ]
    good = cleaned(rows).good
    assert good["row"].to_pylist() == [5, 4, 6]  # their order
    assert good["text"].to_pylist() == ["Up 5", "Up 5", "Flat"]
    assert good["raw_text"].to_pylist() == [" Up\t5 ", None, None]


def test_key_and_unit_are_of_the_normalized_text() -> None:
    good_rows = cleaned([{"raw_text": text} for text in ("Up  5", "up 5", "Up 6")]).good
    assert good_rows["key"].to_pylist() == text_keys(pa.array(["up 5", "up 5", "up 6"])).to_pylist()
    assert good_rows["unit"].to_pylist() == key64(good_rows["key"]).tolist()


def test_repairs_are_counted() -> None:
    rows = [{"raw_text": text} for text in ("A &amp; B", "cafÃ© &lt;", "cafÃ©", "AT&T", "Flat")]
    result = cleaned(rows)
    assert (result.mojibake, result.entities) == (2, 2)
    assert result.good["text"].to_pylist() == ["A & B", "café <", "café", "AT&T", "Flat"]


def test_blocks_without_rows_and_in_several_chunks() -> None:
    assert cleaned([]) == Cleaned(GOOD.empty_table(), REJECTED.empty_table(), 0, 0, 0)
    table = pa.Table.from_pylist([BLANK, BLANK | {"raw_label": "x"}, BLANK], schema=ROWS)
    chunked = pa.concat_tables([table.slice(0, 0), table.slice(1, 1), table.slice(2)])
    result = clean(chunked, PLAIN, False, DataConfig())
    assert (len(result.good), len(result.rejected)) == (1, 1)
    assert clean(ROWS.empty_table(), PLAIN, False, DataConfig()).good.schema == GOOD


@examples(40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "", "Flat", "Sales  rose", "x" * 30, "Café &amp;"]),
            st.sampled_from([None, " ", "neutral", "Positive", "bullish", "1.0"]),
            st.sampled_from([None, "malformed_row: x"]),
        ),
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_no_row_is_lost_and_none_depends_on_its_block(
    records: list[tuple[str | None, str | None, str | None]], cut: int
) -> None:
    rows = [
        {"row": n, "raw_text": text, "raw_label": label, "fault": fault}
        for n, (text, label, fault) in enumerate(records)
    ]
    complete, parts = cleaned(rows), [cleaned(block) for block in (rows[:cut], rows[cut:])]
    assert pa.concat_tables([block.good for block in parts]) == complete.good
    assert pa.concat_tables([block.rejected for block in parts]) == complete.rejected
    numbers = complete.good["row"].to_pylist() + complete.rejected["row"].to_pylist()
    assert sorted(numbers) == list(range(len(rows)))


# --- what decides the split -----------------------------------------------------------------------


def test_rows_of_one_group_have_one_unit() -> None:
    firms = ["Nokia", " Nokia ", "Kone", None, "", "\t", "nokia"]
    rows = [{"row": n, "raw_text": f"Unit {n}", "unit": firm} for n, firm in enumerate(firms)]
    result = cleaned(rows, split=SplitConfig(group_by="firm"))
    unit, unit_of_same, other_unit, lowercase_unit = result.good["unit"].to_pylist()
    assert unit == unit_of_same
    assert len({unit, other_unit, lowercase_unit}) == 3
    assert result.rejected["row"].to_pylist() == [3, 4, 5]
    assert set(result.rejected["reason"].to_pylist()) == {"missing_group"}
    alone = cleaned(rows[2:3], split=SplitConfig(group_by="firm"))
    assert alone.good["unit"].to_pylist() == [other_unit]  # in another block, on another machine


def time_units(values: Sequence[str | None], first: str, second: str) -> list[int | None]:
    time = TimeSplitConfig(column="day", validation_from=first, test_from=second)
    rows = [{"row": n, "unit": value} for n, value in enumerate(values)]
    result = cleaned(rows, split=SplitConfig(time=time))
    faults = {"missing_time", *(f"unknown_time: {value}" for value in values)}
    assert {*result.rejected["reason"].to_pylist()} <= faults
    units = dict(zip(*(result.good[c].to_pylist() for c in ("row", "unit")), strict=True))
    return [units.get(n) for n in range(len(values))]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2023-12-31", 0),
        ("2023-12-31T23:59:59.999999", 0),
        ("2024-01-01", 1),
        ("2024-01-01 00:00:00.000000", 1),
        ("2024-01-01T01:00+02:00", 0),  # 23:00 in UTC
        ("2024-06-30 22:00:00.000000-0500", 2),
        ("2024-07-01 00:00:00.000Z", 2),
        ("20240701", 2),
        ("9999-12-31", 2),
        ("0001-01-01", 0),
        *(
            (value, None)
            for value in (
                None,
                "",
                "soon",
                "now",
                "today",
                "NaT",
                "nan",
                "07/01/2024",
                "2024-02-30",
                "12",
            )
        ),
    ],
)
def test_times_split_the_rows(value: str | None, expected: int | None) -> None:
    assert time_units([value, "2024-03-01"], "2024-01-01", "2024-07-01") == [expected, 1]


@pytest.mark.parametrize(
    "first",
    [
        "2024-01-01",
        "20240101",
        "2024-01-01T00:00",
        "2024-01-01T02:00+02:00",
        "2024-W01-1",  # Python reads this, too
        "2024-01-01x00:00",  # and any sign between date and time
    ],
)
def test_every_valid_time_bound_splits_the_rows(first: str) -> None:
    days = ["2023-12-31", "2024-01-01", "2024-07-01"]
    assert time_units(days, first, "2024-07-01") == [0, 1, 2]


def test_times_of_mixed_precision_and_zone_are_ordered() -> None:
    times = parse_times(["2024-01-01", "2024-01-01T00:00:00.000001Z", "2024-01-01T00:30-01:00"])
    assert np.diff(times.to_numpy()).astype("timedelta64[us]").astype(int).tolist() == [
        1,
        5_399_999_999,
    ]
