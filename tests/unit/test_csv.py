"""CSV and TSV: fields as written, malformed rows with their numbers, quotes that do not close."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from finsent.data.config import Format
from finsent.data.readers.columns import Columns
from finsent.data.readers.csv_dialect import Dialect
from finsent.data.readers.formats import read_names, read_rows
from finsent.data.readers.layout import FileLayout
from finsent.errors import InputError
from tests.unit.test_formats import BOTH, SOURCE, Row, read


def read_csv(
    content: str | bytes, encoding: str = "utf-8", format: Format = "csv", unit: str | None = None
) -> list[Row]:
    """With the last column known, as `finsent.data.sources.files` finds it."""
    data = content.encode(encoding) if isinstance(content, str) else content
    header = read_names(io.BytesIO(data), FileLayout(format, "here", encoding))
    assert header is not None
    return read(format, data, Columns("text", "label", unit, last=header[-1]), encoding)


def fields(count: int, expected: int = 2) -> str:
    return f"malformed_row: {count} fields, not {expected}"


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
    expected = [Row(2, "Café: 5 €", "up"), Row(3, "two\nlines", "a\nb")]
    assert read_csv(start + CAFE, encoding) == expected


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
    assert text.startswith("here: a quote that opens in record 3 is not closed. Close it"), text


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
    return read_rows(stream, FileLayout("csv", "here"), columns, SOURCE)


def test_records_come_in_their_order_whatever_is_wrong_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finsent.data.readers.csv_arrow.BLOCK_BYTES", 64)  # some records each
    kinds = np.random.default_rng(1).integers(0, 3, 400)
    kinds[50:120] = 1  # blocks without a good record
    records = [("Up,up", "a,b,c,d", '"a\nb",up')[kind] for kind in kinds]
    tables = [*broken_blocks("text,label\n" + "\n".join(records) + "\n")]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["row"] for row in rows] == [*range(2, 402)]
    assert [row["fault"] is not None for row in rows] == [kind == 1 for kind in kinds]
    assert len(tables) > 10


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
    assert "the last one has 4. Set the source's delimiter, or repair" in text


@pytest.mark.parametrize("delimiter", [";", "|", "\t", "^"])
def test_any_sign_may_stand_between_fields(delimiter: str) -> None:
    content = "text,label\n" + 'Up. "5",up\n"a,b",down\nonly\n"Odd,neutral\nFlat",same\n'
    content = content.replace(",", delimiter)
    stream = io.BytesIO(content.encode())
    layout = FileLayout("csv", "here", dialect=Dialect(delimiter))
    assert read_names(stream, layout) == ["text", "label"]
    stream.seek(0)
    tables = read_rows(stream, layout, BOTH, SOURCE)
    rows = pa.concat_tables(tables).sort_by("row").drop(["source"]).to_pylist()
    assert [Row(*row.values()) for row in rows] == [
        Row(2, 'Up. "5"', "up"),
        Row(3, f"a{delimiter}b", "down"),
        Row(4, "only", fault=fields(1)),
        Row(5, f"Odd{delimiter}neutral\nFlat", "same", fault=SWALLOWED),
    ]
