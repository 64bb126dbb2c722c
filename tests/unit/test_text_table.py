"""Text tables in memory: read as ingest reads files, with every cell and every blank row."""

from __future__ import annotations

import io
import tracemalloc
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.data.readers.csv_exact import ODD_QUOTE
from finsent.data.readers.text_table import NotTextError, TableRow, TextTable, read_text_table
from finsent.errors import InputError


def rows_of(table: TextTable) -> list[TableRow]:
    rows = [record for piece in table.pieces() for record in piece]
    assert len(rows) == table.rows
    return rows


def cells(body: bytes) -> list[list[str]]:
    return [record.cells for record in rows_of(read_text_table(body))]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_delimiter_and_encoding_are_found(sign: str, encoding: str) -> None:
    lines = [["id", " Headline "], ["1", "Umsatz fiel in München um 5 €"], ["2", '"a;b,c|d\te"']]
    table = read_text_table("\r\n".join(sign.join(line) for line in lines).encode(encoding))
    assert (table.header, table.column, table.delimiter) == (("id", " Headline "), 1, sign)
    assert table.encoding.startswith(encoding)
    expected = [["1", "Umsatz fiel in München um 5 €"], ["2", "a;b,c|d\te"]]
    assert [record.cells for record in rows_of(table)] == expected


def test_what_is_set_is_not_guessed() -> None:
    body = "a;text\nx;é\n".encode("cp1250")
    table = read_text_table(body, column="a;text", delimiter=",", encoding="cp1252")
    assert rows_of(table) == [TableRow(2, ["x;é"], None)]
    assert read_text_table(b"a\tb\n1\t2\n", "tsv", column="b").column == 1
    assert read_text_table(b"headline,text\n1,2\n", column="headline").column == 0
    assert read_text_table(b"news\nProfit rose.\n", column="news").rows == 1


def test_every_row_keeps_its_place_and_its_number() -> None:
    body = b'\n\nid,text,id\n1,a,9\n\n,,\n2,b\n3,"x\ny",5\nz,c,d,e\n\n\n'
    assert rows_of(read_text_table(body)) == [
        TableRow(2, ["1", "a", "9"], None),
        TableRow(3, ["", "", ""], None),
        TableRow(4, ["", "", ""], None),
        TableRow(5, ["", "2,b", ""], "malformed_row: 2 fields, not 3 (record 5)"),
        TableRow(6, ["3", "x\ny", "5"], None),
        TableRow(7, ["", "z,c,d,e", ""], "malformed_row: 4 fields, not 3 (record 7)"),
    ]
    assert cells(b"text\n\na\n") == [[""], ["a"]]


def test_malformed_rows_keep_their_places_over_blocks() -> None:
    lines = [f"{i},{'x' * 4000},y" if i % 500 else f"{i}" for i in range(1, 6001)]
    rows = rows_of(read_text_table("\n".join(["id,text,note", *lines]).encode()))
    assert [record.number for record in rows] == [*range(2, 6002)]
    assert [record.cells[0] or record.cells[1] for record in rows] == [
        str(i) for i in range(1, 6001)
    ]
    assert sum(record.fault is not None for record in rows) == 12


def test_lines_of_a_text_are_rows() -> None:
    table = read_text_table(b'\xef\xbb\xbftext\r\na, "b"\r\n\r\n \r\nc\r\n\r\n', "text")
    expected = ["text", 'a, "b"', "", "", "c"]
    assert [record.cells for record in rows_of(table)] == [[text] for text in expected]
    assert [record.number for record in rows_of(table)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is empty"),
        (b"\n \n\n", "is empty"),
        (b"a,b\n1,2\n", "which column is the text? .* 'a', 'b'"),
        (b"a;b\n1;2\n", "which column is the text? .*'a;b'.* delimiter to ';'"),
        (b"Profit rose in the third quarter.\nSales fell.\n", "not a header, add one above"),
        (b"Profit rose\nSales fell\n", "not a header, add one above it or set format to text"),
        (b"news\nProfit rose.\n", "Set column to its name"),
        (b"headline,text\n1,2\n", "which column is the text? 'headline', 'text' are names of a"),
        (b"id,Text,text\n1,2,3\n", "which column is the text? 'Text', 'text' are names of a text"),
        (b"text,text\n1,2\n", "has 2 columns 'text'. Rename"),
        (b'text\n"Profit rose\nSales fell\n', "opens in record 2 is not closed"),
        (b'text\n"Profit rose\n\n\n', "opens in record 2 is not closed"),
        (b'id,text\n1,a\n2,"' + b"x" * 140_000 + b"\n3,b\n", "opens in record 3 is not closed"),
        (b'{"text": "Profit rose"}\n{"text": "Sales fell"}\n', "is JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_a_remedy(body: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("?", r"\?")) as caught:
        read_text_table(body)
    assert "\n" not in str(caught.value)


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), out)
    return out.getvalue()


@pytest.mark.parametrize("format", ["csv", "text"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"PK\x03\x04" + bytes(100), "a zip archive or an Excel workbook.*Save its table as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "an old Office document"),
        (parquet(), "Parquet"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        (bytes(range(256)) * 20, "binary"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(body: bytes, words: str, format: str) -> None:
    with pytest.raises(NotTextError, match=words):
        read_text_table(body, format)  # type: ignore[arg-type]


def test_a_file_takes_little_more_memory_than_its_bytes() -> None:
    line = b"Profit rose in unit 7 by some percent this quarter again.\n"
    body = b"text\n" + line * 600_000
    tracemalloc.start()
    try:
        table = read_text_table(body)
        assert table.rows == 600_000
        assert sum(map(len, islice(table.pieces(), 10))) == 2560
        assert tracemalloc.get_traced_memory()[1] < 2 * len(body)
    finally:
        tracemalloc.stop()


# --- as ingest reads ------------------------------------------------------------------------------


def test_odd_quotes_mangle_no_text_and_swallow_no_row() -> None:
    body = b'id,text,id\n1,5" pipe,9\n\n2,"Up "a lot" now",8\n3,"a\\"b",7\n4,"End, so",6\n'
    assert rows_of(read_text_table(body)) == [
        TableRow(2, ["1", '5" pipe', "9"], None),
        TableRow(3, ["", "", ""], None),
        TableRow(4, ["", '2,"Up "a lot" now",8', ""], f"{ODD_QUOTE} (record 4)"),
        TableRow(5, ["", '3,"a\\"b",7', ""], f"{ODD_QUOTE} (record 5)"),
        TableRow(6, ["4", "End, so", "6"], None),
    ]


def test_the_line_by_which_excel_names_the_delimiter_is_no_row() -> None:
    table = read_text_table(b'sep=;\r\nid;note;text\r\n1;"a;b";Up\r\n\r\n2;;Down\r\n')
    assert (table.delimiter, table.header, table.column) == (";", ("id", "note", "text"), 2)
    expected = [["1", "a;b", "Up"], ["", "", ""], ["2", "", "Down"]]
    assert [record.cells for record in rows_of(table)] == expected


@pytest.mark.parametrize("format", ["csv", "text"])
def test_a_bad_byte_costs_one_sign_and_not_all_letters(format: str) -> None:
    body = "text\nMünchen Köln\n".encode() + b"cut \xf0\x9f\n" + "Zürich\n".encode()
    table = read_text_table(body, format)  # type: ignore[arg-type]
    texts = [record.cells[0] for record in rows_of(table)][-3:]
    assert texts == ["München Köln", "cut \ufffd", "Zürich"]
    with pytest.raises(NotTextError, match="encoding='utf-8': the file is in another encoding"):
        read_text_table(body, format, encoding="utf-8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body", [b'[\n {"text": "Up"},\n {"text": "Down"}\n]\n', b'{"text":\n "Up"}\n{"text": "Down"}']
)
@pytest.mark.parametrize("format", ["csv", "text"])
def test_json_over_lines_is_no_table(body: bytes, format: str) -> None:
    with pytest.raises(InputError, match="the file is JSON"):
        read_text_table(body, format)  # type: ignore[arg-type]


def test_a_text_may_begin_with_a_bracket() -> None:
    assert cells(b"text\n[1] Up\n{a\n") == [["[1] Up"], ["{a"]]
    assert len(rows_of(read_text_table(b"[1] Up\n[2] Down\n", "text"))) == 2


def test_a_remedy_names_no_setting_that_uploads_lack() -> None:
    with pytest.raises(InputError, match=r"belongs to the text\.$"):
        read_text_table(b'text\n"Up\nDown\n')
