"""Ingest on a real Ray."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import finsent.data.ingest as ingest_module
from finsent.config import load
from finsent.data.dataset import DatasetVersion
from finsent.data.ingest import ingest
from finsent.data.settle import SPLITS
from finsent.data.sources import find_sources
from finsent.errors import InputError
from finsent.settings import Settings
from ray_jobs._cli import _user_cause

LABELS = ("positive", "neutral", "negative")


def write_csv(path: Path, rows: list[tuple[str, str]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream).writerows([("Sentence", "Sentiment"), *rows])
    return path


def good_rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [(f"Unit {i} sold {i * 7} pumps", LABELS[i % 3]) for i in range(start, start + count)]


def make(folder: Path, sources: list[Path], *overrides: str) -> DatasetVersion:
    config = load(Settings, [], [f"data.sources={[str(s) for s in sources]}", *overrides]).data
    return ingest(config, folder, find_sources(config))


def content(version: DatasetVersion) -> dict[str, list[dict[str, object]]]:
    return {s: version.read(s).sort_by("key").to_pylist() for s in SPLITS}


def test_every_row_has_one_fate(tmp_path: Path) -> None:
    first = write_csv(
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
    version = make(tmp_path / "out", [first, second], "data.max_rejected_fraction=0.02")
    counts = version.manifest["counts"]
    assert counts == {
        "rows_in": 405,
        "kept": 349,
        "rejected": 3,
        "duplicates": 51,
        "conflicts": 2,
    }
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
    kept = [row for rows in content(version).values() for row in rows]
    assert len({row["key"] for row in kept}) == 349
    assert {row["source"] for row in kept if row["raw_text"] == "Unit 260 sold 1820 pumps"} == {
        "first.csv"  # the first of two equal rows is kept
    }
    version.verify()


def test_same_input_and_config_give_the_same_version_and_reuse_it(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", good_rows(60))
    first = make(tmp_path / "a", [source])
    written = {p: p.stat().st_mtime_ns for p in first.path.rglob("*.parquet")}
    other = make(tmp_path / "a", [source], "data.salt=other")
    assert other.version != first.version
    again = make(tmp_path / "a", [source])
    assert again.path == first.path
    assert {p: p.stat().st_mtime_ns for p in again.path.rglob("*.parquet")} == written
    # The newest is the one that was asked for last, made anew or not.
    assert DatasetVersion.find("latest", tmp_path / "a", "train.dataset").path == first.path

    moved = tmp_path / "elsewhere"
    moved.mkdir()
    elsewhere = make(tmp_path / "b", [source.rename(moved / "rows.csv")])
    assert elsewhere.version == first.version
    assert [f["sha256"] for f in elsewhere.manifest["splits"]["train"]["files"]] == [
        f["sha256"] for f in first.manifest["splits"]["train"]["files"]
    ]


def test_the_number_of_partitions_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = good_rows(200) + good_rows(40) + [("UNIT 3 SOLD 21 PUMPS", "negative")]
    source = write_csv(tmp_path / "rows.csv", rows)
    one = make(tmp_path / "one", [source])
    monkeypatch.setattr(ingest_module, "_BYTES_PER_PARTITION", 1500)
    many = make(tmp_path / "many", [source])
    assert len(many.files("train")) > 1
    assert content(many) == content(one)
    assert many.manifest["counts"] == one.manifest["counts"]


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
    kept = [r for rows in content(version).values() for r in rows]
    assert [r["label"] for r in kept if str(r["text"]).lower() == text] == ["neutral"]
    assert version.manifest["counts"]["duplicates"] == 1
    assert version.manifest["counts"]["conflicts"] == 1


def test_a_wrong_byte_far_inside_crosses_ray_as_a_clear_error(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    lines = "".join(f"Plant {i} in Lyon makes valves,neutral\n" for i in range(60_000))
    source.write_bytes(b"Sentence,Sentiment\n" + lines.encode() + b"Caf\xe9 chain grows,positive\n")
    with pytest.raises(Exception) as caught:
        make(tmp_path / "out", [source])
    cause = _user_cause(caught.value)
    assert cause is not None
    assert "data.encoding='utf-8'" in str(cause)
    assert "cp1252" in str(cause)
    assert not [*(tmp_path / "out").iterdir()]
    assert make(tmp_path / "out", [source], "data.encoding=cp1252").rows("train") > 40_000
