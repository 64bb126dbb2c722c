"""Encodings of files: declared, detected, wrong, damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.rows.clean import clean
from finsent.data.sources.files import find_sources
from tests.unit.source_files import HEADER, MIB, Row, find_files, problem, read, write

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
    assert text.startswith(f"data.encoding={declared!r}: {str(path)!r} is in another encoding (")
    assert "the file's own, e.g. cp1252, or to auto" in text


@pytest.mark.parametrize("tail", ["Café,neutral\n", "Café,too,many\n"])
def test_all_bytes_are_looked_at_not_only_the_head(tmp_path: Path, tail: str) -> None:
    rows = MIB // 100 + 10
    head = HEADER + ("y" * 91 + ",neutral\n") * rows
    assert len(head) > MIB
    path = write(tmp_path, (head + tail + "Flat,neutral\n").encode("cp1252"))
    text = problem(path, encoding="utf-8")
    assert text.startswith(f"data.encoding='utf-8': {str(path)!r} is in another encoding (")
    detected = read(path)
    assert detected[rows].text.startswith("Café")
    assert detected[-1] == Row(rows + 3, "Flat", "neutral")


def test_a_letter_across_the_end_of_the_head_is_no_wrong_encoding(tmp_path: Path) -> None:
    text = "x" * (MIB - 1 - len(HEADER)) + "é"
    assert read(write(tmp_path, f"{HEADER}{text},neutral\n")) == [Row(2, text, "neutral")]


# --- formats, packing, names ----------------------------------------------------------------------


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
