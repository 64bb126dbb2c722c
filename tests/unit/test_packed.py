"""JSON of any shape, workbooks, Feather and archives: read, or refused with the remedy."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.data.readers.columns import Columns
from finsent.data.readers.formats import read_names, read_rows
from finsent.data.readers.layout import FileLayout
from tests.properties import examples
from tests.unit.csv_dialects import read as read_named
from tests.unit.source_files import write
from tests.unit.test_labeling_tools import ROSE_AND_FELL, labels, lines, problem


class Row(NamedTuple):
    number: int
    text: str | None
    label: str | None = None
    fault: str | None = None


def read(path: Path, **settings: Any) -> list[Row]:
    return [Row(*row) for row in read_named(path, **settings)]


RECORDS = [{"text": text, "label": label} for text, label in ROSE_AND_FELL.items()]
ROWS = [Row(n, r["text"], r["label"]) for n, r in enumerate(RECORDS, start=1)]
BODY = b"text,label\nAlpha rose,positive\nBeta fell,negative\n"

# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        "\ufeff \n" + json.dumps(RECORDS) + "\n\n",
        "\n".join(json.dumps(record, indent=1) for record in RECORDS),
        lines(*RECORDS),
        "".join(map(json.dumps, RECORDS)),
    ],
    ids=["array", "pretty array", "marked", "pretty objects", "lines", "in a row"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_json_of_any_shape_is_read(tmp_path: Path, content: str, encoding: str) -> None:
    assert read(write(tmp_path, content.encode(encoding), "a.json")) == ROWS


@pytest.mark.parametrize(
    ("content", "phrases"),
    [
        ("[", ["is not valid JSON behind record 0", "cut off"]),
        (json.dumps(RECORDS)[:-1], ["is not valid JSON behind record 2", "cut off"]),
        (json.dumps(RECORDS)[:-5], ["is not valid JSON behind record 1"]),
        (json.dumps(RECORDS).replace("}, {", "} {"), ["behind record 1", "a comma is missing"]),
        (json.dumps(RECORDS) + "[]", ["text follows the array"]),
        ('["a", "b"]', ["holds no JSON objects"]),
        ("[]", ["holds no JSON objects"]),
        ("text,label\n", ["is not valid JSON behind record 0"]),
        (
            json.dumps({"text": {"0": "Alpha rose"}, "label": {"0": "positive"}}),
            ["is one object with the keys 'text', 'label'", "orient='records'"],
        ),
        (json.dumps({"data": RECORDS}), ["is one object with the keys 'data'"]),
    ],
)
def test_json_that_holds_no_records_is_refused(
    tmp_path: Path, content: str, phrases: list[str]
) -> None:
    text = problem(write(tmp_path, content, "a.json"))
    assert all(phrase in text for phrase in phrases), text


def test_what_is_no_object_in_an_array_is_a_row_with_a_fault(tmp_path: Path) -> None:
    content = json.dumps([RECORDS[0], "a", 5, None, RECORDS[1]])
    fault = "malformed_row: no JSON object"
    assert read(write(tmp_path, content, "a.json")) == [
        ROWS[0],
        Row(2, '"a"', None, fault),
        Row(3, "5", None, fault),
        Row(4, "null", None, fault),
        ROWS[1]._replace(number=5),
    ]


@pytest.mark.parametrize("content", [json.dumps(RECORDS), json.dumps(RECORDS[0], indent=1)])
def test_json_lines_that_are_none_say_which_format_to_set(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, content, "a.jsonl")
    assert "is not JSON Lines" in problem(path)
    assert "Set format: json for this source" in problem(path)
    assert labels(path, format="json")["Alpha rose"] == "positive"


def test_a_key_that_the_first_record_lacks_is_a_column(tmp_path: Path) -> None:
    body = lines({"text": "Gamma met"}, *RECORDS)
    for name in ("a.jsonl", "a.json"):
        rows = read(write(tmp_path, body, name))
        assert [row.label for row in rows] == [None, "positive", "negative"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_a_key_that_shows_late_is_read(tmp_path: Path, name: str) -> None:
    """And one that no record has is refused, not taken for empty."""
    late = [{"text": f"{'y' * 500}{n}"} for n in range(3_000)]
    assert len(lines(*late)) > 1 << 20  # more than is looked at for the columns

    def packed(body: str) -> bytes:
        return gzip.compress(body.encode()) if name.endswith("gz") else body.encode()

    path = write(tmp_path, packed(lines(*late, *RECORDS)), name)
    assert read(path)[-2:] == [row._replace(number=row.number + 3_000) for row in ROWS]
    text = problem(write(tmp_path, packed(lines(*late)), name))
    assert "label='label': no such column" in text


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_missing_text_is_no_word(tmp_path: Path, name: str) -> None:
    body = '{"text": NaN, "label": "positive"}\n{"text": "Up", "label": NaN}\n'
    rows = read(write(tmp_path, body, name))
    assert [(row.text, row.label) for row in rows] == [(None, "positive"), ("Up", None)]


@examples(100)
@given(
    st.lists(st.dictionaries(st.sampled_from(["text", "label"]), st.text(max_size=5)), max_size=9),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_objects_come_back_in_order(
    records: list[dict[str, str]], indent: int | None, is_array: bool
) -> None:
    dumped = [json.dumps(record, indent=indent) for record in records]
    content = f"[{','.join(dumped)}]" if is_array else "\n".join(dumped)
    columns = Columns("text", "label", None)
    tables = read_rows(io.BytesIO(content.encode()), FileLayout("json", "here"), columns, 0)
    rows = [row for table in tables for row in table.to_pylist()]
    assert [(row["row"], row["raw_text"], row["raw_label"]) for row in rows] == [
        (n, record.get("text"), record.get("label")) for n, record in enumerate(records, start=1)
    ]


def test_a_long_array_is_read_across_pieces(tmp_path: Path) -> None:
    records = [{"text": f"{'y' * 900}{n}", "label": "neutral"} for n in range(3_000)]
    rows = read(write(tmp_path, json.dumps(records), "a.json"))
    assert [row.text for row in rows] == [record["text"] for record in records]


# --- archives -------------------------------------------------------------------------------------


def zipped(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "a.csv.xz": lzma.compress,
    "a.csv.bz2": bz2.compress,
    "a.csv.gz": gzip.compress,
    "a.csv.zip": lambda body: zipped(any=body),
    "a.zip": lambda body: zipped(**{"in/a.csv": body, "__MACOSX/in/._a.csv": b"x", "in/": b""}),
}


@pytest.mark.parametrize("name", PACKERS)
def test_packed_files_are_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, PACKERS[name](BODY), name)
    assert labels(path) == ROSE_AND_FELL
    if name != "a.zip":  # its name does not say what is in it
        assert labels(tmp_path) == ROSE_AND_FELL


@pytest.mark.parametrize("name", PACKERS)
def test_a_cut_off_or_wrong_archive_is_named(tmp_path: Path, name: str) -> None:
    body = b"text,label\n" + b"".join(b"Unit %d of %d,positive\n" % (n, n * n) for n in range(9999))
    packed = PACKERS[name](body)
    text = problem(write(tmp_path, packed[: len(packed) // 2], name))
    assert "cut off" in text or "damaged" in text
    assert "not" in problem(write(tmp_path, body, name))


def test_an_archive_of_several_files_is_unpacked_by_its_owner(tmp_path: Path) -> None:
    for name in ("a.zip", "a.csv.zip"):
        text = problem(write(tmp_path, zipped(**{"a.csv": BODY, "b.csv": BODY}), name))
        assert "is an archive of 2 files ('a.csv', 'b.csv'). Unpack it, and name its folder" in text
    assert "is an archive of 0 files. Unpack it" in problem(write(tmp_path, zipped(), "a.zip"))


@pytest.mark.parametrize(
    ("name", "value"), [("quote", "none"), ("escape", "\\"), ("header", "none"), ("sheet", "A")]
)
def test_settings_that_a_format_has_no_use_for_are_refused(
    tmp_path: Path, name: str, value: str
) -> None:
    path = write(tmp_path, lines(*RECORDS), "a.jsonl")
    assert f"is jsonl, which has no {name}. Leave out {value!r}" in problem(path, **{name: value})


def test_a_zip_of_a_workbook_or_parquet_is_read(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(RECORDS), sink)
    path = write(tmp_path, zipped(**{"a.parquet": sink.getvalue()}), "a.zip")
    assert labels(path) == ROSE_AND_FELL


# --- workbooks and Feather ------------------------------------------------------------------------


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    """A small .xlsx by its parts: texts inline, numbers as they are."""

    def cell(value: Any, reference: str) -> str:
        if value is None:
            return ""
        if isinstance(value, str):
            return f'<c r="{reference}" t="inlineStr"><is><t>{value}</t></is></c>'
        kind = ' t="b"' if isinstance(value, bool) else ""
        return f'<c r="{reference}"{kind}><v>{int(value) if kind else value}</v></c>'

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    listed, related, parts = "", "", {}
    for number, (name, rows) in enumerate(sheets.items(), start=1):
        listed += f'<sheet name="{name}" sheetId="{number}" r:id="r{number}"/>'
        target = f"worksheets/sheet{number}.xml"
        related += f'<Relationship Id="r{number}" Type="{office}/worksheet" Target="{target}"/>'
        body = "".join(
            f'<row r="{r}">{"".join(cell(v, f"{chr(65 + c)}{r}") for c, v in enumerate(row))}</row>'
            for r, row in enumerate(rows, start=1)
        )
        parts[f"xl/{target}"] = (
            f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>'
        )
    parts["xl/workbook.xml"] = (
        f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{listed}</sheets></workbook>'
    )
    parts["xl/_rels/workbook.xml.rels"] = (
        f'<Relationships xmlns="{package}">{related}</Relationships>'
    )
    parts["_rels/.rels"] = (
        f'<Relationships xmlns="{package}"><Relationship Id="r" Type="{office}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>'
    )
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    parts["[Content_Types].xml"] = (
        f'<Types xmlns="{types}"><Default Extension="xml" ContentType="application/xml"/>'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/></Types>'
    )
    path.write_bytes(zipped(**{name: content.encode() for name, content in parts.items()}))
    return path


def test_a_sheet_is_read_with_its_row_numbers(tmp_path: Path) -> None:
    table: list[list[Any]] = [
        ["text", "label"],
        ["Sales rose", 1],
        [],
        ["Sales fell", -0.5],
        [None, True],
    ]
    path = workbook(tmp_path / "a.xlsx", News=table, Empty=[])
    assert read(path) == [
        Row(2, "Sales rose", "1"),
        Row(4, "Sales fell", "-0.5"),
        Row(5, None, "true"),
    ]
    assert read(path, header="none", text=1, label=2)[0] == Row(1, "text", "label")


def test_of_several_sheets_one_is_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", A=[["text", "label"], ["Up", "up"]], B=[["x"], ["y"]])
    assert "has rows in the sheets 'A', 'B'. Set sheet to one of them" in problem(path)
    assert read(path, sheet="A") == [Row(2, "Up", "up")]
    assert "has no sheet 'C'. Set sheet to one of 'A', 'B'" in problem(path, sheet="C")


@pytest.mark.parametrize(
    ("further", "is_refused"),
    [
        ('<c r="XFD1048576"><v>1</v></c>', True),
        ('<c s="1" r="XFD1048576" t="inlineStr"><is><t>x</t></is></c>', True),
        ('<c r="B9999"><v>1</v></c>', False),
        ('<c r="XFD1048576" s="1"/>', False),  # a style alone
        ('<c r="XFD1048576" s="1"></c>', False),
    ],
)
def test_a_sheet_of_more_cells_than_memory_bears_is_refused(
    tmp_path: Path, further: str, is_refused: bool
) -> None:
    path = workbook(tmp_path / "a.xlsx", A=[["text", "label"], ["Up", "up"]])
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"].decode()
    end = f'<row r="1048576">{further}</row></sheetData>'
    parts["xl/worksheets/sheet1.xml"] = sheet.replace("</sheetData>", end).encode()
    path.write_bytes(zipped(**parts))
    if is_refused:
        assert "a sheet spans 1,048,576 rows of 16,384 columns" in problem(path)
    else:
        stream = io.BytesIO(path.read_bytes())
        assert read_names(stream, FileLayout("excel", "a.xlsx")) == ["text", "label"]


def test_what_is_no_workbook_is_refused(tmp_path: Path) -> None:
    assert "not a workbook" in problem(write(tmp_path, BODY, "a.xlsx"))
    text = problem(write(tmp_path, zipped(**{"a.csv": BODY}), "b.xlsx"))
    assert "is not a readable workbook" in text
    assert "or as CSV" in text
    assert "is csv, which has no sheet" in problem(write(tmp_path, BODY), sheet="A")


@pytest.mark.parametrize("kind", ["feather", "arrow"])
def test_feather_and_arrow_streams_are_read(tmp_path: Path, kind: str) -> None:
    table = pa.table({"text": ["Up", None, "Down"], "label": [1.0, 2.0, float("nan")]})
    path = tmp_path / f"a.{kind}"
    if kind == "feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    assert read(path) == [Row(1, "Up", "1"), Row(2, None, "2"), Row(3, "Down", None)]
    damaged = write(tmp_path, path.read_bytes()[:-40], f"b.{kind}")
    assert "is damaged" in problem(damaged) or "not a valid Arrow" in problem(damaged)
