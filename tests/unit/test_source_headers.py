"""Heads of files that ingest refuses, and columns that it finds."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pytest

from finsent.errors import InputError
from tests.unit.source_files import GOOD, HEADER, Row, find_files, problem, read, write
from tests.unit.test_files import without_root

# --- unusable heads -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "phrases"),
    [
        (b"", ["is empty", "labeled rows"]),
        (b" \r\n\n", ["is empty", "labeled rows"]),
        (b"\xef\xbb\xbf", ["is empty", "labeled rows"]),
        (b"\xef\xbb\xbf\r\n", ["is empty", "labeled rows"]),
        (b"PK\x03\x04" + bytes(40), ["zip archive or an Excel workbook", "not a CSV file"]),
        (gzip.compress(GOOD.encode(), mtime=0), ["gzip-compressed", "not a CSV file", "rename it"]),
        (b"PAR1" + bytes(40), ["Parquet", "not a CSV file", "or set the source's format"]),
        (b"%PDF-1.7\n", ["a PDF", "not a CSV file", "Convert"]),
        (GOOD.encode() + bytes(range(256)), ["binary"]),
        (
            b"Sentiment,Body\n",
            ["data.text_column='Sentence'", "'Sentiment', 'Body'", "Set text for"],
        ),
        (
            b"Sentence,Mood\n",
            ["data.label_column='Sentiment'", "'Sentence', 'Mood'", "Set label for"],
        ),
        (
            b"Sentence;Sentiment\na;b\n",
            ["data.text_column='Sentence'", "looks separated by semicolons", 'delimiter: ";"'],
        ),
        (
            b"Sentence\tSentiment\na\tb\n",
            ["looks separated by tabs", 'delimiter: "\\t" or format: tsv', "for this source"],
        ),
        (
            b"Sales rose,positive\nSales fell,negative\n",
            ["its first line is a row", "put a header"],
        ),
        (b" sentence,Sentiment\na,b\n", ["Did you mean ' sentence'? Set text for this source"]),
        (b"Sentence,SENTIMENT\na,b\n", ["Did you mean 'SENTIMENT'? Set label for this source"]),
        (GOOD.encode() + b"a\0b,positive\n", ["NUL bytes", "set encoding: utf-8"]),
        (b"Sentence|Sentiment\na|b\n", ["looks separated by bars", 'delimiter: "|"']),
        (b'"Sentence,Sentiment\na,b\n', ["quote"]),
    ],
)
def test_unusable_file_is_refused_before_any_work(
    tmp_path: Path, content: bytes, phrases: list[str]
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        find_files(path)
    text = str(caught.value)
    assert all(phrase in text for phrase in [*phrases, str(path)]), text
    assert text.startswith("data.")


@pytest.mark.parametrize("column", ["Sentence", "Sentiment"])
def test_a_wanted_column_that_stands_twice_is_refused(tmp_path: Path, column: str) -> None:
    path = write(tmp_path, f"Sentence,Sentiment,{column}\na,neutral,positive\n")
    text = problem(path)
    assert f"={column!r}: 2 columns of data.sources: {str(path)!r} have this name. Rename" in text


def test_another_column_that_stands_twice_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path, "id,Sentence,id,Sentiment\n1,Flat,2,neutral\n")
    assert read(path) == [Row(2, "Flat", "neutral")]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_header_alone_is_a_file_without_rows(tmp_path: Path, end: str) -> None:
    assert read(write(tmp_path, HEADER.strip() + end)) == []


@pytest.mark.parametrize(
    "header",
    [
        '"Sentence","Sentiment"\n',
        "id,Sentence,Sentiment\n",
        '"a long\nname",Sentence,Sentiment\n',
        "a\u2028b,Sentence,Sentiment\n",
        "a\x0cb,Sentence,Sentiment\n",
        "\nSentence,Sentiment\n",
    ],
)
def test_header_is_found_as_the_parser_finds_it(tmp_path: Path, header: str) -> None:
    wide = header.count(",") == 2
    path = write(tmp_path, header + ("x," if wide else "") + "Flat,neutral\n")
    assert read(path) == [Row(2, "Flat", "neutral")]


def test_columns_may_have_other_names_and_places(tmp_path: Path) -> None:
    path = write(tmp_path, "mood,id,headline\nneutral,5,Flat\n")
    assert read(path, text_column="headline", label_column="mood") == [Row(2, "Flat", "neutral")]


# --- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["news.csv", "."])
def test_source_of_somebody_else_is_named(closed: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        Path(folder).chmod(0o755)
        path = write(Path(folder), GOOD)
        (path.parent / closed).chmod(0)
        try:
            with without_root():
                text = problem(path)
        finally:
            Path(folder).chmod(0o755)
    assert text.startswith(f"data.sources: {str(path)!r}: cannot be read (Permission denied")
