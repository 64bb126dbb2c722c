"""Formats and packings of files, by their names."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.sources.files import find_sources
from finsent.errors import InputError
from tests.unit.source_files import GOOD, HEADER, configured, find_files, problem, write


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


def test_text_and_label_are_two_columns(tmp_path: Path) -> None:
    path = str(write(tmp_path, GOOD))
    with pytest.raises(InputError, match="text and label are both the column 'Sentiment'"):
        configured(tmp_path, {"uri": path, "text": "Sentiment"})


def test_a_format_is_never_guessed(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "notes.txt")
    text = problem(path)
    assert "its name does not show its format" in text
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
    assert (
        "is parquet in zstd: parquet is read from its end, and zstd only from its beginning" in text
    )
    assert "damaged" not in text


def test_an_archive_of_another_method_is_refused_with_the_remedy(tmp_path: Path) -> None:
    content = bytearray(zipped(GOOD.encode(), "a.csv"))
    for offset in (8, content.index(b"PK\x01\x02") + 10):  # of the method, in both headers
        content[offset] = 9  # Deflate64, which Windows' Explorer writes
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
