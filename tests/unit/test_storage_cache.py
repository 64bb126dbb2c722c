"""The cache: bounded, by last use, and never without a copy that a process uses."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from finsent.storage import Location, StorageConfig
from finsent.storage.cache import CachedTree, LocalCache
from finsent.storage.config import storage_root
from tests.commands import PROJECT

TEXT = "x" * 1000
_FETCH = """
import sys, time
from pathlib import Path
from tests.unit.test_storage_cache import fetch
print(fetch(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])), flush=True)
sys.stdin.read()
"""


def fetch(folder: Path, name: str, max_bytes: int) -> Path:
    tree = CachedTree(name, len(TEXT), {"f": sha256(TEXT.encode()).hexdigest()})

    def download(staging: Path) -> None:
        (staging / "f").write_text(TEXT)
        with (folder / "downloads").open("a") as log:
            log.write(f"{name}\n")

    return LocalCache(folder, max_bytes).fetch(tree, download)


def start(folder: Path, name: str, max_bytes: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _FETCH, str(folder), name, str(max_bytes)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.cost(6, "five processes that import the library")
def test_copies_without_users_are_deleted_in_the_order_of_their_use(tmp_path: Path) -> None:
    copies = {}
    for age, name in enumerate(("old", "used", "new")):
        process = start(tmp_path, name, 10**6)
        assert process.stdout is not None
        copies[name] = Path(process.stdout.readline().strip())
        process.communicate("")
        os.utime(copies[name].parent, (1000 + age, 1000 + age))
    with start(tmp_path, "used", 10**6) as user:
        assert user.stdout is not None
        assert user.stdout.readline()
        os.utime(copies["used"].parent, (1, 1))  # the first to go, if no process used it
        fetch(tmp_path, "more", 3000)
        assert {name for name, copy in copies.items() if copy.is_dir()} == {"used", "new"}
        user.communicate("")
    fetch(tmp_path, "most", 3000)
    assert {name for name, copy in copies.items() if copy.is_dir()} == {"new"}


@pytest.mark.cost(4, "three processes that import the library")
def test_processes_that_need_a_copy_at_once_download_it_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, "same", 10**6) for _ in range(3)]
    copies = {process.stdout.readline() for process in processes if process.stdout}
    for process in processes:
        process.communicate("")
    assert len(copies) == 1
    assert (tmp_path / "downloads").read_text() == "same\n"


def test_a_location_joins_names_before_its_options() -> None:
    root = Location.at("s3://bucket/a/?region=eu&endpoint_override=localhost:1")
    assert (root / "b").address == "s3://bucket/a/b?region=eu&endpoint_override=localhost:1"
    assert str(root / "b") == "s3://bucket/a/b"
    assert (Location.at("/x") / "b").path == Path("/x/b")


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        ("s3://key:secret@bucket/a", "holds credentials"),
        ("az://login@container/a", "holds credentials"),
        ("s3://bucket/a?secret_key=b", "other options"),
        ("http://bucket/a", "not a storage location"),
        ("s3:///a", "not a storage location"),
    ],
)
def test_a_root_has_no_secret_and_a_bucket(root: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        storage_root(root)
    assert "secret@" not in str(caught.value)


def test_a_root_may_be_a_directory_or_a_bucket() -> None:
    for root in ("artifacts", "/data", "s3://bucket", "gs://bucket/a/b", "az://container/a"):
        assert StorageConfig(root=root).root == root
