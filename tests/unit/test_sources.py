"""Labelled files as people have them: found, refused early with the remedy, or read exactly."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

import finsent
from finsent.data.config import DataConfig, SourceConfig
from finsent.data.formats import ROWS
from finsent.data.sources import SourceFile, find_sources
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


def found(*sources: Path | str, **changed: Any) -> list[SourceFile]:
    listed = [SourceConfig(uri=str(source)) for source in sources]
    return find_sources(DataConfig(sources=listed, **changed), Path("no-hub-is-asked"))


def names(*sources: Path | str) -> list[str]:
    return [file.name for file in found(*sources)]


def read(path: Path, **changed: Any) -> list[Row]:
    """All rows of one file, checked first as a job does, in the order of their numbers."""
    (file,) = found(path, **changed)
    rows = []
    for table in file.rows(7):
        assert table.schema == ROWS
        assert set(table["source"].to_pylist()) <= {7}
        columns = [table[c].to_pylist() for c in ("row", "raw_text", "raw_label", "fault")]
        rows += [Row(*values) for values in zip(*columns, strict=True)]
    return sorted(rows)


def problem(path: Path | str, **changed: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(Path(path), **changed)
    return str(caught.value)


# --- finding --------------------------------------------------------------------------------------


def test_directories_globs_and_files_are_expanded_once_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.CSV", "sub/c.csv", "notes.txt"):
        write(tmp_path, GOOD, name)
    assert names(tmp_path) == ["a.CSV", "b.csv", "c.csv"]
    assert names(tmp_path / "*.csv") == ["b.csv"]
    assert names(tmp_path / "**" / "*.csv") == ["b.csv", "c.csv"]
    assert names(tmp_path / "sub" / "c.csv", tmp_path) == ["c.csv", "a.CSV", "b.csv"]


def test_a_name_with_glob_signs_is_a_file_first(tmp_path: Path) -> None:
    assert names(write(tmp_path, GOOD, "q[1]*.csv")) == ["q[1]*.csv"]


def test_one_file_under_two_spellings_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "sub/a.csv")
    assert names(path, tmp_path / "sub" / ".." / "sub" / "a.csv") == ["a.csv"]


def configured(tmp_path: Path, *sources: dict[str, Any]) -> list[SourceFile]:
    return find_sources(DataConfig(sources=[SourceConfig(**one) for one in sources]), tmp_path)


def test_two_entries_that_say_the_same_of_a_file_count_once(tmp_path: Path) -> None:
    path = str(write(tmp_path, GOOD, "sub/a.csv"))
    same = {"uri": path, "format": "csv", "text": "Sentence", "encoding": "auto", "weight": 1}
    files = configured(tmp_path, {"uri": str(tmp_path / "sub")}, {"uri": path}, same)
    assert [file.name for file in files] == ["a.csv"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("priority", 5),
        ("weight", 2.0),
        ("text", "Sentiment"),
        ("label", "Sentence"),
        ("label_map", {"up": "positive"}),
        ("thresholds", (0, 1)),
        ("encoding", "cp1252"),
        ("name", "mine"),
        ("delimiter", ";"),
    ],
)
def test_a_file_that_two_entries_read_differently_is_refused(
    tmp_path: Path, setting: str, value: Any
) -> None:
    """Neither of them silently: the last one may be the one that matters."""
    write(tmp_path, GOOD, "a.csv")
    path = str(write(tmp_path, GOOD, "b.csv"))
    glob = f"{tmp_path}/*.csv"
    with pytest.raises(InputError) as caught:
        configured(tmp_path, {"uri": glob}, {"uri": path, setting: value})
    text = str(caught.value)
    start = f"data.sources: {path!r} is named by two entries that differ in {setting}: "
    assert text.startswith(start), text
    assert f'"{glob}" and {{"uri": "{path}", "{setting}": ' in text
    assert "let one of them name it" in text


def test_the_sample_is_read_from_another_machines_copy_of_the_package(tmp_path: Path) -> None:
    """It lies elsewhere there, and was unpacked at another time."""
    [file] = found("sample")
    package = Path(finsent.__file__).parent
    shutil.copytree(package, tmp_path / "finsent", ignore=shutil.ignore_patterns("__pycache__"))
    os.utime(tmp_path / "finsent" / "data" / "sample" / "sentences.csv", (0, 0))
    script = (
        "import pickle, sys, finsent; file = pickle.load(sys.stdin.buffer)\n"
        "print(finsent.__file__, sum(map(len, file.rows(0))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, input=pickle.dumps(file),
        capture_output=True, check=True,
    )  # fmt: skip
    where, rows = done.stdout.decode().split()
    assert Path(where).is_relative_to(tmp_path)
    assert int(rows) == sum(map(len, file.rows(0)))
    other = replace(file.place, size=file.place.size + 1)
    with pytest.raises(InputError, match="has changed since it was found"):
        other.check_unchanged()


def test_the_sample_and_relative_paths_and_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    files = found("sample", "news.csv", "~/news.csv")
    assert [file.name for file in files] == ["sentences.csv", "news.csv"]
    assert [file.origin for file in files] == ["sample", str(tmp_path / "news.csv")]
    assert files[1].bytes == len(GOOD)


def test_short_names_are_unique_and_the_same_on_every_machine(tmp_path: Path) -> None:
    places = [tmp_path / "home" / "ann", tmp_path / "mnt" / "cluster" / "data"]
    for place in places:
        for name in ("2023/news.csv", "2024/news.csv", "2024/tweets.csv"):
            write(place, GOOD, name)
    here, there = (found(place) for place in places)
    assert [f.name for f in here] == ["2023/news.csv", "2024/news.csv", "2024/tweets.csv"]
    assert [(f.name, f.sha256) for f in here] == [(f.name, f.sha256) for f in there]


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("none.csv", ["'{tmp}/none.csv': no such file", "check the path", "'sample'"]),
        ("no*.csv", ["'{tmp}/no*.csv'", "match", "check the path"]),
        ("a**.csv", ["'{tmp}/a**.csv'"]),  # no glob that Python knows
        ("empty", ["'{tmp}/empty' is a directory without files of a known", "put labelled files"]),
    ],
)
def test_source_that_leads_nowhere(tmp_path: Path, source: str, parts: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    text = problem(tmp_path / source)
    assert text.startswith("data.sources: ")
    assert all(part.format(tmp=tmp_path) in text for part in parts), text


# --- unusable heads -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["is empty", "labelled rows"]),
        (b" \r\n\n", ["is empty", "labelled rows"]),
        (b"\xef\xbb\xbf", ["is empty", "labelled rows"]),
        (b"\xef\xbb\xbf\r\n", ["is empty", "labelled rows"]),
        (b"PK\x03\x04" + bytes(40), ["zip archive or an Excel workbook", "not a CSV file"]),
        (gzip.compress(GOOD.encode()), ["gzip-compressed", "not a CSV file", "rename it"]),
        (b"PAR1" + bytes(40), ["Parquet", "not a CSV file", "set the source's format"]),
        (b"%PDF-1.7\n", ["a PDF", "not a CSV file", "convert"]),
        (GOOD.encode() + bytes(range(256)), ["binary"]),
        (
            b"Sentiment,Body\n",
            ["data.text_column='Sentence'", "'Sentiment', 'Body'", "set text for"],
        ),
        (
            b"Sentence,Mood\n",
            ["data.label_column='Sentiment'", "'Sentence', 'Mood'", "set label for"],
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
        (b" sentence,Sentiment\na,b\n", ["did you mean ' sentence'? set text for this source"]),
        (b"Sentence,SENTIMENT\na,b\n", ["did you mean 'SENTIMENT'? set label for this source"]),
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
        found(path)
    text = str(caught.value)
    assert all(part in text for part in [*parts, str(path)]), text
    assert text.startswith("data.")


@pytest.mark.parametrize("column", ["Sentence", "Sentiment"])
def test_a_wanted_column_that_stands_twice_is_refused(tmp_path: Path, column: str) -> None:
    path = write(tmp_path, f"Sentence,Sentiment,{column}\na,neutral,positive\n")
    text = problem(path)
    assert f"={column!r}: 2 columns of data.sources: {str(path)!r} have this name; rename" in text


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
    files = found(tmp_path)
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
    [plain] = found(write(tmp_path, GOOD, "plain.csv"))
    assert "delimiter" not in plain.identity  # versions keep their ids


def test_a_delimiter_is_for_csv(tmp_path: Path) -> None:
    path = str(write(tmp_path, '{"Sentence": "a", "Sentiment": "b"}\n', "a.jsonl"))
    with pytest.raises(InputError, match=r"a\.jsonl' is jsonl, which has no delimiter; leave out"):
        configured(tmp_path, {"uri": path, "delimiter": ";"})


def test_a_directory_gives_phrasebank_files_the_strictest_first(tmp_path: Path) -> None:
    names = ["Sentences_50Agree.txt", "Sentences_AllAgree.txt", "Sentences_75Agree.txt"]
    for name in [*names, "License.txt"]:
        write(tmp_path, f"Sales of {name} rose@positive\n", name)
    files = found(tmp_path)
    assert [(f.name, f.agreement) for f in files] == [
        ("Sentences_AllAgree.txt", 1.0),
        ("Sentences_75Agree.txt", 0.75),
        ("Sentences_50Agree.txt", 0.5),
    ]


def test_with_a_format_a_directory_gives_files_of_any_name(tmp_path: Path) -> None:
    for name in ("part-00000", "sub/part-00001.txt", "c.csv"):
        write(tmp_path, GOOD, f"raw/{name}")
    for name in (".part-00000.crc", ".git/a.csv", "_SUCCESS"):
        write(tmp_path, "", f"raw/{name}")
    files = configured(tmp_path, {"uri": str(tmp_path / "raw"), "format": "csv"})
    assert [file.name for file in files] == ["c.csv", "part-00000", "part-00001.txt"]


def test_what_is_wrong_with_an_excluded_source_names_data_exclude(tmp_path: Path) -> None:
    good = SourceConfig(uri=str(write(tmp_path, GOOD)))
    for name, content in {"a.csv": "", "b.csv": "Text\nUp\n", "c.txt": "x", "d.csv": ""}.items():
        bad = str(write(tmp_path, content, name)) if name != "d.csv" else "nowhere.csv"
        with pytest.raises(InputError) as caught:
            find_sources(DataConfig(sources=[good], exclude=[SourceConfig(uri=bad)]), tmp_path)
        assert "data.exclude: " in str(caught.value)
        assert "data.sources" not in str(caught.value)


def test_a_file_is_learnt_from_or_stays_unseen(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    sources, exclude = [SourceConfig(uri=str(tmp_path))], [SourceConfig(uri=str(path))]
    with pytest.raises(
        InputError, match=r"data\.exclude: '.*news\.csv' is also in data\.sources; a"
    ):
        find_sources(DataConfig(sources=sources, exclude=exclude), tmp_path)


def test_stray_nul_bytes_are_taken_in_a_declared_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "a\0b,positive\n")
    assert read(path, encoding="utf-8")[-1].number == 4


def test_files_that_a_directory_does_not_give_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.csv", ".hidden", "b.doc", "c.txt", "d.txt", "sub/e.txt"):
        write(tmp_path, GOOD, name)
    with caplog.at_level("INFO"):
        found(tmp_path)
    wanted = f"{tmp_path}: 4 files of no known format are left out: b.doc, c.txt, d.txt, ..."
    assert caplog.messages == [wanted]


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


def test_a_file_that_goes_or_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    gone, changed = write(tmp_path, GOOD, "a.csv"), write(tmp_path, GOOD, "b.csv")
    first, second = found(gone, changed)
    gone.unlink()
    with pytest.raises(InputError, match=r"a\.csv.*(cannot be read|no longer|changed)"):
        list(first.rows(0))
    changed.write_text(GOOD + "More,neutral\n")
    with pytest.raises(InputError, match=r"b\.csv.*changed"):
        list(second.rows(0))


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    sources = [
        SourceConfig(uri=str(write(tmp_path, GOOD, name)), name="news")
        for name in ("a.csv", "b.csv")
    ]
    files = find_sources(DataConfig(sources=sources), tmp_path)
    assert [file.name for file in files] == ["news/a.csv", "news/b.csv"]


def test_what_must_stay_unseen_needs_no_labels(tmp_path: Path) -> None:
    config = DataConfig(
        sources=[SourceConfig(uri=str(write(tmp_path, GOOD)))],
        exclude=[SourceConfig(uri=str(write(tmp_path, "Sentence\nSales rose\n", "test.csv")))],
    )
    files = find_sources(config, tmp_path)
    assert [(file.name, file.excluded) for file in files] == [
        ("news.csv", False),
        ("test.csv", True),
    ]
