"""CSV as other programs write it: quotes, escapes, no header, Excel's first line."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from finsent.data.config import SourceConfig
from finsent.data.readers.csv_dialect import QuoteAudit
from finsent.data.readers.csv_exact import ODD_ESCAPE, ODD_QUOTE
from tests.unit.csv_dialects import SWALLOWED, problem, read
from tests.unit.source_files import Row, write

# --- quotes that are no quotes --------------------------------------------------------------------


@pytest.mark.parametrize("label", ["1", "-0.35", "bullish", "A+"])
@pytest.mark.parametrize("order", ["text,label", "label,text", "id,text,label", "text,by,label"])
def test_swallowed_records_show_by_any_kind_of_label(
    tmp_path: Path, label: str, order: str
) -> None:
    def line(text: str) -> str:
        cells = {"text": text, "label": label, "id": "17", "by": "ann"}
        return ",".join(cells[name] for name in order.split(","))

    lines = [order, line("Up a bit"), line('"Up 5 inches'), line("Down a bit"), line('Flat"')]
    rows = read(write(tmp_path, "\n".join([*lines, line("End")]) + "\n"))
    assert [row.fault for row in rows] == [None, SWALLOWED, None], rows


def test_without_labels_another_column_shows_swallowed_records(tmp_path: Path) -> None:
    from finsent.data.config import DataConfig
    from finsent.data.sources.files import find_texts

    body = 'id,text\n1,Up a bit\n2,"Up 5 inches\n3,Down a bit\n4,Flat"\n5,End\n'
    source = SourceConfig(uri=str(write(tmp_path, body)), text="text")
    (file,) = find_texts([source], DataConfig(), tmp_path, "predict.input")
    faults = [fault for table in file.rows(0) for fault in table["fault"].to_pylist()]
    assert faults == [None, SWALLOWED, None]


@pytest.mark.parametrize(
    "text",
    ["Sales rose 1,5\nand costs 2,3", "Good, up\nand away", "In 2024,\nsales fell", "5, 6\n7, 8"],
)
@pytest.mark.parametrize("labels", ["0123", ["up", "down", "same"]])
def test_a_text_of_several_lines_is_no_swallowed_record(
    tmp_path: Path, text: str, labels: Any
) -> None:
    body = "".join(f"Row {n},{label}\n" for n, label in enumerate(labels))
    rows = read(write(tmp_path, f'text,label\n{body}"{text}",{labels[0]}\n'))
    assert rows[-1] == Row(len(labels) + 2, text, labels[0])


@pytest.mark.parametrize("columns", [1_000, 1_100])
def test_a_table_of_many_columns_may_hold_texts_of_several_lines(
    tmp_path: Path, columns: int
) -> None:
    further = [f"c{number}" for number in range(columns - 2)]
    rows = [
        ["text", *further, "label"],
        ["Sales\nrose", *(["1"] * len(further)), "positive"],
        ["Sales fell", *(["2"] * len(further)), "negative"],
    ]
    content = io.StringIO()
    csv.writer(content).writerows(rows)
    path = write(tmp_path, content.getvalue())
    expected = [Row(2, "Sales\nrose", "positive"), Row(3, "Sales fell", "negative")]
    assert read(path) == expected


def test_a_quote_within_a_quoted_text_is_named_and_not_mangled(tmp_path: Path) -> None:
    body = 'text,label\nUp,positive\n"He said "no" twice",negative\n"Fine ""here""",neutral\n'
    assert read(write(tmp_path, body)) == [
        Row(2, "Up", "positive"),
        Row(3, '"He said "no" twice",negative', None, ODD_QUOTE),
        Row(4, 'Fine "here"', "neutral"),
    ]


def test_each_line_that_a_quote_out_of_place_swallows_counts(tmp_path: Path) -> None:
    lost = "".join(f"Unit {n} grew,positive\n" for n in range(40))
    body = f'text,label\nUp,positive\n"Open,positive\n{lost}"Down, a bit",negative\nEnd,neutral\n'
    rows = read(write(tmp_path, body))
    assert [row.number for row in rows] == list(range(2, 46))
    assert rows[0].fault is rows[-1].fault is None
    assert {row.fault for row in rows[1:-1]} == {ODD_QUOTE}
    assert rows[5].text == "Unit 3 grew,positive"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('"Up, and on" ,positive', "Up, and on"),
        (' "Up, and on" , "positive"', "Up, and on"),
        ('\t"a ""b""",positive', 'a "b"'),
        (' "no" quotes,positive', ' "no" quotes'),
        (' "open,positive', ' "open'),
        ('5 "inch",positive', '5 "inch"'),
    ],
)
def test_blanks_beside_quotes_do_no_harm(tmp_path: Path, line: str, text: str) -> None:
    assert read(write(tmp_path, f"text,label\n{line}\nEnd,neutral\n")) == [
        Row(2, text, "positive"),
        Row(3, "End", "neutral"),
    ]


SPARK = [
    "text,label",
    r'"Beta calls the \"new normal\" weak",negative',
    r'"\"Gamma\" is fine",neutral',
    r'"A 5\" pipe, and more",neutral',
    r'"ends with \\",neutral',
    r"C:\new is plain,neutral",
    "",
]


def test_a_backslash_before_a_quote_is_read_where_escape_says_so(tmp_path: Path) -> None:
    rows = read(write(tmp_path, "\n".join(SPARK)), escape="\\")
    assert [row.text for row in rows] == [
        'Beta calls the "new normal" weak',
        '"Gamma" is fine',
        'A 5" pipe, and more',
        "ends with \\",
        "C:\\new is plain",
    ]
    assert [row.label for row in rows] == ["negative", *["neutral"] * 4]
    assert not any(row.fault for row in rows)


def test_a_backslash_before_a_quote_is_never_mangled_unnoticed(tmp_path: Path) -> None:
    lines = [*SPARK[:3], r'"A 5\" pipe",neutral', "Plain,neutral", ""]
    rows = read(write(tmp_path, "\n".join(lines)))
    assert [row.fault for row in rows] == [ODD_ESCAPE, ODD_ESCAPE, ODD_ESCAPE, None]
    assert rows[0].text == SPARK[1]  # as it is written
    assert 'set escape: "\\\\" for this source' in ODD_ESCAPE


def test_quote_none_takes_quotes_for_texts(tmp_path: Path) -> None:
    body = 'text\tlabel\n"Up" it goes\tup\n5" pipe\tup\n"open\tdown\n"a" b\tup\n'
    rows = read(write(tmp_path, body, "news.tsv"), quote="none")
    assert [row.text for row in rows] == ['"Up" it goes', '5" pipe', '"open', '"a" b']
    assert [row.number for row in rows] == [2, 3, 4, 5]


def test_another_sign_may_quote(tmp_path: Path) -> None:
    rows = read(write(tmp_path, "text,label\n'Up, it''s on',up\n\"x\",down\n"), quote="'")
    assert [row.text for row in rows] == ["Up, it's on", '"x"']


def test_hive_escapes_delimiters_where_nothing_is_quoted(tmp_path: Path) -> None:
    body = "text,label\nUp\\, and on,up\nback\\\\slash,down\nC:\\new,down\n"
    rows = read(write(tmp_path, body), quote="none", escape="\\")
    assert [row.text for row in rows] == ["Up, and on", "back\\slash", "C:\\new"]


def test_an_open_quote_names_its_record_and_both_remedies(tmp_path: Path) -> None:
    body = 'text,label\nUp,up\n"odd" x,up\n"Open,up\nDown,down\n'
    text = problem(write(tmp_path, body))
    assert "a quote that opens in record 4 is not closed. Close it, or double it" in text
    assert "or set quote: none for this source" in text


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        ({"quote": "''"}, 'Write e.g. "\'", or none.'),
        ({"escape": "x"}, 'Write e.g. "\\\\"'),
        ({"escape": '"'}, "they must differ"),
        ({"delimiter": "'", "quote": "'"}, "they must differ"),
        ({"escape": "\\", "format": "jsonl"}, "is for CSV, and format is 'jsonl'"),
    ],
)
def test_signs_that_contradict_are_refused(settings: dict[str, Any], phrase: str) -> None:
    with pytest.raises(ValueError, match=re.escape(phrase)):
        SourceConfig(uri="a.csv", **settings)


@pytest.mark.parametrize("header", ["text,label", "label,text", "id,text,label"])
@pytest.mark.parametrize("odd", ["", '"x" y,z,z\n'])
def test_a_header_that_stands_again_is_no_row(tmp_path: Path, header: str, odd: str) -> None:
    cells = {"text": "Up", "label": "positive", "id": "1"}
    line = ",".join(cells[name] for name in header.split(","))
    body = f"{header}\n{line}\n\ufeff{header}\n{line}\n{odd}"
    rows = read(write(tmp_path, body))
    assert [row.fault for row in rows][:3] == [None, rows[1].fault, None]
    assert (rows[1].fault or "").startswith("repeated_header: ")


# --- headers --------------------------------------------------------------------------------------


NO_HEADER = 'neutral,"Alpha , a maker of cranes , keeps its plans ."\npositive,Gamma grew .\n'


def test_columns_without_a_header_have_numbers(tmp_path: Path) -> None:
    rows = read(write(tmp_path, NO_HEADER), header="none", text=2, label=1)
    assert rows == [
        Row(1, "Alpha , a maker of cranes , keeps its plans .", "neutral"),
        Row(2, "Gamma grew .", "positive"),
    ]


def test_a_file_without_a_header_says_what_to_set(tmp_path: Path) -> None:
    path = write(tmp_path, NO_HEADER)
    remedy = "set header: none, text: 2, label: 1 for this source"
    assert remedy in problem(path)
    text = problem(path, header="none")
    assert "text='text': no such column" in text
    assert "its columns are '1', '2'" in text


def test_columns_may_be_named_by_numbers_as_pandas_does(tmp_path: Path) -> None:
    path = write(tmp_path, ",0,1\n0,Sales rose,positive\n1,Sales fell,negative\n")
    assert read(path, text=0, label=1) == [
        Row(2, "Sales rose", "positive"),
        Row(3, "Sales fell", "negative"),
    ]
    with pytest.raises(ValueError, match="Write the column's name in quotes"):
        SourceConfig(uri="a.csv", label=True)


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "\ufeffSEP=;"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_excels_first_line_names_the_delimiter(tmp_path: Path, line: str, encoding: str) -> None:
    body = f"{line}\r\ntext;label\r\nAlpha, up;positive\r\nBeta;negative\r\n"
    for settings in ({}, {"delimiter": ";"}):
        assert read(write(tmp_path, body.encode(encoding)), **settings) == [
            Row(2, "Alpha, up", "positive"),
            Row(3, "Beta", "negative"),
        ]


# --- the audit and the property -------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("content", "is_regular"),
    [
        ('a,b\n"x ""y""",z\n', True),
        ('"a","b"\r\n"","x,\ny"', True),
        ("", True),
        ('a,b\n5" x,z\n', False),
        ('a,b\n"x "y" z",z\n', False),
        ('a,b\n"x \\"y",z\n', False),
        ('a,b\n"x,z\n', False),
        ('a,b\n x, "z"\n', False),
    ],
)
def test_the_audit_finds_quotes_that_are_out_of_place(
    content: str, is_regular: bool, size: int
) -> None:
    audit, data = QuoteAudit(","), content.encode()
    for start in range(0, len(data), size):
        audit.feed(data[start : start + size])
    assert audit.result("utf-8") == is_regular
    assert not audit.result("utf-16-le")


def test_the_audit_skips_a_byte_order_mark() -> None:
    audit = QuoteAudit(",")
    audit.feed('\ufeff"a",b\n'.encode())
    assert audit.result("utf-8")
