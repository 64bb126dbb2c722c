"""Cells that a spreadsheet would run, in scored files and downloads."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.scoring.formulas import quote_formula, quote_formulas, unquote_formula
from finsent.scoring.writers import open_writer
from tests.commands import PROJECT

CELLS = {
    "=cmd()": "'=cmd()",
    "@SUM(A1)": "'@SUM(A1)",
    "-1+cmd": "'-1+cmd",
    "+A1": "'+A1",
    "\tA1": "'\tA1",
    "\r=1": "'\r=1",
    "'=1": "''=1",
    "-2.5%": "-2.5%",
    "+49 (0) 170": "+49 (0) 170",
    "-5\n": "'-5\n",
    "'quoted'": "'quoted'",
    "Profit = loss": "Profit = loss",
    "": "",
}


@pytest.mark.parametrize(("cell", "quoted"), CELLS.items())
def test_formulas_are_quoted(cell: str, quoted: str) -> None:
    assert quote_formula(cell) == quoted
    assert quote_formulas(pa.array([cell])).to_pylist() == [quoted]


@given(st.text(alphabet="'=+-@\t\r\n19.,eE%( ax"))
def test_each_cell_can_be_recovered(cell: str) -> None:
    quoted = quote_formula(cell)
    assert unquote_formula(quoted) == cell
    assert quote_formulas(pa.array([cell, None])).to_pylist() == [quoted, None]


def test_scored_csv_runs_no_formula(tmp_path: Path) -> None:
    columns = {"=id": ["-7", None], "text": ["=1+1", "Up"], "score": [-0.5, 0.5]}
    table = pa.table(columns)
    for format in ("csv", "jsonl"):
        writer = open_writer(tmp_path / f"scored.{format}", format, table.schema)
        writer.write_table(table)
        writer.close()
    with (tmp_path / "scored.csv").open(newline="") as stream:
        assert [*csv.reader(stream)] == [
            ["'=id", "text", "score"],
            ["-7", "'=1+1", "-0.5"],
            ["", "Up", "0.5"],
        ]
    assert '"text":"=1+1"' in (tmp_path / "scored.jsonl").read_text()


def test_page_has_the_same_rules() -> None:
    script = (PROJECT / "serve_app/page/table.js").read_text(encoding="utf-8")
    [formula, number] = re.findall(r"(?:FORMULA|NUMBER) = /(.*?)/[,;]", script)
    module = (PROJECT / "finsent/scoring/formulas.py").read_text(encoding="utf-8")
    assert f'r"{formula}"' in module
    assert f'r"{number}"' in module
