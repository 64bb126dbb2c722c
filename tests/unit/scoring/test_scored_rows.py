"""Rows of scored files: order, ids and faults."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.normalize import is_blank
from finsent.scoring.score import Scorer
from tests.properties import examples
from tests.unit.models import TEXTS
from tests.unit.scoring.scored_files import Row, csv_of, find, score

ROW = st.builds(
    Row,
    st.text(max_size=5) | st.sampled_from(["007", "1e5", "NA", "9007199254740993", "-", ""]),
    st.text(max_size=12) | st.sampled_from(["", " ", "NA", "null", 'say "no"', "a,b\nc", *TEXTS]),
    st.booleans(),
)


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
    first_row = 1 if name in ("a.jsonl", "a.parquet") else 2
    assert [row["row"] for row in answers] == [*range(first_row, first_row + len(rows))]
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
    first_row = 1 if name == "lines.txt" else 2
    assert [row["row"] for row in answers] == [*range(first_row, first_row + 4)]
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
