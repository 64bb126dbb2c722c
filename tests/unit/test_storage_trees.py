"""Trees in an object store: what writers stage, what deletions leave, and damaged markers.

The store is a directory, which has the interface of a bucket.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.storage import StorageError
from finsent.storage.cache import CachedTree, LocalCache
from finsent.storage.local_store import LocalStore
from finsent.storage.trees import ObjectTrees
from tests.commands import PROJECT

_DIE = """
import os, sys
from pathlib import Path
from tests.unit.test_storage_trees import open_trees
with open_trees(Path(sys.argv[1])).publish("a") as staging:
    (staging / "f").write_text("x")
    os._exit(1)
"""


def open_trees(folder: Path) -> ObjectTrees:
    store = LocalStore(folder / "bucket", "storage.root")
    return ObjectTrees(store, LocalCache(folder / "cache", 10**6))


def publish(trees: ObjectTrees, key: str, text: str) -> None:
    with trees.publish(key) as staging:
        (staging / "f").write_text(text)


@pytest.mark.cost(2, "a process that imports the library")
def test_the_next_writer_removes_what_a_dead_writer_staged(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _DIE, str(tmp_path)], cwd=PROJECT, check=False)
    assert [*(tmp_path / "cache").rglob("f")]
    trees = open_trees(tmp_path)
    publish(trees, "b", "y")
    assert [*(tmp_path / "cache").iterdir()] == []
    assert (trees.fetch("b") / "f").read_text() == "y"


def test_a_full_disk_of_the_cache_names_its_setting(tmp_path: Path) -> None:
    trees = open_trees(tmp_path)
    with pytest.raises(DiskError, match=r"^storage\.cache_dir="), trees.publish("a") as staging:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(staging / "f"))
    assert trees.names("") == []


def test_a_deletion_keeps_what_another_writer_uploads(tmp_path: Path) -> None:
    trees = open_trees(tmp_path)
    publish(trees, "a", "old")
    trees.store.put("a/0123456789abcdef/f", b"of a writer that has not published yet")
    trees.delete("a")
    assert not trees.is_published("a")
    assert [info.key for info in trees.store.list_objects("")] == ["a/0123456789abcdef/f"]
    publish(trees, "a", "new")
    assert (trees.fetch("a") / "f").read_text() == "new"


def test_a_tree_with_a_damaged_marker_can_be_deleted(tmp_path: Path) -> None:
    trees = open_trees(tmp_path)
    publish(trees, "a", "x")
    trees.store.put("a/tree.json", b"{")
    with pytest.raises(StorageError, match=r"tree\.json: is damaged\. Delete "):
        trees.fetch("a")
    trees.delete("a")
    assert trees.store.list_objects("") == []


@pytest.mark.parametrize("path", ["../f", "/f", "a/../../f", "", "a//f"])
def test_a_marker_names_no_file_outside_of_its_tree(path: str, tmp_path: Path) -> None:
    trees = open_trees(tmp_path)
    publish(trees, "a", "x")
    marker = trees.store.read("a/tree.json")
    assert marker is not None
    trees.store.put("a/tree.json", marker.data.replace(b'"f"', f'"{path}"'.encode()))
    with pytest.raises(StorageError, match=r"tree\.json: is damaged"):
        trees.fetch("a")


def test_a_copy_that_every_download_leaves_damaged_ends_with_one_line(tmp_path: Path) -> None:
    tree = CachedTree("a", 1, {"f": "0" * 64})
    with pytest.raises(
        InputError, match=r"is damaged, also after downloads.* set storage\.cache_dir"
    ):
        LocalCache(tmp_path, 10**6).fetch(tree, lambda folder: (folder / "f").touch())


def test_a_cache_on_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    trees = open_trees(tmp_path)
    publish(trees, "a", "x")
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(
        InputError, match=r"^storage\.cache_dir=.* no locks.*Set storage\.cache_dir"
    ):
        trees.fetch("a")
