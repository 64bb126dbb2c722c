"""Each format's records, numbers and faults, as they lie in the file; and what names say."""

from __future__ import annotations

import datetime
import decimal
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.data.config import Format
from finsent.data.formats import BLOCK_BYTES, ROWS, Columns, read_rows
from finsent.data.heads import agreement, detect, read_columns
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
    for table in read_rows(format, stream, SOURCE, encoding, columns, "here"):
        assert table.schema == ROWS
        assert set(table["source"].to_pylist()) <= {SOURCE}
        values = [table[name].to_pylist() for name in ROWS.names[1:]]
        rows += [Row(*row) for row in zip(*values, strict=True)]
    assert len({row.number for row in rows}) == len(rows)
    return sorted(rows, key=lambda row: row.number)


def read_csv(
    content: str | bytes, encoding: str = "utf-8", format: Format = "csv", unit: str | None = None
) -> list[Row]:
    """With the last column known, as `finsent.data.sources` finds it."""
    data = content.encode(encoding) if isinstance(content, str) else content
    header = read_columns(format, io.BytesIO(data), encoding, "here")
    assert header is not None
    return read(format, data, Columns("text", "label", unit, last=header[-1]), encoding)


def problem(format: Format, content: str | bytes, columns: Columns = BOTH) -> str:
    with pytest.raises(InputError) as caught:
        read(format, content, columns)
    return str(caught.value)


def fields(count: int, wanted: int = 2) -> str:
    return f"malformed_row: {count} fields, not {wanted}"


# --- CSV and TSV ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_fields_come_as_written_and_malformed_rows_keep_their_numbers(end: str) -> None:
    lines = [
        "label,text",
        'up,"Sales, up"',
        "down",
        "",
        'up,"""Best"" year"',
        "a,b,c",
        '"up",',
        "null,NA",
    ]
    assert read_csv(end.join(lines) + end) == [
        Row(2, "Sales, up", "up"),
        Row(3, "down", fault=fields(1)),
        Row(4, '"Best" year', "up"),
        Row(5, "a,b,c", fault=fields(3)),
        Row(6, "", "up"),
        Row(7, "NA", "null"),
    ]


def test_a_tsv_has_tabs_between_fields_and_commas_within() -> None:
    content = 'text\tlabel\tfirm\nUp, 5 %\tup\tA\n"a\tb"\tdown\tB\nx,y\n'
    assert read_csv(content, format="tsv", unit="firm") == [
        Row(2, "Up, 5 %", "up", "A"),
        Row(3, "a\tb", "down", "B"),
        Row(4, "x,y", fault=fields(1, 3)),
    ]


def test_one_column_may_be_asked_for_twice_and_another_may_stand_twice() -> None:
    content = "id,text,label,id\n1,Flat,up,2\n"
    assert read_csv(content, unit="label") == [Row(2, "Flat", "up", "up")]
    assert read("csv", content, Columns("text", None, None)) == [Row(2, "Flat")]


CAFE = 'text,label\nCafé: 5 €,up\n"two\nlines","a\nb"\n'


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-16", "utf-32"])
def test_csv_is_decoded_and_its_byte_order_mark_is_no_text(start: str, encoding: str) -> None:
    if encoding in ("utf-16", "utf-32") and start:
        pytest.skip("the codec writes a mark by itself")
    wanted = [Row(2, "Café: 5 €", "up"), Row(3, "two\nlines", "a\nb")]
    assert read_csv(start + CAFE, encoding) == wanted


@pytest.mark.parametrize(
    ("mark", "order"), [(b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")]
)
def test_the_mark_decides_the_byte_order_to_the_end_of_the_file(mark: bytes, order: str) -> None:
    body = "text,label\n" + "Flat,up\n" * 20 + 'Flat,"two\nlines"\n'
    rows = read_csv(mark + body.encode(order), "utf-16")
    assert rows[-1] == Row(22, "Flat", "two\nlines")


@pytest.mark.parametrize(
    "tail",
    [
        '"b,up\nc,up\n',
        'b,"up\nc,up\n',
        'b,"up\nc,up',
        'b,"up\r\nc,up\r\n',
        '"b,up\nc,up\n' + "d,up\n" * 300,
    ],
)
def test_an_unclosed_quote_is_an_error_that_names_its_record(tail: str) -> None:
    with pytest.raises(InputError) as caught:
        read_csv("text,label\na,up\n" + tail)
    text = str(caught.value)
    assert text.startswith("here: a quote that opens in record 3 is not closed; close it"), text


@pytest.mark.parametrize(
    "record",
    [
        '"two\nlines",5" pipe,up',
        'x,y,5" pipe',
        '"a"b\n,up',  # behind its quote, a line ends the field
        'a "quoted" word,up,z',
        '"say ""so""\nnow",up,z',
    ],
)
@pytest.mark.parametrize("after", ["", "Flat,up\n"])
def test_an_odd_quote_costs_its_record_and_no_more(record: str, after: str) -> None:
    rows = read_csv(f"text,label\na,up\n{record}\n{after}")
    assert rows[0] == Row(2, "a", "up")
    assert [row.fault for row in rows[1:] if row.text != "Flat"] != [None]
    assert (rows[-1].text == "Flat") == bool(after)


@pytest.mark.parametrize(
    "tail",
    [
        'b,"up\nc"',
        'b,"up\nc" x\n',
        'b,"say ""up\nso"""\n',
        'b,"\n"\n',
        'b,"up\nc"\nx,y,z\n',
        'b,"up\nc"\n"x\ny",5" z,w\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_the_end_of_the_file_does_not_look_like_an_open_quote(tail: str, encoding: str) -> None:
    assert read_csv("text,label\na,up\n" + tail, encoding)[1].number == 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("tail", ['b,"say ""up""\nc ""d""\n', 'x,y,z\n"b\n"" é\n', 'b,"up\r'])
def test_quotes_within_do_not_hide_an_open_one(tail: str, encoding: str) -> None:
    record = 4 if tail.startswith("x") else 3
    with pytest.raises(InputError, match=f"opens in record {record} is not closed"):
        read_csv("text,label\na,up\n" + tail, encoding)


@pytest.mark.parametrize("tail", ['b,"up\nc"', 'b,"up\nc"\n', 'b,"up\nc"\r\n\n', '"b\nc",up\n'])
def test_a_closed_quote_over_lines_is_none(tail: str) -> None:
    assert [row.number for row in read_csv("text,label\na,up\n" + tail)] == [2, 3]


SWALLOWED = "swallowed_rows: a stray quote made one text of several records"


@pytest.mark.parametrize(
    "content",
    [
        'text,label\n"Up 5 in a year,positive\nDown a bit,Negative\nFlat",neutral\nEnd,neutral\n',
        'text,label\r\n"Up a bit,positive\r\n"Flat",neutral\r\nEnd,neutral\r\n',
        'label,text\nneutral,"Up 5 in a year\npositive,Down a bit\nneutral,Flat"\nneutral,End\n',
        'text,label,by\n"Up a bit,positive,ann\nFlat",neutral,bob\nEnd,neutral,cid\n',
    ],
    ids=["label last", "half quoted", "label first", "label in the middle"],
)
def test_a_pair_of_stray_quotes_does_not_swallow_records_unnoticed(content: str) -> None:
    rows = read_csv(content)
    assert [row.fault for row in rows if row.text != "End"] == [SWALLOWED], rows
    assert rows[-1] == Row(rows[-1].number, "End", "neutral")


@pytest.mark.parametrize(
    "text", ["Profit:\npositive", "a, b\nc, d", "Outlook, positive", "We are, neutral-ish,\nso far"]
)
def test_lines_of_a_text_are_no_swallowed_records(text: str) -> None:
    assert read_csv(f'text,label\n"{text}",up\n') == [Row(2, text, "up")]


@pytest.mark.parametrize("content", ["text,label", "text,label\n", "text,label\r\n\r\n"])
def test_a_header_alone_has_no_rows(content: str) -> None:
    assert read_csv(content) == []


def broken_blocks(content: str) -> Iterator[pa.Table]:
    stream = io.BytesIO(content.encode())
    columns = Columns("text", "label", None, last="label")
    return read_rows("csv", stream, SOURCE, "utf-8", columns, "here")


def test_malformed_rows_come_with_their_block_and_not_at_the_end() -> None:
    good, bad = "y" * 1000 + ",up\n", "y" * 1000 + ",up,z\n"
    content = "text,label\n" + good + (bad * 9 + good) * 4_000
    numbers: list[int] = []
    seen: list[int] = []
    for table in broken_blocks(content):
        numbers += table["row"].to_pylist()
        seen.append(table["fault"].null_count)
        assert len(table) < 25_000  # of 36,000 malformed ones
    assert sorted(numbers) == [*range(2, 40_003)]
    assert sum(seen) == 4_001


def test_a_file_that_does_not_fit_its_header_is_given_up_soon() -> None:
    content = "text,label\n" + "Sales, in euros, rose,up\n" * 10_010
    with pytest.raises(InputError) as caught:
        list(broken_blocks(content))
    text = str(caught.value)
    assert "none of the first 10,000 records has the header's 2 fields" in text
    assert "the last one has 4; set the source's delimiter, or mend" in text


@pytest.mark.parametrize("delimiter", [";", "|", "\t", "^"])
def test_any_sign_may_stand_between_fields(delimiter: str) -> None:
    content = "text,label\n" + 'Up. "5",up\n"a,b",down\nonly\n"Odd,neutral\nFlat",same\n'
    content = content.replace(",", delimiter)
    stream = io.BytesIO(content.encode())
    assert read_columns("csv", stream, "utf-8", "here", delimiter) == ["text", "label"]
    stream.seek(0)
    tables = read_rows("csv", stream, SOURCE, "utf-8", BOTH, "here", delimiter)
    rows = pa.concat_tables(tables).sort_by("row").drop(["source"]).to_pylist()
    assert [Row(*row.values()) for row in rows] == [
        Row(2, 'Up. "5"', "up"),
        Row(3, f"a{delimiter}b", "down"),
        Row(4, "only", fault=fields(1)),
        Row(5, f"Odd{delimiter}neutral\nFlat", "same", fault=SWALLOWED),
    ]


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
        ('{"text": "half \\ud83d!", "label": "\\udc00"}', Row(1, "half ?!", "?")),
        ('{"text": "a\u2028b\\u0000"}', Row(1, "a\u2028b\0")),
        ('{"text": "twice", "text": "last"}', Row(1, "last")),
        *((line, Row(1, line, fault=NO_VALUE)) for line in (
            '{"text": ["Up"]}', '{"text": "Up", "label": {"a": 1}}', '{"text": "Up", "firm": []}')),
        *((line, Row(1, line, fault="malformed_row: no JSON object")) for line in (
            "[1]", '"Up"', "5", "null")),
        *((line, Row(1, line, fault="malformed_row: not JSON")) for line in (
            "Up,up", '{"text": "Up"', "{'text': 'Up'}", '{"text": "Up"} {}',
            '{"text": ' + "1" * 5000 + "}", '{"text": ' + "[" * 50_000)),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
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
    assert read_columns("jsonl", io.BytesIO(records.encode()), "utf-8", "here") == ["text", "label"]


def test_lines_keep_their_numbers_beyond_the_first_block() -> None:
    lines = [f"{'y' * 990}{n}@up" for n in range(1, 12_001)]
    lines[9_999] = ""
    rows = read("phrasebank", "\n".join(lines))
    assert len(rows) == 11_999
    assert all(row.text == "y" * 990 + str(row.number) for row in rows)


# --- PhraseBank -----------------------------------------------------------------------------------


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
    ("values", "wanted"),
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
def test_parquet_values_of_any_type_become_text(values: pa.Array, wanted: list[str | None]) -> None:
    content = parquet(label=values, text=values)
    assert read("parquet", content, Columns("text", "label", "label")) == [
        Row(n, value, value, value) for n, value in enumerate(wanted, start=1)
    ]


def test_parquet_rows_are_numbered_through_its_row_groups() -> None:
    texts = [f"Unit {n}" for n in range(1, 8)]
    content = parquet(3, **{"a.b": texts, "id": range(7)})
    assert pq.ParquetFile(io.BytesIO(content)).num_row_groups == 3
    wanted = [Row(n, text) for n, text in enumerate(texts, start=1)]
    assert read("parquet", content, Columns("a.b", None, None)) == wanted


@pytest.mark.parametrize("values", [[["up"]], [{"a": 1}]])
def test_parquet_columns_that_hold_no_text_are_named(values: list[Any]) -> None:
    text = problem("parquet", parquet(text=["a"], label=values))
    assert text.startswith("here: column 'label' is of type "), text
    assert text.endswith("no text, number or time; name another column"), text


@pytest.mark.parametrize("type", [pa.binary(), pa.large_binary()])
def test_bytes_that_are_no_utf8_are_named(type: pa.DataType) -> None:
    values = pa.array([b"up", b"\xff"], type)
    for column in (values, values.dictionary_encode()):
        text = problem("parquet", parquet(text=["a", "b"], label=column))
        assert text.startswith("here: column 'label' is of type "), text
        assert "binary, and its bytes are not UTF-8; write the column as strings" in text


def test_parquet_blocks_are_bounded_by_bytes() -> None:
    count, size = 4000, 10_000
    texts = [f"{n:05d}" * (size // 5) for n in range(count)]
    content = parquet(count, text=texts, label=["up"] * count, other=["x" * 20] * count)
    tables = list(read_rows("parquet", io.BytesIO(content), 0, "utf-8", BOTH, "here"))
    assert sum(map(len, tables)) == count
    assert max(table.nbytes for table in tables) < 1.25 * BLOCK_BYTES
    assert min(map(len, tables[:-1])) * size > BLOCK_BYTES / 2


def test_a_parquet_row_of_more_than_a_block_is_read_alone() -> None:
    content = parquet(text=["x" * (BLOCK_BYTES + n) for n in (1, 2)], label=["up", "down"])
    tables = list(read_rows("parquet", io.BytesIO(content), 0, "utf-8", BOTH, "here"))
    assert [len(table) for table in tables] == [1, 1]


def test_a_cut_off_parquet_file_or_a_missing_column_is_one_line() -> None:
    whole = parquet(text=["a"] * 50, label=["up"] * 50)
    assert "'label'" in problem("parquet", parquet(text=["a"])).replace('"', "'")
    for content in (whole[:-20], whole[-20:], b"PAR1", b"text,label\n"):
        text = problem("parquet", content)
        assert text.startswith("here is not valid Parquet near row 1 ("), text
        assert text.endswith("; mend the file"), text
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
    assert read_columns(format, io.BytesIO(content.encode()), "utf-8", "here") == wanted


def test_column_names_of_parquet() -> None:
    content = parquet(text=["a"], label=["b"])
    assert read_columns("parquet", io.BytesIO(content), "utf-8", "here") == ["text", "label"]


@pytest.mark.parametrize(
    ("format", "content", "parts"),
    [
        ("csv", "", ["is empty", "labelled rows"]),
        ("jsonl", "\ufeff\r\n \n", ["is empty", "labelled rows"]),
        ("csv", '"text,label\na,up', ["no valid CSV header", "an unclosed quote"]),
        ("tsv", '"text\tlabel\na\tup', ["no valid TSV header", "an unclosed quote"]),
        ("jsonl", "text,label\na,up\n", ["not JSON Lines", "one object a line", "format"]),
        ("jsonl", '[{"text": "a"}]', ["not JSON Lines", "no object"]),
        ("phrasebank", "text,label\na,up\n", ["no `sentence@label` line", "format"]),
        ("parquet", "text,label\na,up\n", ["not valid Parquet", "format"]),
    ],
)
def test_a_head_of_another_format_is_refused(
    format: Format, content: str, parts: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        read_columns(format, io.BytesIO(content.encode()), "utf-8", "here")
    text = str(caught.value)
    assert text.startswith("here ")
    assert all(part in text for part in parts), text


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
    ("name", "wanted"),
    [
        ("Sentences_50Agree.txt", 0.5),
        ("Sentences_66Agree.txt.gz", 0.66),
        ("Sentences_AllAgree.txt", 1.0),
        ("Sentences_75Agree.txt.GZ", 0.75),
        ("news.csv", None),
    ],
)
def test_a_phrasebank_file_says_by_its_name_how_many_annotators_agreed(
    name: str, wanted: float | None
) -> None:
    assert agreement(name) == wanted
