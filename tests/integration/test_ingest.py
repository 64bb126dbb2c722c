"""Ingest on a local Ray: fates, versions, errors."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray.data
from ray.data._internal.block_batching.util import iter_threaded

import finsent.data.ingest.ingest as ingest_module
from finsent.adapters.ray_core import join_reader_threads
from finsent.data.rows.split import SPLITS
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.manifest import FateCounts
from finsent.errors import InputError, UserError
from finsent.signals import find_cause
from tests.integration.ingested import LABELS, content, make, write_csv


def good_rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [(f"Unit {i} sold {i * 7} pumps", LABELS[i % 3]) for i in range(start, start + count)]


def test_every_row_has_one_fate(tmp_path: Path) -> None:
    first_file = write_csv(
        tmp_path / "first.csv",
        [
            *good_rows(300),
            ("Unit 5  sold\u200b 35 pumps", "negative"),  # the same text as row 5, same label
            ("UNIT 7 SOLD 49 PUMPS", "positive"),  # in conflict with row 7
            ("", "neutral"),
            ("What is this?", "bullish"),
        ],
    )
    second = write_csv(tmp_path / "second.csv", [*good_rows(100, start=250), ("No label here", "")])
    version = make(tmp_path / "out", [first_file, second], "data.max_rejected_fraction=0.02")
    counts = version.manifest.counts
    assert counts == FateCounts(
        rows_in=405, kept=349, rejected=3, duplicates=51, conflicts=2, excluded=0
    )
    rejected = pq.read_table(version.path / "rejected.parquet").to_pylist()
    assert [(r["source"], r["row"], r["reason"]) for r in rejected] == [
        ("first.csv", 304, "missing_text"),
        ("first.csv", 305, "unknown_label"),
        ("second.csv", 102, "missing_label"),
    ]
    conflicts = pq.read_table(version.path / "conflicts.parquet").to_pylist()
    assert {(c["row"], c["label"], c["decision"]) for c in conflicts} == {
        (9, "neutral", "dropped"),
        (303, "positive", "dropped"),
    }
    kept_rows = [row for rows in content(version).values() for row in rows]
    assert len({row["key"] for row in kept_rows}) == 349
    assert {
        row["source"] for row in kept_rows if row["raw_text"] == "Unit 260 sold 1820 pumps"
    } == {
        "first.csv"  # the first of two equal rows is kept
    }
    version.verify()


def test_files_as_other_programs_write_them_become_one_version(tmp_path: Path) -> None:
    rows = good_rows(240)
    header, spark, tool = (tmp_path / name for name in ("a.csv", "spark.csv", "tool.json"))
    header.write_text("".join(f"{label},{text}\n" for text, label in rows[:60]))
    quoted = "".join(f'"{text}, \\"they\\" said",{label}\n' for text, label in rows[60:120])
    spark.write_text(f"Sentence,Sentiment\n{quoted}")
    answers = ("accept", "reject")
    records = [
        {"Sentence": text, "Sentiment": [label], "answer": answers[n % 2]}
        for n, (text, label) in enumerate(rows[120:180])
    ]
    tool.write_text(json.dumps(records, indent=1))
    for text, label in rows[180:]:
        folder = tmp_path / "hive" / f"Sentiment={label}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "part.csv.gz").open("ab") as stream:
            first_line = b"Sentence\n" * (stream.tell() == 0)
            stream.write(gzip.compress(first_line + f"{text}\n".encode()))
    version = make(
        tmp_path / "out",
        [
            f"{{uri: {header}, header: none, text: 2, label: 1}}",
            f"{{uri: {spark}, escape: \\}}",
            f"{{uri: {tool}, where: {{answer: accept}}}}",
            tmp_path / "hive",
        ],
    )
    assert version.manifest.counts.kept == 210
    assert version.manifest.counts.rejected == 30
    labels = {row["raw_text"]: row["label"] for r in content(version).values() for row in r}
    expected = dict([*rows[:60], *rows[120:180:2], *rows[180:]])
    expected |= {f'{text}, "they" said': label for text, label in rows[60:120]}
    assert labels == expected
    again = make(tmp_path / "out", [f"{{uri: {header}, header: none, text: 2, label: 1}}"])
    assert again.version != version.version


def test_same_input_and_config_give_the_same_version_and_reuse_it(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", good_rows(60))
    first_version = make(tmp_path / "a", [source])
    written = {p: p.stat().st_mtime_ns for p in first_version.path.rglob("*.parquet")}
    other = make(tmp_path / "a", [source], "data.salt=other")
    assert other.version != first_version.version
    again = make(tmp_path / "a", [source])
    assert again.path == first_version.path
    assert {p: p.stat().st_mtime_ns for p in again.path.rglob("*.parquet")} == written
    # The newest is the one that was asked for last, made anew or not.
    assert DatasetVersion.find("latest", tmp_path / "a", "train.dataset").path == first_version.path

    moved = tmp_path / "elsewhere"
    moved.mkdir()
    elsewhere = make(tmp_path / "b", [source.rename(moved / "rows.csv")])
    assert elsewhere.version == first_version.version
    assert [f.sha256 for f in elsewhere.manifest.splits["train"].files] == [
        f.sha256 for f in first_version.manifest.splits["train"].files
    ]


@pytest.mark.cost(8, "three ingests")
@pytest.mark.parametrize("near", ["true", "false"])
def test_the_number_of_partitions_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: str
) -> None:
    rows = good_rows(200) + good_rows(40) + [("UNIT 3 SOLD 21 PUMPS", "negative")]
    source = write_csv(tmp_path / "rows.csv", rows)
    single = make(tmp_path / "one", [source], f"data.near_duplicates.enabled={near}")
    monkeypatch.setattr(ingest_module, "_BYTES_PER_PARTITION", 3000)
    many = make(tmp_path / "many", [source], f"data.near_duplicates.enabled={near}")
    assert len(many.files("train")) > 1
    assert content(many) == content(single)
    assert many.manifest.counts == single.manifest.counts


def test_adding_rows_never_moves_a_row_to_another_split(tmp_path: Path) -> None:
    before = content(make(tmp_path / "a", [write_csv(tmp_path / "a.csv", good_rows(200))]))
    after = content(make(tmp_path / "b", [write_csv(tmp_path / "b.csv", good_rows(300))]))
    for split in SPLITS:
        assert {r["key"] for r in before[split]} <= {r["key"] for r in after[split]}


@pytest.mark.parametrize(
    ("rows", "overrides", "words"),
    [
        (
            [*good_rows(50), ("Odd", "bullish"), ("Odder", "bearish")],
            [],
            ["2 of 52 rows", "unknown_label: 2", "record 52, 'bullish'", "max_rejected_fraction"],
        ),
        (
            [*good_rows(50), ("UNIT 4 SOLD 28 PUMPS", "negative")],
            ["data.conflicts=error"],
            ["data.conflicts='error'", "several labels", "majority"],
        ),
        ([("Only one", "neutral")], [], ["split is empty", "data.split."]),
        ([], [], ["no rows"]),
        (
            [*good_rows(50), ("x" * (1 << 20), "neutral")],
            [],
            ["1 of 51 rows", "text_too_long", "record 52"],
        ),
    ],
    ids=["unknown labels", "conflicts", "too few", "header only", "1 MB line"],
)
def test_bad_rows_are_named_and_nothing_is_published(
    tmp_path: Path, rows: list[tuple[str, str]], overrides: list[str], words: list[str]
) -> None:
    source = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(InputError) as caught:
        make(tmp_path / "out", [source], *overrides)
    for word in words:
        assert word in str(caught.value)
    assert not [*(tmp_path / "out").iterdir()]


def test_majority_keeps_the_label_of_most_rows(tmp_path: Path) -> None:
    text = "unit 4 sold 28 pumps"
    rows = [*good_rows(90), (text, "neutral"), (text.upper(), "negative")]
    version = make(
        tmp_path / "out", [write_csv(tmp_path / "rows.csv", rows)], "data.conflicts=majority"
    )
    kept_rows = [r for rows in content(version).values() for r in rows]
    assert [r["label"] for r in kept_rows if str(r["text"]).lower() == text] == ["neutral"]
    assert version.manifest.counts.duplicates == 1
    assert version.manifest.counts.conflicts == 1


def test_an_error_in_a_late_block_reaches_the_user_in_one_line(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    lines = "".join(f"Plant {i} in Lyon makes valves,neutral\n" for i in range(60_000))
    source.write_text(f'Sentence,Sentiment\n{lines}"Caf\xe9 chain grows,positive\nFlat,neutral\n')
    with pytest.raises(Exception) as caught:
        make(tmp_path / "out", [source])
    cause = find_cause(caught.value, UserError)
    assert cause is not None
    assert str(source) in str(cause)
    assert "a quote that opens in record 60002 is not closed" in str(cause)
    assert not [*(tmp_path / "out").iterdir()]


def test_readers_have_ended_before_ray_is_shut_down() -> None:
    def readers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "iter_threaded"]

    for _ in ray.data.range(50, override_num_blocks=50).iter_rows():
        break
    iteration = iter_threaded(iter(range(9)), lambda numbers: numbers)
    next(iteration)
    assert readers()  # by the name that Ray gives them
    iteration.close()
    join_reader_threads()
    assert not readers()
