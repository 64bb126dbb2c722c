"""The difference between two dataset versions: small versions written by hand, and random ones."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from finsent.data.rows.split import SPLITS
from finsent.data.versions import range_reader
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.diff import diff
from finsent.data.versions.diff_records import VersionDiff
from finsent.data.versions.diff_tables import diff_tables
from finsent.data.versions.row_changes import KINDS
from finsent.errors import InputError
from finsent.labels import LABELS
from tests.unit.dataset_versions import Row, random_rows, write


def mirrored(result: dict[str, Any]) -> dict[str, Any]:
    """What the comparison the other way round must give; lines for people apart."""
    rows, inputs, examples = result["rows"], result["inputs"], result["examples"]
    return {
        "a": result["b"],
        "b": result["a"],
        "identical": result["identical"],
        "rows": {
            "a": rows["b"],
            "b": rows["a"],
            "unchanged": rows["unchanged"],
            "added": rows["removed"],
            "removed": rows["added"],
            **{
                kind: {**rows[kind], "changes": turned(rows[kind]["changes"])} for kind in KINDS[2:]
            },
        },
        "labels": {
            split: {label: turn(item) for label, item in mix.items()}
            for split, mix in result["labels"].items()
        },
        "counts": {name: turn(item) for name, item in result["counts"].items()},
        "inputs": {
            "unchanged": inputs["unchanged"],
            "added": inputs["removed"],
            "removed": inputs["added"],
            "changed": [{**item, "a": item["b"], "b": item["a"]} for item in inputs["changed"]],
            "renamed": turned(inputs["renamed"]),
        },
        "config": {
            key: {"ab"["ba".index(side)]: value for side, value in item.items()}
            for key, item in result["config"].items()
        },
        "examples": {
            kind: [{"a": item["b"], "b": item["a"]} for item in examples[other]]
            for kind, other in zip(KINDS, ("removed", "added", *KINDS[2:]), strict=True)
        },
    }


def turn(change: dict[str, Any]) -> dict[str, Any]:
    reversed_change = {"a": change["b"], "b": change["a"], "change": -change["change"]}
    if "shift" in change:
        shares = {"share_a": change["share_b"], "share_b": change["share_a"]}
        reversed_change |= {**shares, "shift": -change["shift"]}
    return reversed_change


def turned(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    reversed_changes = [
        {**change, "from": change["to"], "to": change["from"]} for change in changes
    ]
    return sorted(reversed_changes, key=lambda change: (order(change["from"]), order(change["to"])))


def order(name: str) -> tuple[int, str]:
    known = [*LABELS, *SPLITS]
    return (known.index(name), "") if name in known else (len(known), name)


def difference(a: DatasetVersion, b: DatasetVersion, examples: int = 5) -> dict[str, Any]:
    """The JSON result of a comparison."""
    return diff(a, b, examples).model_dump(mode="json")


def rendered(result: VersionDiff) -> str:
    console = Console(file=io.StringIO(), width=160, markup=False)
    for table in diff_tables(result):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# --- rows -----------------------------------------------------------------------------------------


A = [
    Row("Profit doubled", "positive"),
    Row("Profit fell", "negative", "validation"),
    Row("The plant stands in Oslo", "neutral", "test"),
    Row("Sales were flat", "neutral"),
    Row("The meeting is on Monday", "neutral"),
]


B = [
    Row("Profit doubled", "positive"),
    Row("Profit fell", "neutral", "validation"),  # relabeled
    Row("The plant stands in Oslo", "neutral", "train"),  # moved
    Row("Sales were flat", "neutral", source="wire.csv"),  # another source
    Row("Orders collapsed", "negative", "test"),  # added; and the meeting is removed
]


def test_every_kind_of_change_is_counted_and_shown(tmp_path: Path) -> None:
    result = difference(write(tmp_path / "one", A), write(tmp_path / "two", B))
    rows = result["rows"]
    assert (rows["a"], rows["b"], rows["unchanged"], result["identical"]) == (5, 5, 1, False)
    assert rows["added"]["rows"] == rows["removed"]["rows"] == 1
    assert rows["added"]["by_split"]["test"]["negative"] == 1
    assert rows["removed"]["by_split"]["train"]["neutral"] == 1
    assert rows["relabeled"] == {
        "rows": 1,
        "changes": [{"from": "negative", "to": "neutral", "rows": 1}],
        "by_split": {"train": 0, "validation": 1, "test": 0},
    }
    assert rows["moved"]["changes"] == [{"from": "test", "to": "train", "rows": 1}]
    assert rows["changed_source"]["changes"] == [{"from": "news.csv", "to": "wire.csv", "rows": 1}]
    mix = result["labels"]["all"]["negative"]
    assert mix == {"a": 1, "b": 1, "change": 0, "share_a": 0.2, "share_b": 0.2, "shift": 0.0}
    assert result["labels"]["validation"]["negative"]["shift"] == -1
    examples = result["examples"]
    assert [len(examples[kind]) for kind in KINDS] == [1, 1, 1, 1, 1]
    assert examples["added"][0]["a"] is None
    assert examples["added"][0]["b"] == {
        "key": B[-1].key,
        "text": "Orders collapsed",
        "row": 0,
        "label": "negative",
        "split": "test",
        "source": "news.csv",
    }
    assert examples["relabeled"][0]["a"]["label"] == "negative"
    assert examples["relabeled"][0]["b"]["label"] == "neutral"


def test_a_version_does_not_differ_from_itself(tmp_path: Path) -> None:
    rows = random_rows(1)
    inputs = {"a.csv": "00", "b.csv": "11"}
    version = write(tmp_path / "one", rows, inputs=inputs, salt="s")
    # The same rows in other files.
    same_rows = write(tmp_path / "two", rows, parts=4, inputs=inputs, salt="s")
    for result in (difference(version, version), difference(version, same_rows)):
        assert result["identical"]
        assert result["rows"]["unchanged"] == len(rows)
        assert not any(result["rows"][kind]["rows"] for kind in KINDS)
        assert not any(item["change"] for item in result["counts"].values())
        assert not any(item["shift"] for mix in result["labels"].values() for item in mix.values())
        assert result["inputs"] == {
            "unchanged": 2,
            "added": [],
            "removed": [],
            "changed": [],
            "renamed": [],
        }
        assert result["config"] == {}
        assert result["warnings"] == []
        assert not any(result["examples"].values())


@pytest.mark.parametrize("rows_per_range", [1_000_000, 40], ids=["one range", "many ranges"])
@pytest.mark.parametrize("seed", range(4))
def test_the_reverse_difference_is_the_mirror_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, rows_per_range: int
) -> None:
    monkeypatch.setattr(range_reader, "_ROWS_PER_RANGE", rows_per_range)
    a = write(tmp_path / "a", random_rows(seed), 2, {"a.csv": "00", "b.csv": "11"}, salt="x", n=1)
    b = write(tmp_path / "b", random_rows(seed + 9), 3, {"c.csv": "00", "b.csv": "22"}, salt="y")
    forward, backward = difference(a, b), difference(b, a)
    backward.pop("warnings")
    backward.pop("exclude")
    assert mirrored(forward) == backward


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_are_those_of_a_plain_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(range_reader, "_ROWS_PER_RANGE", 50)
    by_text = [
        {row.text: row for row in random_rows(s)} for s in (seed, seed + 50)
    ]  # one label each
    a, b = by_text
    both = [(a[text], b[text]) for text in a.keys() & b.keys()]
    versions = [
        write(tmp_path / name, rows.values(), 2) for name, rows in zip("ab", by_text, strict=True)
    ]
    result = difference(versions[0], versions[1], examples=3)
    rows = result["rows"]
    assert rows["added"]["rows"] == len(b.keys() - a.keys())
    assert rows["removed"]["rows"] == len(a.keys() - b.keys())
    assert rows["relabeled"]["rows"] == sum(x.label != y.label for x, y in both)
    assert rows["moved"]["rows"] == sum(x.split != y.split for x, y in both)
    assert rows["changed_source"]["rows"] == sum(x.source != y.source for x, y in both)
    assert rows["unchanged"] == sum(x == y for x, y in both)
    relabeled = Counter((x.label, y.label) for x, y in both if x.label != y.label)
    assert {(c["from"], c["to"]): c["rows"] for c in rows["relabeled"]["changes"]} == relabeled
    smallest = sorted(x.key for x, y in both if x.label != y.label)[:3]
    assert [example["a"]["key"] for example in result["examples"]["relabeled"]] == smallest


def test_a_text_under_two_labels_is_two_rows(tmp_path: Path) -> None:
    both = [Row("Flat", "neutral"), Row("Flat", "positive")]
    a = write(tmp_path / "a", both)
    for rows, added, removed, relabeled in [
        ([both[1]], 0, 1, 0),  # the other one is the same, not relabeled
        ([Row("Flat", "negative")], 0, 1, 1),
        ([*both, Row("Flat", "negative")], 1, 0, 0),
        ([Row("Flat", "negative"), both[1]], 0, 0, 1),
    ]:
        path = tmp_path / "-".join(row.label for row in rows)
        row_changes = difference(a, write(path, rows))["rows"]
        counts = [row_changes[kind]["rows"] for kind in ("added", "removed", "relabeled")]
        assert counts == [added, removed, relabeled]


def test_versions_without_rows_in_common(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty", [])
    full = write(tmp_path / "full", A)
    assert difference(empty, full)["rows"]["added"]["rows"] == 5
    assert difference(empty, empty)["identical"]
    assert difference(full, empty, examples=2)["examples"]["removed"][1:] != []
    assert not any(difference(full, empty, examples=0)["examples"].values())


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", A), write(tmp_path / "b", B)
    pq.write_table(pa.table({"key": ["00"], "text": ["x"]}), b.files("train")[0])
    with pytest.raises(InputError, match=r"b/train/part-00000\.parquet: has no column 'label'"):
        diff(a, b)
    b.files("train")[0].write_bytes(b"not Parquet")
    with pytest.raises(InputError, match="cannot be read"):
        diff(a, b)


# --- what the manifests say -----------------------------------------------------------------------


def test_inputs_are_matched_by_name_then_by_bytes(tmp_path: Path) -> None:
    a = write(tmp_path / "a", A, inputs={"same": "00", "edited": "11", "old": "22", "gone": "33"})
    b = write(tmp_path / "b", A, inputs={"same": "00", "edited": "44", "new": "22", "more": "55"})
    result = difference(a, b)
    inputs = result["inputs"]
    assert inputs["unchanged"] == 1
    assert [item["source"] for item in inputs["added"]] == ["more"]
    assert [item["source"] for item in inputs["removed"]] == ["gone"]
    assert [(item["a"]["sha256"], item["b"]["sha256"]) for item in inputs["changed"]] == [
        ("11", "44")
    ]
    assert inputs["renamed"] == [{"from": "old", "to": "new", "sha256": "22"}]
    assert result["identical"]  # it is about rows


def test_settings_are_compared_by_dotted_key(tmp_path: Path) -> None:
    source = {"uri": "a.csv", "weight": 1.0}
    a = write(tmp_path / "a", A, salt="s", split={"train": 0.8}, sources=[source], old=1)
    sources = [{"uri": "b.csv", "weight": 1.0}, {**source, "weight": 2.0}]
    b = write(tmp_path / "b", A, salt="s", split={"train": 0.7}, sources=sources)
    assert difference(a, b)["config"] == {
        "old": {"a": 1},
        "sources[a.csv].weight": {"a": 1.0, "b": 2.0},
        "sources[b.csv].uri": {"b": "b.csv"},
        "sources[b.csv].weight": {"b": 1.0},
        "split.train": {"a": 0.8, "b": 0.7},
    }


@pytest.mark.parametrize(
    ("salts", "why"),
    [(("s", "t"), "these settings differ: salt"), (("s", "s"), "no setting explains it")],
)
def test_moved_rows_give_a_warning_with_its_cause(
    tmp_path: Path, salts: tuple[str, str], why: str
) -> None:
    a, b = (
        write(tmp_path / name, rows, salt=salt)
        for name, rows, salt in zip("ab", (A, B), salts, strict=True)
    )
    result = diff(a, b)
    [warning] = result.warnings
    assert "1 row(s) MOVED BETWEEN SPLITS (1 test -> train)" in warning
    assert why in warning
    first, *_ = diff_tables(result)
    assert first.style == "bold red"
    assert "MOVED BETWEEN SPLITS" in rendered(result)


# --- for people -----------------------------------------------------------------------------------


def test_tables_show_names_as_they_are_and_stay_short(tmp_path: Path) -> None:
    rows = [Row(f"Plant {i} opened", "neutral", source=f"[bold]{i}") for i in range(30)]
    moved = [row._replace(source=f"{row.source}[/]") for row in rows]
    names = {f"file-{i}": str(i) for i in range(30)}
    text = rendered(diff(write(tmp_path / "a", rows), write(tmp_path / "b", moved, inputs=names)))
    assert "[bold]" in text
    assert "[/]" in text
    assert text.count("... and 20 more") == 2  # sources of rows, and inputs
    assert "MOVED" not in text


def test_tables_without_a_line_are_left_out(tmp_path: Path) -> None:
    version = write(tmp_path / "one", A)
    titles = [str(table.title) for table in diff_tables(diff(version, version))]
    assert titles == ["rows", "kept rows"]
