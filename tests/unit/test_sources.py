"""Sources: files are read exactly, or refused early with the remedy."""

from __future__ import annotations

import gzip
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.readers.columns import ROWS
from finsent.data.rows.clean import clean
from finsent.data.sources.files import find_sources
from finsent.data.sources.source_file import SourceFile
from finsent.errors import InputError
from tests.unit.test_files import without_root

HEADER = "Sentence,Sentiment\n"
GOOD = HEADER + "Sales rose,positive\nSales fell,negative\n"
MIB = 1 << 20


class Row(NamedTuple):
    """What the tests look at."""

    number: int
    text: str
    label: str | None = None
    fault: str | None = None


def write(folder: Path, content: str | bytes, name: str = "news.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def find_files(*sources: Path | str, **changed: Any) -> list[SourceFile]:
    listed = [SourceConfig(uri=str(source)) for source in sources]
    return find_sources(DataConfig(sources=listed, **changed), Path("no-hub-is-asked"))


def names(*sources: Path | str) -> list[str]:
    return [file.name for file in find_files(*sources)]


def read(path: Path, **changed: Any) -> list[Row]:
    """All rows of one file, checked first as a job does, in the order of their numbers."""
    (file,) = find_files(path, **changed)
    rows = []
    for table in file.rows(7):
        assert table.schema == ROWS
        assert set(table["source"].to_pylist()) <= {7}
        columns = [table[c].to_pylist() for c in ("row", "raw_text", "raw_label", "fault")]
        rows += [Row(*values) for values in zip(*columns, strict=True)]
    return sorted(rows)


def configured(tmp_path: Path, *sources: dict[str, Any]) -> list[SourceFile]:
    return find_sources(DataConfig(sources=[SourceConfig(**one) for one in sources]), tmp_path)


def problem(path: Path | str, **changed: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(Path(path), **changed)
    return str(caught.value)


# --- unusable heads -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "parts"),
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
        (GOOD.encode() + b"a\0b,positive\n", ["NUL bytes", "encoding: utf-8 takes it"]),
        (b"Sentence|Sentiment\na|b\n", ["looks separated by bars", 'delimiter: "|"']),
        (b'"Sentence,Sentiment\na,b\n', ["quote"]),
    ],
)
def test_unusable_file_is_refused_before_any_work(
    tmp_path: Path, content: bytes, parts: list[str]
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        find_files(path)
    text = str(caught.value)
    assert all(part in text for part in [*parts, str(path)]), text
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


# --- encodings ------------------------------------------------------------------------------------

CAFE = [Row(2, "Café: 5 €", "neutral"), Row(3, "Flat", "positive")]
CAFE_TEXT = HEADER + "Café: 5 €,neutral\nFlat,positive\n"


@pytest.mark.parametrize(
    ("written", "declared"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-8", "utf-8-sig"),
        ("cp1252", "cp1252"),
        ("cp1252", "windows-1252"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-32", "utf-32"),
    ],
)
def test_declared_encoding_is_read(tmp_path: Path, written: str, declared: str) -> None:
    path = write(tmp_path, CAFE_TEXT.encode(written))
    assert read(path, encoding=declared) == CAFE


@pytest.mark.parametrize(
    "written", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_other_encodings_are_found_by_their_bytes(tmp_path: Path, written: str) -> None:
    assert read(write(tmp_path, CAFE_TEXT.encode(written))) == CAFE


@pytest.mark.parametrize(
    ("written", "declared"), [("cp1252", "utf-8"), ("utf-8", "utf-16"), ("cp1252", "ascii")]
)
def test_a_wrongly_declared_encoding_is_named(tmp_path: Path, written: str, declared: str) -> None:
    path = write(tmp_path, CAFE_TEXT.encode(written))
    text = problem(path, encoding=declared)
    assert text.startswith(f"data.encoding={declared!r}: {str(path)!r} is not in it (")
    assert "the file's own, e.g. cp1252, or to auto" in text


@pytest.mark.parametrize("tail", ["Café,neutral\n", "Café,too,many\n"])
def test_all_bytes_are_looked_at_not_only_the_head(tmp_path: Path, tail: str) -> None:
    rows = MIB // 100 + 10
    head = HEADER + ("y" * 91 + ",neutral\n") * rows
    assert len(head) > MIB
    path = write(tmp_path, (head + tail + "Flat,neutral\n").encode("cp1252"))
    text = problem(path, encoding="utf-8")
    assert text.startswith(f"data.encoding='utf-8': {str(path)!r} is not in it (")
    detected = read(path)
    assert detected[rows].text.startswith("Café")
    assert detected[-1] == Row(rows + 3, "Flat", "neutral")


def test_a_letter_across_the_end_of_the_head_is_no_wrong_encoding(tmp_path: Path) -> None:
    text = "x" * (MIB - 1 - len(HEADER)) + "é"
    assert read(write(tmp_path, f"{HEADER}{text},neutral\n")) == [Row(2, text, "neutral")]


# --- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "wanted"),
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
def test_fields_come_as_they_are_written(tmp_path: Path, body: str, wanted: list[Row]) -> None:
    flat = Row(3, "Flat", "neutral")
    assert read(write(tmp_path, HEADER + body)) == [*wanted, flat]
    assert read(write(tmp_path, (HEADER + body).replace("\n", "\r\n"))) == [
        *(row._replace(text=row.text.replace("\n", "\r\n")) for row in wanted),
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


@pytest.mark.parametrize("place", ['"b,neutral', 'b,"neutral'])
def test_unclosed_quote_does_not_swallow_the_rest_unnoticed(tmp_path: Path, place: str) -> None:
    before, after = ("a,neutral\n" * count for count in (300, 100))
    path = write(tmp_path, f"{HEADER}{before}{place}\n{after}")
    text = problem(path)  # as one bad row of 302 it would pass data.max_rejected_fraction
    assert str(path) in text
    assert "record 302" in text  # the record where the quote opens
    assert "quote" in text


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


# --- formats, packing, names ----------------------------------------------------------------------


def test_the_name_says_format_and_packing(tmp_path: Path) -> None:
    body = GOOD.encode()
    write(tmp_path, gzip.compress(body), "a.csv.gz")
    write(tmp_path, pa.compress(body, codec="zstd", asbytes=True), "b.CSV.zst")
    write(tmp_path, GOOD.replace(",", "\t"), "c.tsv")
    write(tmp_path, '{"Sentence": "Sales rose", "Sentiment": "positive"}\n', "d.jsonl")
    files = find_files(tmp_path)
    assert [(f.name, f.format, f.compression) for f in files] == [
        ("a.csv.gz", "csv", "gzip"),
        ("b.CSV.zst", "csv", "zstd"),
        ("c.tsv", "tsv", None),
        ("d.jsonl", "jsonl", None),
    ]
    for file in files:
        assert [t["raw_text"][0].as_py() for t in file.rows(0)] == ["Sales rose"]


def test_a_tsv_with_commas_says_so(tmp_path: Path) -> None:
    text = problem(write(tmp_path, GOOD, "a.tsv"))
    assert 'looks separated by commas: set delimiter: "," for this source' in text


def test_a_source_may_have_its_own_delimiter(tmp_path: Path) -> None:
    path = str(write(tmp_path, "Sentence;Sentiment\nSales, up;positive\n"))
    [file] = configured(tmp_path, {"uri": path, "delimiter": ";"})
    assert [t["raw_text"].to_pylist() for t in file.rows(0)] == [["Sales, up"]]
    assert file.identity["delimiter"] == ";"
    [plain] = find_files(write(tmp_path, GOOD, "plain.csv"))
    assert "delimiter" not in plain.identity  # versions keep their ids


def test_a_delimiter_is_for_csv(tmp_path: Path) -> None:
    path = str(write(tmp_path, '{"Sentence": "a", "Sentiment": "b"}\n', "a.jsonl"))
    with pytest.raises(InputError, match=r"a\.jsonl' is jsonl, which has no delimiter. Leave out"):
        configured(tmp_path, {"uri": path, "delimiter": ";"})


def test_stray_nul_bytes_are_taken_in_a_declared_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "a\0b,positive\n")
    assert read(path, encoding="utf-8")[-1].number == 4


def test_text_and_label_are_two_columns(tmp_path: Path) -> None:
    path = str(write(tmp_path, GOOD))
    with pytest.raises(InputError, match="text and label are both the column 'Sentiment'"):
        configured(tmp_path, {"uri": path, "text": "Sentiment"})


def test_a_format_is_never_guessed(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "notes.txt")
    text = problem(path)
    assert "its name does not say its format" in text
    assert "csv, tsv, jsonl, parquet, phrasebank" in text
    [file] = find_sources(
        DataConfig(sources=[SourceConfig(uri=str(path), format="csv", name="notes")]), tmp_path
    )
    assert file.name == "notes"
    assert sum(map(len, file.rows(0))) == 2


@pytest.mark.parametrize("name", ["news.csv.gz", "news.csv.zst"])
def test_a_cut_off_archive_is_an_error(tmp_path: Path, name: str) -> None:
    body = (HEADER + "".join(f"Sales of unit {i} rose,positive\n" for i in range(50_000))).encode()
    packed = (
        gzip.compress(body)
        if name.endswith("gz")
        else pa.compress(body, codec="zstd", asbytes=True)
    )
    text = problem(write(tmp_path, packed[: len(packed) // 2], name))
    assert str(tmp_path / name) in text
    assert "cut off" in text or "damaged" in text


def zipped(content: bytes, name: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr(name, content)
    return archive.getvalue()


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"Sentence": ["Up", "Down"], "Sentiment": ["positive"] * 2}), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", parquet()),
        ("a.parquet.gz", gzip.compress(parquet())),
        ("a.parquet.zip", zipped(parquet(), "a.parquet")),
    ],
)
def test_rows_of_parquet_are_counted_in_any_packing(
    tmp_path: Path, name: str, content: bytes
) -> None:
    [file] = find_files(write(tmp_path, content, name))
    assert file.count_rows() == sum(map(len, file.rows(0))) == 2


def test_parquet_in_zstd_is_refused_with_the_remedy(tmp_path: Path) -> None:
    packed = pa.compress(parquet(), codec="zstd", asbytes=True)
    text = problem(write(tmp_path, packed, "a.parquet.zst"))
    assert "is parquet in zstd, which cannot be read from its end. Decompress it first" in text
    assert "damaged" not in text


def test_an_archive_of_another_method_is_refused_with_the_remedy(tmp_path: Path) -> None:
    content = bytearray(zipped(GOOD.encode(), "a.csv"))
    for place in (8, content.index(b"PK\x01\x02") + 10):  # of the method, in both headers
        content[place] = 9  # Deflate64, which Windows' Explorer writes
    text = problem(write(tmp_path, bytes(content), "a.zip"))
    assert "is packed in a way that cannot be read" in text
    assert "Unpack it, and name the file" in text


@pytest.mark.parametrize("name", ["a.zip", "a.csv.zip"])
def test_a_compressed_file_in_an_archive_is_refused(tmp_path: Path, name: str) -> None:
    content = zipped(gzip.compress(GOOD.encode()), "a.csv.gz")
    text = problem(write(tmp_path, content, name))
    assert "holds 'a.csv.gz', which is compressed itself. Unpack the archive" in text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_rows_of_a_csv_are_counted_with_any_line_end(
    tmp_path: Path, end: str, encoding: str
) -> None:
    [file] = find_files(write(tmp_path, GOOD.replace("\n", end).encode(encoding)))
    assert file.count_rows() == 3  # with the header


def test_a_file_that_goes_or_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    gone, changed = write(tmp_path, GOOD, "a.csv"), write(tmp_path, GOOD, "b.csv")
    first, second = find_files(gone, changed)
    gone.unlink()
    with pytest.raises(InputError, match=r"a\.csv.*(cannot be read|no longer|changed)"):
        list(first.rows(0))
    changed.write_text(GOOD + "More,neutral\n")
    with pytest.raises(InputError, match=r"b\.csv.*changed"):
        list(second.rows(0))


BAD = HEADER.encode() + "Nestlé,positive\n".encode() + b"Moon \xf0\x9f\x9a,positive\nFlat,neutral\n"


@pytest.mark.parametrize("tail", [b"", b'"odd" x,neutral\n'])
def test_one_bad_byte_costs_one_sign_of_its_row(tmp_path: Path, tail: bytes) -> None:
    path = write(tmp_path, BAD + tail)
    rows = read(path)
    assert rows[:3] == [
        Row(2, "Nestlé", "positive"),
        Row(3, "Moon \ufffd", "positive"),
        Row(4, "Flat", "neutral"),
    ]
    assert find_files(path)[0].encoding == "utf-8-mended"


HALF = "".join(  # of an emoji, as JavaScript cuts texts
    f'{{"Sentence": "{text}", "Sentiment": "{label}"}}\n'
    for text, label in (("Nestlé", "positive"), ("Moon \\ud83d", "positive"), ("Flat", "neutral"))
)


@pytest.mark.parametrize(("name", "content"), [("news.csv", BAD), ("news.jsonl", HALF)])
@pytest.mark.parametrize(("bad_bytes", "kept_count"), [("keep", 3), ("reject", 2)])
def test_rows_with_a_lost_sign_are_kept_or_rejected(
    tmp_path: Path, bad_bytes: Any, kept_count: int, name: str, content: str | bytes
) -> None:
    source = SourceConfig(uri=str(write(tmp_path, content, name)), bad_bytes=bad_bytes)
    config = DataConfig(sources=[source], max_rejected_fraction=0.5)
    (file,) = find_sources(config, tmp_path)
    [cleaned] = [clean(rows, source, False, config) for rows in file.rows(0)]
    assert (len(cleaned.good), cleaned.damaged) == (kept_count, 1)
    assert cleaned.rejected["reason"].to_pylist() == ["damaged_text"] * (3 - kept_count)
