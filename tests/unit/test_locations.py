"""Locations: local ones and `file://`; object stores have tests with a server of their own."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest

from finsent.data.sources import file_systems
from finsent.data.sources.expansion import expand
from finsent.data.sources.file_systems import filesystem_of
from finsent.data.sources.locations import Location, short_names
from finsent.errors import InputError
from finsent.uris import parse


def write(path: Path, text: str = "a") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_directory_gives_its_known_files_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.CSV", "sub/c.csv.gz", "notes.txt", ".hidden.csv", ".git/d.csv"):
        write(tmp_path / name)
    files = expand(str(tmp_path), None, "data.sources")
    assert short_names(files) == ["a.CSV", "b.csv", "c.csv.gz"]
    assert [p.name for p in expand(f"file://{tmp_path}", None, "f")] == [p.name for p in files]


def test_a_location_crosses_processes_and_notices_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "abc")
    [location] = expand(str(path), None, "data.sources")
    assert pickle.loads(pickle.dumps(location)) == location
    with location.open() as stream:
        assert stream.read() == b"abc"
    location.check_unchanged()
    path.write_text("abcd")
    with pytest.raises(InputError, match="has changed since it was found"):
        location.check_unchanged()


def test_a_question_mark_and_a_hash_are_signs_of_names_and_globs(tmp_path: Path) -> None:
    for name in ("a#1.csv", "a#2.csv", "b.csv"):
        write(tmp_path / name)
    for start in ("", "file://"):
        assert [p.name for p in expand(f"{start}{tmp_path}/a#?.csv", None, "f")] == [
            "a#1.csv",
            "a#2.csv",
        ]


@pytest.mark.parametrize(
    ("uri", "path", "options"),
    [
        ("s3://b/part-?.csv", "/part-?.csv", {}),
        ("s3://b/a#1.csv", "/a#1.csv", {}),
        (
            "s3://b/part-?.csv?region=x&scheme=http",
            "/part-?.csv",
            {"region": "x", "scheme": "http"},
        ),
        ("S3://b?region=x", "", {"region": "x"}),
        ("s3://u:p@b/x?", "/x?", {}),
    ],
)
def test_only_options_are_a_query(uri: str, path: str, options: dict[str, str]) -> None:
    parts = parse(uri)
    assert parts is not None
    assert (parts.scheme, parts.host, parts.path, parts.options) == ("s3", "b", path, options)
    assert f"{parts.root}{parts.path}{parts.tail}" == uri.replace("S3", "s3")


def test_other_stores_find_the_path_as_it_is_written() -> None:
    """Their file systems are made without it, and without a network."""
    for uri, prefix in {
        "gs://bucket/dir/part-?.csv": "bucket",
        "gs://bucket/a#1.csv?endpoint_override=localhost:1&scheme=http": "bucket",
        "abfs://box@account.dfs.core.windows.net/a b.csv": "box",
    }.items():
        parts = parse(uri)
        assert parts is not None
        assert filesystem_of(parts, "f")[1] == prefix


@pytest.mark.parametrize(
    ("uri", "redacted"),
    [
        ("/data/a.csv", "/data/a.csv"),
        ("s3://KEY:SECRET@bucket/a.csv?region=x", "s3://bucket/a.csv"),
        ("s3://bucket/dir/a.csv", "s3://bucket/dir/a.csv"),
    ],
)
def test_credentials_are_never_shown(uri: str, redacted: str) -> None:
    location = Location(uri, 1, None)
    assert location.redacted == redacted
    assert location.name == "a.csv"


def test_an_unknown_scheme_lists_the_known() -> None:
    with pytest.raises(InputError) as caught:
        expand("ftp://host/a.csv", None, "data.sources")
    assert "data.sources: 'ftp://host/a.csv'" in str(caught.value)
    assert "s3://" in str(caught.value) and "hf://" in str(caught.value)


def test_google_cloud_that_does_not_answer_is_given_up_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_systems, "_TIMEOUT_SECONDS", 0.5)
    uri = "gs://bucket/a.csv?endpoint_override=127.0.0.1:9&scheme=http&anonymous=true"
    started = time.monotonic()
    with pytest.raises(InputError, match=r"'gs://bucket/a\.csv': cannot be read \(.*GOOGLE_APPL"):
        expand(uri, None, "data.sources")
    assert time.monotonic() - started < 300  # by itself it tries for 15 minutes


def test_an_object_store_that_does_not_answer_is_given_up_soon() -> None:
    uri = "s3://user:word@bucket/a.csv?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(InputError) as caught:
        expand(uri, None, "data.sources")
    text = str(caught.value)
    assert "'s3://bucket/a.csv': cannot be read" in text
    assert "AWS_*" in text
    assert "word" not in text
