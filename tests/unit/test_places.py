"""Places: local ones and `file://`; object stores have tests with a server of their own."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from finsent.data.places import Place, expand, short_names
from finsent.errors import InputError

SUFFIXES = (".csv", ".csv.gz")


def write(path: Path, text: str = "a") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_directory_gives_its_known_files_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.CSV", "sub/c.csv.gz", "notes.txt", ".hidden.csv", ".git/d.csv"):
        write(tmp_path / name)
    found = expand(str(tmp_path), SUFFIXES, "data.sources")
    assert short_names(found) == ["a.CSV", "b.csv", "c.csv.gz"]
    assert [p.name for p in expand(f"file://{tmp_path}", SUFFIXES, "f")] == [p.name for p in found]


def test_a_place_crosses_processes_and_notices_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "abc")
    [place] = expand(str(path), SUFFIXES, "data.sources")
    assert pickle.loads(pickle.dumps(place)) == place
    with place.open() as stream:
        assert stream.read() == b"abc"
    place.check_unchanged()
    path.write_text("abcd")
    with pytest.raises(InputError, match="has changed since it was found"):
        place.check_unchanged()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("/data/a.csv", "/data/a.csv"),
        ("s3://KEY:SECRET@bucket/a.csv?region=x", "s3://bucket/a.csv"),
        ("s3://bucket/dir/a.csv", "s3://bucket/dir/a.csv"),
    ],
)
def test_credentials_are_never_shown(uri: str, shown: str) -> None:
    place = Place(uri, 1, None)
    assert place.shown == shown
    assert place.name == "a.csv"


def test_an_unknown_scheme_lists_the_known() -> None:
    with pytest.raises(InputError) as caught:
        expand("ftp://host/a.csv", SUFFIXES, "data.sources")
    assert "data.sources: 'ftp://host/a.csv'" in str(caught.value)
    assert "s3://" in str(caught.value) and "hf://" in str(caught.value)


def test_an_object_store_that_does_not_answer_is_given_up_soon() -> None:
    uri = "s3://user:word@bucket/a.csv?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(InputError) as caught:
        expand(uri, SUFFIXES, "data.sources")
    text = str(caught.value)
    assert "'s3://bucket/a.csv': cannot be read" in text
    assert "AWS_*" in text
    assert "word" not in text
