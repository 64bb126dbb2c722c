"""Storage in a directory and in a bucket of a real S3 server: the same behavior."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.storage import Location, StorageConfig, StorageError
from finsent.storage.trees import MARKER, ObjectTrees
from tests.commands import PROJECT
from tests.seaweed import s3_environment


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    config = StorageConfig(cache_dir=str(tmp_path / "cache"), retry_seconds=10)
    if request.param == "directory":
        return Location.at(tmp_path / "root", "storage.root", config)
    return Location.at(request.getfixturevalue("s3_root"), "storage.root", config)


@pytest.fixture
def bucket(s3_root: str, tmp_path: Path) -> Location:
    return Location.at(
        s3_root, config=StorageConfig(cache_dir=str(tmp_path / "cache"), retry_seconds=10)
    )


def write_tree(place: Location, key: str, **files: str) -> None:
    with place.trees.publish(key) as staging:
        for name, text in files.items():
            path = staging / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def test_conditional_writes_have_one_winner(place: Location) -> None:
    store = place.store
    assert store.read("a/b.json") is None
    first = store.put_if_absent("a/b.json", b"one")
    assert first is not None
    assert store.put_if_absent("a/b.json", b"two") is None
    stored = store.read("a/b.json")
    assert stored is not None and (stored.data, stored.etag) == (b"one", first)
    second = store.put_if_match("a/b.json", b"two", first)
    assert second is not None
    assert store.put_if_match("a/b.json", b"three", first) is None
    assert store.put_if_match("a/none.json", b"three", first) is None
    stored = store.read("a/b.json")
    assert stored is not None and (stored.data, stored.etag) == (b"two", second)


def test_a_repeated_conditional_write_wins_when_its_response_was_lost(bucket: Location) -> None:
    first = bucket.store.put_if_absent("a", b"mine")
    assert first is not None
    assert bucket.store.put_if_absent("a", b"mine") == first
    second = bucket.store.put_if_match("a", b"mine too", first)
    assert bucket.store.put_if_match("a", b"mine too", first) == second


@pytest.mark.cost(2, "20 MB through both stores, with digests")
def test_files_of_any_size_go_there_and_back(place: Location, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    data = os.urandom(20 << 20)  # two ranges, three parts
    source.write_bytes(data)
    place.store.upload(source, "x/large")
    place.store.download("x/large", target, sha256(data).hexdigest())
    assert target.read_bytes() == data
    assert place.store.read_range("x/large", 5, 7) == data[5:12]
    with pytest.raises(InputError, match="has no 7 bytes"):
        place.store.read_range("x/large", len(data) - 3, 7)
    place.store.upload(_written(tmp_path / "empty", b""), "x/empty")
    place.store.download("x/empty", target)
    assert target.read_bytes() == b""
    with pytest.raises(InputError, match="no such"):
        place.store.download("x/none", target)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_listings_are_sorted_and_end_at_the_folder(place: Location) -> None:
    store = place.store
    for key in ("runs/b/2", "runs/b/10", "runs/a/1", "runs-old/c/1", "top"):
        store.put(key, key.encode())
    assert [info.key for info in store.list_objects("runs")] == [
        "runs/a/1",
        "runs/b/10",
        "runs/b/2",
    ]
    assert [info.bytes for info in store.list_objects("runs/a")] == [8]
    assert store.list_folders("runs") == ["a", "b"]
    assert store.list_folders("") == ["runs", "runs-old"]
    assert store.list_objects("none") == [] == store.list_folders("none")
    store.delete_prefix("runs")
    store.delete_prefix("runs")
    store.delete("top")
    store.delete("top")
    assert [info.key for info in store.list_objects("")] == ["runs-old/c/1"]
    below = (place / "runs-old" / "c").store.read("1")
    assert below is not None and below.data == b"runs-old/c/1"


def test_a_tree_is_visible_when_its_block_has_succeeded(place: Location) -> None:
    trees = place.trees
    with pytest.raises(ZeroDivisionError), trees.publish("versions/a") as staging:
        (staging / "f").write_text("x")
        raise ZeroDivisionError
    assert place.store.list_objects("versions") == []
    write_tree(place, "versions/a", f="x", sub__g="y")
    assert trees.names("versions") == ["a"]
    assert trees.is_published("versions/a") and not trees.is_published("versions/b")
    folder = trees.fetch("versions/a")
    assert (folder.name, (folder / "f").read_text()) == ("a", "x")
    assert (folder / "sub/g").read_text() == "y"
    assert trees.read_file("versions/a", "sub/g") == b"y"
    assert trees.read_file("versions/a", "none") is None
    assert trees.read_file("versions/b", "f") is None
    with pytest.raises(InputError, match="versions/b: nothing is published there"):
        trees.fetch("versions/b")
    write_tree(place, "versions/a", f="other")  # a tree never changes
    assert trees.read_file("versions/a", "f") == b"x"
    trees.delete("versions/a")
    trees.delete("versions/a")
    assert trees.names("versions") == [] == place.store.list_objects("versions")


def test_the_second_of_two_writers_leaves_nothing(bucket: Location, tmp_path: Path) -> None:
    assert isinstance(bucket.trees, ObjectTrees)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "f").write_text("x")
    assert bucket.trees.upload(folder, "t")
    (folder / "f").write_text("y")
    assert not bucket.trees.upload(folder, "t")
    assert len(bucket.store.list_objects("t")) == 2
    assert bucket.trees.read_file("t", "f") == b"x"


def test_a_tree_without_marker_is_invisible(bucket: Location) -> None:
    write_tree(bucket, "t", f="x")
    bucket.store.delete(f"t/{MARKER}")
    assert bucket.trees.names("") == []
    assert bucket.trees.read_file("t", "f") is None
    write_tree(bucket, "t", f="y")
    assert (bucket.trees.fetch("t") / "f").read_text() == "y"


def test_changed_bytes_are_never_returned(bucket: Location) -> None:
    write_tree(bucket, "t", f="x" * 100)
    (name,) = [info.key for info in bucket.store.list_objects("t") if info.key.endswith("/f")]
    bucket.store.put(name, b"y" * 100)
    impatient = Location.at(bucket.address, config=bucket.config.replaced(retry_seconds=0.5))
    with pytest.raises(StorageError, match="do not match their SHA-256"):
        impatient.trees.fetch("t")


@pytest.mark.cost(2, "two processes that import the library")
def test_a_damaged_copy_in_the_cache_is_replaced(bucket: Location, s3_server: str) -> None:
    write_tree(bucket, "t", f="x")
    code = (
        "import sys; from finsent.storage import *; "
        "place = Location.at(sys.argv[1], config=StorageConfig(cache_dir=sys.argv[2])); "
        "print(place.trees.fetch('t'))"
    )

    def fetch() -> Path:
        command = [sys.executable, "-c", code, bucket.address, bucket.config.cache_dir]
        environment = {**os.environ, **s3_environment(s3_server), "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return Path(done.stdout.strip())

    copy = fetch()
    (copy / "f").write_text("damaged")
    assert fetch() == copy
    assert (copy / "f").read_text() == "x"


@pytest.mark.usefixtures("s3_root")
def test_a_bucket_that_does_not_exist_is_named() -> None:
    place = Location.at("s3://no-such-bucket/root", "registry.root")
    for call in (lambda: place.store.read("a"), lambda: place.store.list_objects("")):
        with pytest.raises(StorageError) as caught:
            call()
        assert str(caught.value) == (
            "registry.root='s3://no-such-bucket/root': the bucket 'no-such-bucket' does not exist. "
            "Create it, or set registry.root to another one."
        )
