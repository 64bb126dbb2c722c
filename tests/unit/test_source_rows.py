"""Rows of CSV files: fields, faults, numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.source_files import GOOD, HEADER, MIB, Row, problem, read, write

# --- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('"Up\n5 %",positive\nFlat,neutral\n', [Row(2, "Up\n5 %", "positive")]),
        ('"a ""b"", c",positive\nFlat,neutral\n', [Row(2, 'a "b", c', "positive")]),
        ('A 5" screen,positive\nFlat,neutral\n', [Row(2, 'A 5" screen', "positive")]),
        ("NA,null\nFlat,neutral\n", [Row(2, "NA", "null")]),
        ("12,2\nFlat,neutral\n", [Row(2, "12", "2")]),
        (",\nFlat,neutral\n", [Row(2, "", "")]),
        ("a,positive\nFlat,neutral", [Row(2, "a", "positive")]),  # no newline at the end
        ("a,positive\n\n\nFlat,neutral\n", [Row(2, "a", "positive")]),  # blank lines: no records
    ],
)
def test_fields_come_as_they_are_written(tmp_path: Path, body: str, expected: list[Row]) -> None:
    flat = Row(3, "Flat", "neutral")
    assert read(write(tmp_path, HEADER + body)) == [*expected, flat]
    assert read(write(tmp_path, (HEADER + body).replace("\n", "\r\n"))) == [
        *(row._replace(text=row.text.replace("\n", "\r\n")) for row in expected),
        flat,
    ]


def test_malformed_rows_keep_their_numbers_and_their_text(tmp_path: Path) -> None:
    body = 'a,neutral\nb,c,neutral\n"d\nd",neutral\nonly\n\n"e\n,",x,y,z\nf,neutral\n'
    many, few = "malformed_row: {} fields, not 2", "malformed_row: 1 fields, not 2"
    assert read(write(tmp_path, HEADER + body)) == [
        Row(2, "a", "neutral"),
        Row(3, "b,c,neutral", None, many.format(3)),
        Row(4, "d\nd", "neutral"),
        Row(5, "only", None, few),
        Row(6, '"e\n,",x,y,z', None, many.format(4)),
        Row(7, "f", "neutral"),
    ]


def test_numbers_stay_right_beyond_the_first_block(tmp_path: Path) -> None:
    lines = [f"{'y' * 1990}{i},neutral\n" for i in range(10_000)]
    lines[0], lines[4000], lines[9500] = "first\n", "in,the,middle\n", "near,the,end\n"
    path = write(tmp_path, HEADER + "".join(lines))
    assert path.stat().st_size > 18 * MIB
    rows = read(path)
    assert [row.number for row in rows] == list(range(2, 10_002))
    assert [row.number for row in rows if row.fault] == [2, 4002, 9502]
    assert all(row.text.endswith(f"y{row.number - 2}") for row in rows if not row.fault)


def test_a_field_of_a_megabyte_is_read(tmp_path: Path) -> None:
    text = "word " * (MIB // 5)
    path = write(tmp_path, f"{HEADER}Flat,neutral\n{text},positive\nFlat,neutral\n")
    assert read(path)[1] == Row(3, text, "positive")


@pytest.mark.parametrize("line", ['"b,neutral', 'b,"neutral'])
def test_unclosed_quote_does_not_swallow_the_rest_unnoticed(tmp_path: Path, line: str) -> None:
    before, after = ("a,neutral\n" * count for count in (300, 100))
    path = write(tmp_path, f"{HEADER}{before}{line}\n{after}")
    text = problem(path)  # as one bad row of 302 it would pass data.max_rejected_fraction
    assert str(path) in text
    assert "record 302" in text  # the record where the quote opens
    assert "quote" in text


# --- formats, packing, names ----------------------------------------------------------------------


def test_stray_nul_bytes_are_taken_in_a_declared_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "a\0b,positive\n")
    assert read(path, encoding="utf-8")[-1].number == 4
