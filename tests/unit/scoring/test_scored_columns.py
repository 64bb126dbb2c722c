"""Columns that scored files carry from their input."""

from __future__ import annotations

import csv
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from finsent.config import check, load
from finsent.data.config import SourceConfig
from finsent.data.readers.csv_exact import ODD_QUOTE
from finsent.data.sources.carried_columns import Carried
from finsent.data.sources.source_file import SourceFile
from finsent.errors import InputError
from finsent.scoring.config import PredictConfig
from finsent.scoring.score import Scorer
from finsent.settings import Settings
from tests.unit.scoring.scored_files import find, score
from tests.unit.test_packed import workbook

# --- carried columns ------------------------------------------------------------------------------


def test_columns_keep_their_values(scorer: Scorer, tmp_path: Path) -> None:
    lines = [
        '{"id": 7, "text": "Up", "label": "buy", "score": 1.10, "more": {"a": [null, "é"]}}',
        '{"id": "007", "text": "Up", "late": true}',
        '{"id": null, "text": "Up", "label": "\\ud83d!"}',
        "not json",
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    [file] = find(tmp_path / "a.jsonl")
    rows = score(file, scorer, tmp_path, "jsonl").read_bytes().splitlines()
    assert b'"id":7,' in rows[0]
    assert b'"id":"007",' in rows[1]
    answers = [orjson.loads(row) for row in (rows[0], rows[1], rows[3])]
    assert [row["id"] for row in answers] == [7, "007", None]
    assert (answers[0]["input_label"], answers[0]["input_score"]) == ("buy", 1.1)
    assert answers[0]["more"] == {"a": [None, "é"]}
    assert answers[1]["late"] is True  # a key that the first record lacks
    table = pyarrow.csv.read_csv(
        score(file, scorer, tmp_path, "csv"),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"id": pa.string()}),
    )
    assert table["id"].to_pylist() == ["7", "007", "", ""]
    assert table["input_label"].to_pylist() == ["buy", "", "\ufffd!", ""]
    assert table["late"].to_pylist() == [None, True, None, None]


def test_columns_of_parquet_keep_their_types(scorer: Scorer, tmp_path: Path) -> None:
    day = datetime(2024, 7, 1)
    table = pa.table(
        {
            "id": pa.array([9007199254740993, None], pa.int64()),
            "text": ["Up", "Down"],
            "firm": pa.array(["A", None]).dictionary_encode(),
            "day": pa.array([day, None], pa.timestamp("s")),
            "price": pa.array([Decimal("1.10"), None]),
            "tags": [["a"], None],
            "raw": pa.array([b"\xff", None]),
            "a.b": [1.5, None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    [file] = find(tmp_path / "a.parquet")
    answers = pq.read_table(score(file, scorer, tmp_path))
    for name in table.column_names:
        assert answers[name].to_pylist() == table[name].to_pylist(), name
    assert answers.schema.field("id").type == pa.int64()
    rows = [*csv.DictReader(score(file, scorer, tmp_path, "csv").open())]
    expected = {
        "id": "9007199254740993",
        "firm": "A",
        "day": "2024-07-01 00:00:00.000",
        "price": "1.10",
        "tags": '["a"]',
        "raw": "\\xff",
        "a.b": "1.5",
    }
    assert {name: rows[0][name] for name in expected} == expected
    assert {rows[1][name] for name in expected} == {""}
    first_row = orjson.loads(score(file, scorer, tmp_path, "jsonl").read_bytes().splitlines()[0])
    assert (first_row["id"], first_row["price"], first_row["raw"]) == (
        9007199254740993,
        "1.10",
        "\\xff",
    )
    assert (first_row["tags"], first_row["day"][:10]) == (["a"], "2024-07-01")


def test_named_columns_alone_are_carried(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text,firm,row\n007,Up,A,9\n")
    [file] = find(tmp_path / "a.csv", carried=["row", "text", "id"])
    names = pq.read_table(score(file, scorer, tmp_path)).column_names
    assert names[:5] == ["row", "input_row", "input_text", "id", "text"]
    [file] = find(tmp_path / "a.csv", carried=[])
    assert pq.read_table(score(file, scorer, tmp_path / "none")).column_names[:2] == ["row", "text"]


@pytest.mark.parametrize(
    ("content", "carried", "words"),
    [
        ("Id,text\n", ["id"], ["predict.columns=['id']", "'Id'", "Did you mean"]),
        ("id,id,text\n", ["id"], ["2 columns", "'id'", "Rename"]),
        ("id,id,text\n", "all", ["2 columns", "predict.columns='all'"]),
    ],
)
def test_columns_that_cannot_be_carried_are_named(
    tmp_path: Path, content: str, carried: Carried, words: list[str]
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        find(tmp_path / "a.csv", carried=carried)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_lines_have_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Up\n")
    assert find(tmp_path / "a.txt", carried="all")[0].columns.carried == ()
    with pytest.raises(InputError, match="has no named columns"):
        find(tmp_path / "a.txt", carried=["id"])


def test_the_setting_takes_a_name_names_or_all() -> None:
    for value, expected in [("id", ["id"]), ("[id,0]", ["id", "0"]), ("all", "all"), ("0", ["0"])]:
        assert load(Settings, [], [f"predict.columns={value}"]).predict.columns == expected
    assert check(PredictConfig, {"columns": ["all"]}).columns == ["all"]


# --- every format ---------------------------------------------------------------------------------


def rows_of(file: SourceFile) -> list[tuple[Any, ...]]:
    """Number, text, fault and carried columns of each record in the order in which they come."""
    answers: list[tuple[Any, ...]] = []
    for table in file.rows(0):
        assert table.schema == file.columns.schema
        plain = table.drop_columns(["source", "raw_label", "unit"])
        names = ["row", "raw_text", "fault", *plain.column_names[3:]]
        answers += [tuple(row[name] for name in names) for row in plain.to_pylist()]
    return answers


def test_csv_with_odd_quotes_keeps_order_ids_and_broken_rows(tmp_path: Path) -> None:
    lines = ["id;text", '1;5" pipe', '2;"Up "a lot" now"', "3", "", "4;End"]
    (tmp_path / "a.csv").write_text("sep=;\n" + "\n".join(lines))
    [file] = find(tmp_path / "a.csv")
    assert rows_of(file) == [
        (2, '5" pipe', None, "1"),
        (3, '2;"Up "a lot" now"', ODD_QUOTE, None),
        (4, "3", "malformed_row: 1 fields, not 2", None),
        (5, "End", None, "4"),
    ]


@pytest.mark.parametrize("text", ["Up", '5" pipe'])
def test_the_index_of_a_frame_is_a_column_without_a_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(f",text\n0,{text}\n1,Down\n")
    [file] = find(tmp_path / "a.csv")
    assert rows_of(file) == [(2, text, None, "0"), (3, "Down", None, "1")]


def test_blank_lines_are_rows_of_one_column_with_odd_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\n\ntext\n5" pipe\n\n\nEnd\n')
    [file] = find(tmp_path / "a.csv")
    assert rows_of(file) == [(2, '5" pipe', None), (3, "", None), (4, "", None), (5, "End", None)]


def test_columns_without_names_are_carried_by_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("7,Up\n8,Down\n")
    source = SourceConfig(uri=str(tmp_path / "a.csv"), header="none", text="2")
    for carried in ("all", ["1"]):
        [file] = find(source, carried=carried)
        assert rows_of(file) == [(1, "Up", None, "7"), (2, "Down", None, "8")]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_keeps_values_of_any_key(tmp_path: Path, name: str) -> None:
    records = [
        '{"id": 7, "text": "Up", "meta": {"id": "x"}}',
        '{"id": NaN, "text": ["half \\ud83d"], "late": 1.10}',
        "5",
        '{"id": "007", "text": "Down"}',
        '{"id": 1e400, "text": "Flat", "late": {"a": [-1e400, 1e3]}}',
    ]
    content = "\n".join(records) if name == "a.jsonl" else f"[{','.join(records)}]"
    (tmp_path / name).write_text(content)
    [file] = find(tmp_path / name)
    answers = rows_of(file)
    assert [(row[0], *row[3:]) for row in answers] == [
        (1, "7", '{"id": "x"}', None),
        (2, None, None, "1.1"),
        (3, None, None, None),
        (4, '"007"', None, None),
        (5, None, None, '{"a": [null, 1000.0]}'),
    ]
    assert [row[2] is None for row in answers] == [True, False, False, True, True]
    [file] = find(tmp_path / name, carried=["meta.id", "id"])
    assert rows_of(file)[0][3:] == ('"x"', "7")
    with pytest.raises(InputError, match=r"no column 'meta\.no'"):
        find(tmp_path / name, carried=["meta.no"])


def test_columns_of_arrow_keep_their_types(scorer: Scorer, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([9007199254740993, None], pa.int64()),
            "text": pa.array(["Up", "Down"], pa.string_view()),
            "note": pa.array(["a, b", None], pa.string_view()),
            "firm": pa.array(["A", None]).dictionary_encode(),
            "took": pa.array([1, None], pa.duration("s")),
        }
    )
    pyarrow.feather.write_feather(table, tmp_path / "a.feather")
    [file] = find(tmp_path / "a.feather")
    answers = pq.read_table(score(file, scorer, tmp_path))
    assert answers.schema.field("id").type == pa.int64()
    assert [answers[name].to_pylist() for name in table.column_names] == [
        table[name].to_pylist() for name in table.column_names
    ]
    first_row = orjson.loads(score(file, scorer, tmp_path, "jsonl").read_bytes().splitlines()[0])
    assert (first_row["id"], first_row["note"]) == (9007199254740993, "a, b")
    first_row = next(csv.DictReader(score(file, scorer, tmp_path, "csv").open()))
    assert (first_row["id"], first_row["note"]) == ("9007199254740993", "a, b")


def test_a_type_that_no_scored_file_can_hold_is_refused(tmp_path: Path) -> None:
    span = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    table = pa.table({"text": ["Up"], "span": span})
    pyarrow.feather.write_feather(table, tmp_path / "a.feather")
    assert rows_of(find(tmp_path / "a.feather", carried=[])[0]) == [(1, "Up", None)]
    with pytest.raises(InputError, match=r"columns='all': the column 'span'.*Convert it"):
        find(tmp_path / "a.feather")


def test_rows_of_a_workbook_keep_their_numbers_and_cells(tmp_path: Path) -> None:
    [file] = find(workbook(tmp_path / "a.xlsx", A=[["id", "text"], [7, "Up"], [], ["", "Down"]]))
    assert rows_of(file) == [(2, "Up", None, "7"), (3, None, None, None), (4, "Down", None, None)]


def test_a_column_in_the_path_is_carried_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "day=2024-07-01"
    folder.mkdir()
    (folder / "a.csv").write_text("id,text\n7,Up\n8\n")
    (folder / "b.txt").write_text("Up\n")
    [csv_file, lines] = find(folder / "a.csv", folder / "b.txt", carried=["day"])
    wrong = "malformed_row: 1 fields, not 2"
    assert rows_of(csv_file) == [(2, "Up", None, "2024-07-01"), (3, "8", wrong, "2024-07-01")]
    assert rows_of(lines) == [(1, "Up", None, "2024-07-01")]
    assert [row[3:] for row in rows_of(find(folder / "a.csv")[0])] == [("7",), (None,)]
