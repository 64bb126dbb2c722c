"""Readers of each format: records, their numbers and faults; and the detection of formats."""

from __future__ import annotations

import datetime
import decimal
import io
from typing import Any, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.data.config import Format
from finsent.data.readers.columns import BLOCK_BYTES, ROWS, Columns
from finsent.data.readers.formats import FORMATS, read_names, read_rows
from finsent.data.readers.layout import FileLayout
from finsent.data.sources.format_detection import agreement, detect
from finsent.errors import InputError

SOURCE = 7
BOTH = Columns("text", "label", None)


class Row(NamedTuple):
    """What the tests look at."""

    number: int
    text: str | None
    label: str | None = None
    unit: str | None = None
    fault: str | None = None


def read(
    format: Format, content: str | bytes, columns: Columns = BOTH, encoding: str = "utf-8"
) -> list[Row]:
    """All rows of one file in the order of their numbers."""
    stream = io.BytesIO(content.encode(encoding) if isinstance(content, str) else content)
    rows: list[Row] = []
    for table in read_rows(stream, FileLayout(format, "here", encoding), columns, SOURCE):
        assert table.schema == ROWS
        assert set(table["source"].to_pylist()) <= {SOURCE}
        values = [table[name].to_pylist() for name in ROWS.names[1:]]
        rows += [Row(*row) for row in zip(*values, strict=True)]
    assert len({row.number for row in rows}) == len(rows)
    return sorted(rows, key=lambda row: row.number)


def problem(format: Format, content: str | bytes, columns: Columns = BOTH) -> str:
    with pytest.raises(InputError) as caught:
        read(format, content, columns)
    return str(caught.value)


# --- JSON Lines -----------------------------------------------------------------------------------

NO_VALUE = "malformed_row: a list or object where a text or number belongs"


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ('{"text": "Up \\"5\\"\\n", "label": "up"}', Row(1, 'Up "5"\n', "up")),
        ('{"label": 1, "text": "Up"}', Row(1, "Up", "1")),
        ('{"text": 5.5, "label": -0.25}', Row(1, "5.5", "-0.25")),
        ('{"text": "Up", "label": true, "firm": 12}', Row(1, "Up", "true", "12")),
        ('{"text": null, "label": null}', Row(1, None)),
        ('{"firm": "A", "more": {"x": [1]}}', Row(1, None, None, "A")),
        ('{"text": "\\ud83d\\ude80 caf\\u00e9 é"}', Row(1, "🚀 café é")),
        ('{"text": "half \\ud83d!", "label": "\\udc00"}', Row(1, "half \ufffd!", "\ufffd")),
        ('{"text": "a\u2028b\\u0000"}', Row(1, "a\u2028b\0")),
        ('{"text": "twice", "text": "last"}', Row(1, "last")),
        *(
            (line, Row(1, line, fault=NO_VALUE))
            for line in (
                '{"text": ["Up"]}',
                '{"text": "Up", "label": {"a": 1}}',
                '{"text": "Up", "firm": []}',
            )
        ),
        *(
            (line, Row(1, line, fault="malformed_row: no JSON object"))
            for line in ("[1]", '"Up"', "5", "null")
        ),
        *(
            (line, Row(1, line, fault="malformed_row: not JSON"))
            for line in (
                "Up,up",
                '{"text": "Up"',
                "{'text': 'Up'}",
                '{"text": "Up"} {}',
                '{"text": ' + "1" * 5000 + "}",
                '{"text": ' + "[" * 50_000,
            )
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_json_lines(line: str, row: Row) -> None:
    after = '{"text": "Flat", "label": "same"}'
    for end in ("\n", "\r\n"):
        content = f"\ufeff{line}{end} {end}{after}"
        assert read("jsonl", content, Columns("text", "label", "firm")) == [
            row,
            Row(3, "Flat", "same"),
        ]


@pytest.mark.parametrize("format", ["jsonl", "phrasebank"])
def test_lines_are_decoded(format: Format) -> None:
    content = '{"text": "Café 5 €", "label": "up"}\n' if format == "jsonl" else "Café 5 €@up\n"
    for encoding in ("utf-8-sig", "cp1252", "utf-16"):
        assert read(format, content, encoding=encoding) == [Row(1, "Café 5 €", "up")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_files_of_any_system_do(end: str) -> None:
    lines = ["Sales rose@up", "", "Sales fell@down", "no label"]
    assert read("phrasebank", end.join(lines)) == [
        Row(1, "Sales rose", "up"),
        Row(3, "Sales fell", "down"),
        Row(4, "no label", fault="malformed_row: no @ before the label"),
    ]
    records = end.join(['{"text": "Up", "label": "up"}', '{"text": "Down"}'])
    assert read("jsonl", records) == [Row(1, "Up", "up"), Row(2, "Down")]
    assert read_names(io.BytesIO(records.encode()), FileLayout("jsonl", "here")) == [
        "text",
        "label",
    ]


def test_lines_keep_their_numbers_beyond_the_first_block() -> None:
    lines = [f"{'y' * 990}{n}@up" for n in range(1, 12_001)]
    lines[9_999] = ""
    rows = read("phrasebank", "\n".join(lines))
    assert len(rows) == 11_999
    assert all(row.text == "y" * 990 + str(row.number) for row in rows)


# --- PhraseBank -----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jsonl", "phrasebank", "text"])
def test_a_line_without_end_is_refused_before_it_fills_the_memory(format: Format) -> None:
    content = b'{"text": "Up"}\n' + b"a" * (4 * BLOCK_BYTES + 1)
    text = problem(format, content, Columns("text", None, None))
    assert "here: line 2 is longer than 33,554,432 characters" in text


def test_phrasebank_lines_end_in_at_and_label() -> None:
    content = "Sales rose@positive\nMail us @ a@b.c@neutral\n\nno label\n@up\nempty@\n x @ y \r\n"
    assert read("phrasebank", content) == [
        Row(1, "Sales rose", "positive"),
        Row(2, "Mail us @ a@b.c", "neutral"),
        Row(4, "no label", fault="malformed_row: no @ before the label"),
        Row(5, "", "up"),
        Row(6, "empty", ""),
        Row(7, " x ", " y "),
    ]


# --- Parquet --------------------------------------------------------------------------------------


def parquet(row_group_size: int | None = None, **columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=row_group_size)
    return sink.getvalue()


NEW_YEAR = datetime.datetime(2024, 1, 1, 2, 30)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["up", None, ""]), ["up", None, ""]),
        (pa.array(["up", None], pa.large_string()), ["up", None]),
        (pa.array(["up", "up", None]).dictionary_encode(), ["up", "up", None]),
        (pa.array([2, 0, 2], pa.int8()).dictionary_encode(), ["2", "0", "2"]),
        (pa.array([-1, 0, None], pa.int64()), ["-1", "0", None]),
        (pa.array([-0.5, 0.25], pa.float32()), ["-0.5", "0.25"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([decimal.Decimal("1.50")]), ["1.50"]),
        (pa.array([b"up", b"caf\xc3\xa9"]), ["up", "café"]),
        (pa.array([NEW_YEAR.date(), None]), ["2024-01-01", None]),
        (pa.array([NEW_YEAR], pa.timestamp("ms")), ["2024-01-01 02:30:00.000"]),
        (pa.array([NEW_YEAR], pa.timestamp("ms", "UTC")), ["2024-01-01 02:30:00.000Z"]),
        (pa.nulls(2), [None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_parquet_values_of_any_type_become_text(
    values: pa.Array, expected: list[str | None]
) -> None:
    content = parquet(label=values, text=values)
    assert read("parquet", content, Columns("text", "label", "label")) == [
        Row(n, value, value, value) for n, value in enumerate(expected, start=1)
    ]


def test_parquet_rows_are_numbered_through_its_row_groups() -> None:
    texts = [f"Unit {n}" for n in range(1, 8)]
    content = parquet(3, **{"a.b": texts, "id": range(7)})
    assert pq.ParquetFile(io.BytesIO(content)).num_row_groups == 3
    expected = [Row(n, text) for n, text in enumerate(texts, start=1)]
    assert read("parquet", content, Columns("a.b", None, None)) == expected


@pytest.mark.parametrize("values", [[[{"a": 1}]], [{"a": 1}]])
def test_parquet_columns_that_hold_no_text_are_named(values: list[Any]) -> None:
    text = problem("parquet", parquet(text=["a"], label=values))
    assert text.startswith("here: column 'label' is of type "), text
    assert text.endswith("not text, a number or a time. Name another column."), text


@pytest.mark.parametrize("type", [pa.binary(), pa.large_binary()])
def test_bytes_that_are_no_utf8_are_named(type: pa.DataType) -> None:
    values = pa.array([b"up", b"\xff"], type)
    for column in (values, values.dictionary_encode()):
        text = problem("parquet", parquet(text=["a", "b"], label=column))
        assert text.startswith("here: column 'label' is of type "), text
        assert "binary, and its bytes are not UTF-8. Write the column as strings" in text


@pytest.mark.parametrize("kind", ["string", "list", "dictionary"])
def test_strings_that_are_no_utf8_are_named(kind: str) -> None:
    offsets = pa.array([0, 2], pa.int32()).buffers()[1]
    bad = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"a\xff"))
    label = {
        "string": bad,
        "list": pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), bad),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), bad),
    }[kind]
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array(["Up"]), "label": label}), stream)
    stream.seek(0)
    with pytest.raises(InputError, match=r"column 'label' holds strings that are not valid .*UTF"):
        list(read_rows(stream, FileLayout("parquet", "a.parquet"), BOTH, 0))


def test_parquet_blocks_are_bounded_by_bytes() -> None:
    count, size = 4000, 10_000
    texts = [f"{n:05d}" * (size // 5) for n in range(count)]
    content = parquet(count, text=texts, label=["up"] * count, other=["x" * 20] * count)
    tables = list(read_rows(io.BytesIO(content), FileLayout("parquet", "here"), BOTH, 0))
    assert sum(map(len, tables)) == count
    assert max(table.nbytes for table in tables) < 1.25 * BLOCK_BYTES
    assert min(map(len, tables[:-1])) * size > BLOCK_BYTES / 2


def test_a_parquet_row_of_more_than_a_block_is_read_alone() -> None:
    content = parquet(text=["x" * (BLOCK_BYTES + n) for n in (1, 2)], label=["up", "down"])
    tables = list(read_rows(io.BytesIO(content), FileLayout("parquet", "here"), BOTH, 0))
    assert [len(table) for table in tables] == [1, 1]


def test_a_cut_off_parquet_file_or_a_missing_column_is_one_line() -> None:
    complete = parquet(text=["a"] * 50, label=["up"] * 50)
    assert "'label'" in problem("parquet", parquet(text=["a"])).replace('"', "'")
    for content in (complete[:-20], complete[-20:], b"PAR1", b"text,label\n"):
        text = problem("parquet", content)
        assert text.startswith("here is not valid Parquet near row 1 ("), text
        assert text.endswith(". Repair the file."), text
        assert "\n" not in text


# --- heads and names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "content", "wanted"),
    [
        ("csv", "\ufeff\r\ntext,label\r\n", ["text", "label"]),
        ("csv", '"a long\nname","x,y",text', ["a long\nname", "x,y", "text"]),
        ("tsv", "a,b\tc\n1\t2\n", ["a,b", "c"]),
        ("jsonl", '\ufeff\n{"text": "a", "label": 1}\nrest', ["text", "label"]),
        ("jsonl", '{"text": "a\u2028b", "label": 1}\n', ["text", "label"]),
        ("phrasebank", "Sales rose@positive\n", None),
    ],
)
def test_column_names(format: Format, content: str, wanted: list[str] | None) -> None:
    assert read_names(io.BytesIO(content.encode()), FileLayout(format, "here")) == wanted


def test_column_names_of_parquet() -> None:
    content = parquet(text=["a"], label=["b"])
    assert read_names(io.BytesIO(content), FileLayout("parquet", "here")) == ["text", "label"]


@pytest.mark.parametrize(
    ("format", "content", "phrases"),
    [
        ("csv", "", ["is empty", "labeled rows"]),
        ("jsonl", "\ufeff\r\n \n", ["is empty", "labeled rows"]),
        ("csv", '"text,label\na,up', ["no valid CSV header", "an unclosed quote"]),
        ("tsv", '"text\tlabel\na\tup', ["no valid TSV header", "an unclosed quote"]),
        ("jsonl", "text,label\na,up\n", ["not JSON Lines", "one object per line", "format"]),
        ("jsonl", '[{"text": "a"}]', ["not JSON Lines", "not one object per line"]),
        ("phrasebank", "text,label\na,up\n", ["no `sentence@label` line", "format"]),
        ("parquet", "text,label\na,up\n", ["not valid Parquet", "format"]),
    ],
)
def test_a_head_of_another_format_is_refused(
    format: Format, content: str, phrases: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        read_names(io.BytesIO(content.encode()), FileLayout(format, "here"))
    text = str(caught.value)
    assert text.startswith("here ")
    assert all(phrase in text for phrase in phrases), text


@pytest.mark.parametrize(
    ("name", "format", "compression"),
    [
        ("a.csv", "csv", None),
        ("A.B.CSV.gz", "csv", "gzip"),
        ("a.tsv.ZST", "tsv", "zstd"),
        ("a.jsonl", "jsonl", None),
        ("a.ndjson.gz", "jsonl", "gzip"),
        ("a.Parquet", "parquet", None),
        ("Sentences_66Agree.txt", "phrasebank", None),
        ("Sentences_AllAgree.txt.gz", "phrasebank", "gzip"),
        ("a.txt", None, None),
        ("a.txt.gz", None, "gzip"),
        ("csv", None, None),
        ("a.csv.bak", None, None),
        ("My_Sentences_66Agree.txt", None, None),
    ],
)
def test_the_name_says_format_and_compression(
    name: str, format: Format | None, compression: str | None
) -> None:
    assert detect(name) == (format, compression)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Sentences_50Agree.txt", 0.5),
        ("Sentences_66Agree.txt.gz", 0.66),
        ("Sentences_AllAgree.txt", 1.0),
        ("Sentences_75Agree.txt.GZ", 0.75),
        ("news.csv", None),
    ],
)
def test_a_phrasebank_file_says_by_its_name_how_many_annotators_agreed(
    name: str, expected: float | None
) -> None:
    assert agreement(name) == expected


def test_each_format_that_a_setting_can_name_has_a_reader() -> None:
    assert set(FORMATS) == set(get_args(Format))
    suffixes = [suffix for format in FORMATS.values() for suffix in format.suffixes]
    assert len(suffixes) == len(set(suffixes))
