"""Files that are scored: each row comes out once, in its place, with its columns or a reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finsent.config import check, load
from finsent.data.config import DataConfig, SourceConfig
from finsent.data.readers.csv_exact import ODD_QUOTE
from finsent.data.sources.carried_columns import Carried, with_all_rows
from finsent.data.sources.files import find_sources, find_texts
from finsent.data.sources.source_file import SourceFile
from finsent.errors import ConfigError, InputError
from finsent.files import directory_lock
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.modeling.model_dir import fingerprint
from finsent.normalize import is_blank
from finsent.scoring.batch import Batch
from finsent.scoring.config import PredictConfig
from finsent.scoring.model import ScoringModel
from finsent.scoring.parts import Parts
from finsent.scoring.pool import EngineActor
from finsent.scoring.records import Counts, ScoredFile
from finsent.scoring.score import Scorer, Tagged
from finsent.scoring.scored import ScoredDir, choose_inputs, output_names
from finsent.settings import Settings
from tests.properties import examples
from tests.unit.models import TEXTS, domain_content, saved_model
from tests.unit.test_packed import workbook


@pytest.fixture(scope="module")
def scorer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    threads = torch.get_num_threads()
    folder = saved_model(tiny, tmp_path_factory.mktemp("scored") / "model")
    yield Scorer(Engine(folder, EngineConfig(threads=1)), "v1")
    torch.set_num_threads(threads)


def find(
    *entries: Path | SourceConfig, carried: Carried = "all", **config: Any
) -> list[SourceFile]:
    sources = [e if isinstance(e, SourceConfig) else SourceConfig(uri=str(e)) for e in entries]
    data = DataConfig(**{"text_column": "text", "label_column": "label", **config})
    files = find_texts(sources, data, Path("none"), "predict.input")
    return [with_all_rows(file, carried, "predict.columns") for file in files]


def score(
    file: SourceFile, scorer: Scorer, folder: Path, format: str = "parquet", rows: int = 3
) -> Path:
    """Score a file in parts of a few rows."""
    parts, target = Parts(folder / "parts", rows), folder / f"scored.{format}"
    parts.folder.mkdir(parents=True, exist_ok=True)
    parts.open("one")
    for _ in parts.score(file, lambda tables: map(scorer, tables)):
        pass
    parts.merge(file, target, format)
    return target


# --- rows -----------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row of a file that a test writes."""

    id: str
    text: str
    is_broken: bool = False


ROW = st.builds(
    Row,
    st.text(max_size=5) | st.sampled_from(["007", "1e5", "NA", "9007199254740993", "-", ""]),
    st.text(max_size=12) | st.sampled_from(["", " ", "NA", "null", 'say "no"', "a,b\nc", *TEXTS]),
    st.booleans(),
)


def csv_of(rows: list[Row], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["id", "text"])
    for row in rows:
        writer.writerow([row.id, row.text, "one too many"] if row.is_broken else row[:2])
    return out.getvalue().encode()


def jsonl_of(rows: list[Row]) -> bytes:
    lines = (json.dumps({"id": row.id, "text": [] if row.is_broken else row.text}) for row in rows)
    return "\n".join(lines).encode() or b'{"id": "only", "text": "Up"}'


def parquet_of(rows: list[Row]) -> bytes:
    out = io.BytesIO()
    ids, texts = [row.id for row in rows], [None if row.is_broken else row.text for row in rows]
    pq.write_table(pa.table({"id": ids, "text": pa.array(texts, pa.string())}), out)
    return out.getvalue()


WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    "a.csv": csv_of,
    "a.tsv": lambda rows: csv_of(rows, "\t"),
    "a.csv.gz": lambda rows: gzip.compress(csv_of(rows)),
    "a.jsonl": jsonl_of,
    "a.parquet": parquet_of,
}


@pytest.mark.hypothesis
@pytest.mark.cost(2, "a model scores some hundred small files")
@examples(40)
@given(st.sampled_from(sorted(WRITERS)), st.lists(ROW, min_size=1, max_size=12))
def test_rows_come_out_in_order_each_with_its_id_or_a_fault(
    scorer: Scorer, tmp_path_factory: pytest.TempPathFactory, name: str, rows: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / name).write_bytes(WRITERS[name](rows))
    [file] = find(folder / name, encoding="utf-8")
    answers = pq.read_table(score(file, scorer, folder)).to_pylist()
    first = 1 if name in ("a.jsonl", "a.parquet") else 2
    assert [row["row"] for row in answers] == [*range(first, first + len(rows))]
    for row, given_row in zip(answers, rows, strict=True):
        is_scored = row["label"] is not None
        assert is_scored == (row["fault"] is None)
        if given_row.is_broken:
            assert not is_scored
            assert name == "a.parquet" or row["fault"].startswith("malformed_row")
        else:
            assert (row["id"], row["text"]) == (given_row.id, given_row.text)
            assert is_scored != is_blank(given_row.text) or "swallowed" in row["fault"]


@pytest.mark.parametrize("name", ["lines.txt", "column.csv"])
def test_blank_lines_are_rows_where_a_line_is_a_row(
    scorer: Scorer, tmp_path: Path, name: str
) -> None:
    header = "" if name == "lines.txt" else "\r\ntext\r\n"
    (tmp_path / name).write_bytes(f"{header}Profit rose.\r\n\r\n  \r\nUp\r\n".encode())
    [file] = find(tmp_path / name)
    answers = pq.read_table(score(file, scorer, tmp_path)).to_pylist()
    first = 1 if name == "lines.txt" else 2
    assert [row["row"] for row in answers] == [*range(first, first + 4)]
    assert [row["fault"] for row in answers] == [None, "no_text", "no_text", None]


def test_a_text_of_which_ingest_leaves_nothing_is_no_text(scorer: Scorer, tmp_path: Path) -> None:
    texts = ["&nbsp;", "\u200b", "\ufeff\u00a0", "&amp;nbsp;", "&", "&nbsp;Up", "\u00a0"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    [file] = find(tmp_path / "a.parquet")
    faults = pq.read_table(score(file, scorer, tmp_path))["fault"].to_pylist()
    assert faults == [*["no_text"] * 4, None, None, "no_text"]


def test_a_table_without_rows_gives_one(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n")
    [file] = find(tmp_path / "a.csv")
    assert pq.read_table(score(file, scorer, tmp_path)).num_rows == 0
    assert score(file, scorer, tmp_path, "csv").read_text().startswith('"row","id","text",')


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
    wanted = {
        "id": "9007199254740993",
        "firm": "A",
        "day": "2024-07-01 00:00:00.000",
        "price": "1.10",
        "tags": '["a"]',
        "raw": "\\xff",
        "a.b": "1.5",
    }
    assert {name: rows[0][name] for name in wanted} == wanted
    assert {rows[1][name] for name in wanted} == {""}
    first = orjson.loads(score(file, scorer, tmp_path, "jsonl").read_bytes().splitlines()[0])
    assert (first["id"], first["price"], first["raw"]) == (9007199254740993, "1.10", "\\xff")
    assert (first["tags"], first["day"][:10]) == (["a"], "2024-07-01")


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
    for value, wanted in [("id", ["id"]), ("[id,0]", ["id", "0"]), ("all", "all"), ("0", ["0"])]:
        assert load(Settings, [], [f"predict.columns={value}"]).predict.columns == wanted
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
    first = orjson.loads(score(file, scorer, tmp_path, "jsonl").read_bytes().splitlines()[0])
    assert (first["id"], first["note"]) == (9007199254740993, "a, b")
    first = next(csv.DictReader(score(file, scorer, tmp_path, "csv").open()))
    assert (first["id"], first["note"]) == ("9007199254740993", "a, b")


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


# --- resume ---------------------------------------------------------------------------------------


class KilledError(Exception):
    """Ends a run in the middle."""


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_a_resumed_file_equals_that_of_an_undisturbed_run(
    scorer: Scorer, tmp_path: Path, format: str
) -> None:
    rows = [Row(str(i), text, i % 5 == 3) for i, text in enumerate(TEXTS * 3)]
    (tmp_path / "a.csv").write_bytes(csv_of(rows))
    [file] = find(tmp_path / "a.csv")
    undisturbed = score(file, scorer, tmp_path / "undisturbed", format)

    calls = 0

    def dies(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        nonlocal calls
        for table in tables:
            calls += 1
            if calls == 4:
                raise KilledError
            yield scorer(table)

    parts = Parts(tmp_path / "begun" / "parts", 3)
    parts.folder.mkdir(parents=True)
    parts.open("one")
    with pytest.raises(KilledError):
        [*parts.score(file, dies)]
    last = sorted(parts.folder.glob("*.parquet"))[-1]
    last.write_bytes(last.read_bytes()[:-20])  # as a power cut leaves it
    (parts.folder / "00000003.partial").write_bytes(b"half")
    counted = [*parts.score(file, lambda tables: map(scorer, tables))]
    assert counted == [*[(3, True)] * 2, *[(3, False)] * 5]
    resumed = score(file, scorer, tmp_path / "begun", format)
    assert resumed.read_bytes() == undisturbed.read_bytes()


def test_parts_of_other_answers_are_not_used(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_of([Row("1", "Up")]))
    [file] = find(tmp_path / "a.csv")
    score(file, scorer, tmp_path)
    target = Parts(tmp_path / "parts", 3)
    target.open("another")
    assert [*target.score(file, lambda tables: map(scorer, tables))] == [(1, False)]


def test_all_rows_of_a_run_are_computed_with_one_backend(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_of([Row("1", "Up")]))
    [file] = find(tmp_path / "a.csv")
    [rows] = file.rows(0)
    folder = scorer.engine.model_dir
    model = ScoringModel(folder, "v1", fingerprint(folder), EngineConfig(threads=1))
    actor = EngineActor(model)
    assert actor.backend() == "torch-fp32"
    assert actor.score(rows, "torch-fp32").equals(scorer(rows))
    assert actor.score(rows, "torch-bf16").num_rows == 1
    assert actor.backend() == "torch-bf16"


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_each_row_has_the_calibration_of_its_source(
    scorer: Scorer, tmp_path: Path, format: str
) -> None:
    tags = ["x.com", "", "news", "y.com", "x.com", "news", "x.com"]
    table = pa.table({"text": TEXTS, "from": tags})
    path = tmp_path / f"a.{format}"
    if format == "jsonl":
        path.write_bytes(b"\n".join(orjson.dumps(row) for row in table.to_pylist()))
    elif format == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    domain = DomainCalibration.of(domain_content(threshold=1.0))
    tagged = Tagged("from", {"x.com": domain, "news": None})
    [file] = find(path, carried=["from"])
    target = score(file, replace(scorer, tagged=tagged), tmp_path)
    answers = pq.read_table(target).to_pylist()
    engine = scorer.engine
    logits = engine.logits(TEXTS)
    own = engine.predictions(logits)
    calibrated = engine.predictions(logits, domain.on(engine.calibration))
    assert [answer.label for answer in own] != [answer.label for answer in calibrated]
    for row, tag, ours, theirs in zip(answers, tags, own, calibrated, strict=True):
        if tag == "y.com":
            assert (row["label"], row["calibration"]) == (None, None)
            assert row["fault"] == "unknown_source: 'y.com'"
            continue
        want = theirs if tag == "x.com" else ours
        assert (row["label"], row["score"]) == (want.label, pytest.approx(want.score, abs=1e-6))
        assert row["calibration"] == ("tweets" if tag == "x.com" else None)
        assert row["abstained"] == want.abstained == (tag == "x.com")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"source_column": "from"}, "calibrations: goes with source_column"),
        ({"calibrations": {"a": "b"}}, "calibrations: goes with source_column"),
        (
            {"source_column": "from", "calibrations": ["b"], "calibration": "c"},
            "source_column='from': calibration='c' is for all rows",
        ),
        ({"source_column": "from", "calibrations": {"a": "B C"}}, "calibrations.a='B C'"),
    ],
)
def test_calibrations_are_given_in_one_way(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check(Settings, {"predict": values})


# --- the directory --------------------------------------------------------------------------------


def names_of(*entries: Path | SourceConfig) -> list[str]:
    return output_names(find(*entries), "csv")


def write(path: Path, id: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"id,text\n{id},Up\n")
    return path


def test_a_name_depends_on_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    july = write(tmp_path / "in" / "2024-07-01" / "news.csv")
    august = write(tmp_path / "in" / "2024-08-01" / "news.csv")
    assert names_of(july) == ["news.csv.csv"]
    assert names_of(july.parent) == ["news.csv.csv"]
    both = ["2024-07-01/news.csv.csv", "2024-08-01/news.csv.csv"]
    assert names_of(tmp_path / "in") == both
    assert names_of(tmp_path / "in" / "2024-*" / "news.csv") == both
    assert names_of(tmp_path / "in" / "2024-0[7]-01" / "news.csv") == both[:1]
    named = SourceConfig(uri=str(july), name="july")
    assert names_of(named) == ["july.csv"]
    assert names_of(SourceConfig(uri=str(tmp_path / "in"), name="all")) == [
        f"all/{name}" for name in both
    ]
    with pytest.raises(InputError, match=r"'news\.csv\.csv'.*name: NAME"):
        names_of(july, august)
    assert names_of(named, august) == ["july.csv", "news.csv.csv"]
    # Below the working directory the path is that from there.
    monkeypatch.chdir(tmp_path / "in")
    assert names_of(Path("2024-07-01/news.csv"), Path("2024-08-01")) == both
    assert names_of(august, july) == both[::-1]


def test_an_object_s_key_leads_to_no_place_outside_the_output(tmp_path: Path) -> None:
    [local] = find(write(tmp_path / "x.csv"))
    location = replace(local.location, uri="s3://b/in/../../../etc/x.csv")
    file = replace(local, location=location, settings=SourceConfig(uri="s3://b/in/"))
    with pytest.raises(InputError, match=r"predict\.input: 's3://b/in/\.\..*outside.*name: NAME"):
        output_names([file], "csv")
    named = replace(file, settings=SourceConfig(uri="s3://b/in/", name="in"))
    assert output_names([named], "csv") == ["in/etc/x.csv.csv"]


def test_a_name_is_not_replaced_by_another_input_s_answers(tmp_path: Path) -> None:
    [july] = find(write(tmp_path / "2024-07-01" / "news.csv"))
    [august] = find(write(tmp_path / "2024-08-01" / "news.csv", 2))
    scored = ScoredDir(tmp_path / "out")
    scored.path.mkdir()
    record = ScoredFile(input=july.origin, identity="a", backend="torch-fp32", finished=False)
    scored.update("news.csv.csv", record)
    scored.check_free("news.csv.csv", august)  # nothing is there yet
    assert scored.finished("news.csv.csv", "a") is None
    scored.update("news.csv.csv", record.finish(Counts()))
    assert scored.finished("news.csv.csv", "a") is None  # the file has gone
    (scored.path / "news.csv.csv").touch()
    assert scored.finished("news.csv.csv", "a") is not None
    assert scored.finished("news.csv.csv", "b") is None
    scored.check_free("news.csv.csv", july)
    with pytest.raises(InputError, match=r"holds the answers for .*2024-07-01.*2024-08-01"):
        scored.check_free("news.csv.csv", august)
    (scored.path / "mine.csv.csv").touch()
    with pytest.raises(InputError, match=r"'mine\.csv\.csv' exists and was not written"):
        scored.check_free("mine.csv.csv", july)
    with pytest.raises(InputError, match=r"is a file"):
        scored.check_free("mine.csv.csv/b.csv", july)


class LocalPool:
    """A pool that scores in this process, as `EnginePool` does in others."""

    backend, count = "torch-fp32", 1

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.tables = 0

    def map(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            self.tables += 1
            yield self._scorer(table)


def test_a_run_that_dies_after_a_file_is_complete_scores_no_row_again(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [file] = find(write(tmp_path / "news.csv"))
    out, pool = tmp_path / "out", LocalPool(scorer)
    folder = scorer.engine.model_dir
    model = ScoringModel(folder, "v1", fingerprint(folder), EngineConfig(threads=1))
    first, second = (Batch(model, PredictConfig(), {"n.parquet": file}, out) for _ in range(2))

    def die(_: Parts) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Parts, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            first.score(pool)
    [record] = ScoredDir(out).records().values()
    assert (record.finished, record.rows) == (True, 1)
    assert second.score(pool) == 0  # as a second process that waited for the first
    assert second.summary().rows == 1
    assert pool.tables == 1
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "n.parquet"]


def test_two_processes_do_not_score_one_file(tmp_path: Path) -> None:
    scored = ScoredDir(tmp_path)
    with scored.parts("news.csv.csv") as parts, directory_lock(parts.folder, wait=False) as is_free:
        assert not is_free
        with pytest.raises(InputError, match="another process"), scored.parts("news.csv.csv"):
            pass
        with scored.parts("other.csv.csv") as other:
            other.remove()
        parts.remove()
    assert [*tmp_path.iterdir()] == []


def test_scored_files_are_no_input(tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "inbox" / "scored"
    news = write(inbox / "news.csv")
    answers = write(out / "deep" / "news.csv.csv")
    record = ScoredFile(input="news.csv", identity="a", backend="torch-fp32", finished=True)
    ScoredDir(out).update("deep/news.csv.csv", record)

    def chosen(uri: Path, output: Path) -> list[Path]:
        files = find_texts(
            [SourceConfig(uri=str(uri))],
            DataConfig(text_column="text"),
            tmp_path,
            "predict.input",
            choose_inputs(output),
        )
        return [Path(file.location.uri) for file in files]

    for output in (out, tmp_path / "elsewhere"):
        assert chosen(inbox, output) == [news]
        assert chosen(inbox / "**" / "*.csv", output) == [news]
        with pytest.raises(InputError, match="only files that predict wrote"):
            chosen(out, output)
    assert chosen(answers, tmp_path / "elsewhere") == [answers]
    with pytest.raises(InputError, match=r"was written by predict.*another predict\.output"):
        chosen(answers, out)
    write(out / "own.csv")  # not written by predict
    assert chosen(out, out) == [out / "own.csv"]


def test_predictions_are_no_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "inbox" / "scored"
    news, answers = inbox / "news.csv", out / "news.csv.csv"
    for path in (news, answers):
        path.parent.mkdir(parents=True)
        path.write_text("text,label\nUp,positive\n")
    record = ScoredFile(input="news.csv", identity="a", backend="torch-fp32", finished=True)
    ScoredDir(out).update("news.csv.csv", record)

    def sources_at(uri: Path) -> list[Path]:
        source = SourceConfig(uri=str(uri), text="text", label="label")
        files = find_sources(DataConfig(sources=[source]), tmp_path)
        return [Path(file.location.uri) for file in files]

    caplog.set_level("INFO")
    for uri in (inbox, inbox / "**" / "*.csv"):
        caplog.clear()
        assert sources_at(uri) == [news]
        assert "1 file(s) that predict wrote are left out" in caplog.text
    with pytest.raises(InputError, match=r"data\.sources: .* names only files that predict wrote"):
        sources_at(out)
    assert sources_at(answers) == [answers]  # named by itself


def test_the_place_of_a_finished_file_does_not_matter(tmp_path: Path) -> None:
    monday, tuesday = (find(write(tmp_path / day / "news.csv"))[0] for day in ("monday", "tuesday"))
    assert replace(monday, name="news.csv").identity == replace(tuesday, name="news.csv").identity
