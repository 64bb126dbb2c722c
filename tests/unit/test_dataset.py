"""Dataset versions on disk: which one `latest` means, for one user and for several."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from finsent.data.versions.dataset import LATEST, DatasetVersion
from finsent.data.versions.manifest import MANIFEST
from finsent.errors import InputError
from finsent.files import read_json, sha256_file, write_json
from tests.unit.datasets import manifest_content
from tests.unit.test_files import without_root


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to other users
        path = Path(name)
        path.chmod(0o755)
        yield path


def make(folder: Path, name: str, age: int) -> DatasetVersion:
    """A version without rows; `age` in seconds."""
    (folder / name).mkdir()
    write_json(folder / name / MANIFEST, manifest_content(version=name))
    os.utime(folder / name / MANIFEST, (1_700_000_000 - age,) * 2)
    return DatasetVersion.open(folder / name)


def latest(folder: Path) -> str:
    return DatasetVersion.find("latest", folder, "train.dataset").version


def test_latest_is_the_one_that_was_asked_for_last(folder: Path) -> None:
    old, new = make(folder, "old", 60), make(folder, "new", 0)
    assert latest(folder) == "new"  # nobody has asked: the one made last
    old.mark_latest()
    assert latest(folder) == "old"
    assert (folder / LATEST).read_text() == "old\n"
    new.mark_latest()
    new.mark_latest()
    assert latest(folder) == "new"
    assert sorted(p.name for p in folder.iterdir()) == [LATEST, "new", "old"]


@pytest.mark.parametrize("content", [b"gone\n", b"", b".\n", b"..\n", b"\xff", b"new/../../x\n"])
def test_a_mark_that_names_nothing_is_no_obstacle(folder: Path, content: bytes) -> None:
    make(folder, "old", 60), make(folder, "new", 0)
    (folder / LATEST).write_bytes(content)
    assert latest(folder) == "new"


def test_somebody_elses_version_can_be_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    version, _ = make(folder, "old", 60), make(folder, "new", 0)
    with without_root():
        version.mark_latest()
    assert "`latest` does not become old: cannot write to" in caplog.text
    assert latest(folder) == "new"
    assert sorted(p.name for p in folder.iterdir()) == ["new", "old"]


def test_a_directory_that_all_may_write_has_one_mark_for_all(folder: Path) -> None:
    old, new = make(folder, "old", 60), make(folder, "new", 0)
    folder.chmod(0o777)
    new.mark_latest()
    with without_root():
        old.mark_latest()  # neither the version nor the mark is theirs
    assert latest(folder) == "old"


def test_no_version_at_all_says_what_to_run(folder: Path) -> None:
    with pytest.raises(InputError, match=r"train\.dataset='latest': no dataset version in"):
        latest(folder)


def test_a_file_that_has_changed_is_refused(folder: Path) -> None:
    path = make(folder, "new", 0).path
    (path / "report.html").write_text("as published")
    manifest = read_json(path / MANIFEST)
    listed = {"path": "report.html", "sha256": sha256_file(path / "report.html")}
    write_json(path / MANIFEST, {**manifest, "files": [listed]})
    assert DatasetVersion.open(path).version == "new"
    (path / "report.html").write_text("As published")  # as many bytes
    with pytest.raises(InputError, match=r"report\.html: missing or changed .*ingest again"):
        DatasetVersion.open(path)
    (path / "report.html").unlink()
    with pytest.raises(InputError, match="missing or changed"):
        DatasetVersion.open(path)
