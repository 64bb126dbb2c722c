"""Entries of `data.sources`: which files they name, names of files, and contradictions."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import finsent
from finsent.data.config import DataConfig, SourceConfig
from finsent.data.sources.files import find_sources
from finsent.errors import InputError
from tests.unit.source_files import GOOD, configured, find_files, names, problem, write

pytestmark = pytest.mark.cost(1, "starts a process")


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
    assert "Let one of them name it" in text


def test_the_sample_is_read_from_another_machines_copy_of_the_package(tmp_path: Path) -> None:
    """It lies elsewhere there, and was unpacked at another time."""
    [file] = find_files("sample")
    package = Path(finsent.__file__).parent
    shutil.copytree(package, tmp_path / "finsent", ignore=shutil.ignore_patterns("__pycache__"))
    os.utime(tmp_path / "finsent" / "data" / "sample" / "sentences.csv", (0, 0))
    script = (
        "import pickle, sys, finsent; file = pickle.load(sys.stdin.buffer)\n"
        "print(finsent.__file__, sum(map(len, file.rows(0))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        input=pickle.dumps(file),
        capture_output=True,
        check=True,
    )
    where, rows = done.stdout.decode().split()
    assert Path(where).is_relative_to(tmp_path)
    assert int(rows) == sum(map(len, file.rows(0)))
    other = replace(file.location, size=file.location.size + 1)
    with pytest.raises(InputError, match="has changed since it was found"):
        other.check_unchanged()


def test_the_sample_and_relative_paths_and_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    files = find_files("sample", "news.csv", "~/news.csv")
    assert [file.name for file in files] == ["sentences.csv", "news.csv"]
    assert [file.origin for file in files] == ["sample", str(tmp_path / "news.csv")]
    assert files[1].bytes == len(GOOD)


def test_short_names_are_unique_and_the_same_on_every_machine(tmp_path: Path) -> None:
    folders = [tmp_path / "home" / "ann", tmp_path / "mnt" / "cluster" / "data"]
    for folder in folders:
        for name in ("2023/news.csv", "2024/news.csv", "2024/tweets.csv"):
            write(folder, GOOD, name)
    on_this, on_other = (find_files(folder) for folder in folders)
    assert [f.name for f in on_this] == ["2023/news.csv", "2024/news.csv", "2024/tweets.csv"]
    assert [(f.name, f.sha256) for f in on_this] == [(f.name, f.sha256) for f in on_other]


@pytest.mark.parametrize(
    ("source", "phrases"),
    [
        ("none.csv", ["'{tmp}/none.csv': no such file", "Check the path", "'sample'"]),
        ("no*.csv", ["'{tmp}/no*.csv'", "match", "Check the path"]),
        ("a**.csv", ["'{tmp}/a**.csv'"]),  # no glob that Python knows
        ("empty", ["'{tmp}/empty' is a directory without files of a known", "Put labeled files"]),
    ],
)
def test_source_that_leads_nowhere(tmp_path: Path, source: str, phrases: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    text = problem(tmp_path / source)
    assert text.startswith("data.sources: ")
    assert all(phrase.format(tmp=tmp_path) in text for phrase in phrases), text


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


def test_a_directory_gives_phrasebank_files_the_strictest_first(tmp_path: Path) -> None:
    names = ["Sentences_50Agree.txt", "Sentences_AllAgree.txt", "Sentences_75Agree.txt"]
    for name in [*names, "License.txt"]:
        write(tmp_path, f"Sales of {name} rose@positive\n", name)
    files = find_files(tmp_path)
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


def test_files_that_a_directory_does_not_give_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.csv", ".hidden", "b.doc", "c.txt", "d.txt", "sub/e.txt"):
        write(tmp_path, GOOD, name)
    with caplog.at_level("INFO"):
        find_files(tmp_path)
    expected = f"{tmp_path}: 4 files of no known format are left out: b.doc, c.txt, d.txt, ..."
    assert caplog.messages == [expected]


def test_a_file_is_learnt_from_or_stays_unseen(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    sources, exclude = [SourceConfig(uri=str(tmp_path))], [SourceConfig(uri=str(path))]
    with pytest.raises(
        InputError, match=r"data\.exclude: '.*news\.csv' is also in data\.sources; a"
    ):
        find_sources(DataConfig(sources=sources, exclude=exclude), tmp_path)


def test_what_is_wrong_with_an_excluded_source_names_data_exclude(tmp_path: Path) -> None:
    good = SourceConfig(uri=str(write(tmp_path, GOOD)))
    for name, content in {"a.csv": "", "b.csv": "Text\nUp\n", "c.txt": "x", "d.csv": ""}.items():
        bad = str(write(tmp_path, content, name)) if name != "d.csv" else "nowhere.csv"
        with pytest.raises(InputError) as caught:
            find_sources(DataConfig(sources=[good], exclude=[SourceConfig(uri=bad)]), tmp_path)
        assert "data.exclude: " in str(caught.value)
        assert "data.sources" not in str(caught.value)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (["50"], [None]),
        (["75"], [None]),
        (["All"], [1.0]),
        (["50", "75"], [0.5, 0.75]),
        (["50", "All"], [0.5, 1.0]),
    ],
)
def test_a_phrasebank_file_alone_does_not_say_who_agreed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shares: list[str], expected: list[Any]
) -> None:
    paths = [
        write(tmp_path, f"Sales in {share} rose@positive\n", f"Sentences_{share}Agree.txt")
        for share in shares
    ]
    assert [file.agreement for file in find_files(*paths)] == expected
    assert ("agreement stays empty" in caplog.text) == (expected == [None])
