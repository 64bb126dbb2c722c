"""Dataset versions on disk: which version `latest` is, for one user and for several."""

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
from tests.unit.datasets import manifest_content, split_content
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


def test_latest_is_the_version_last_used(folder: Path) -> None:
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
def test_an_invalid_mark_is_ignored(folder: Path, content: bytes) -> None:
    make(folder, "old", 60), make(folder, "new", 0)
    (folder / LATEST).write_bytes(content)
    assert latest(folder) == "new"


def test_another_users_version_can_be_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    version, _ = make(folder, "old", 60), make(folder, "new", 0)
    with without_root():
        version.mark_latest()
    assert "`latest` does not become old: cannot write to" in caplog.text
    assert latest(folder) == "new"
    assert sorted(p.name for p in folder.iterdir()) == ["new", "old"]


def test_a_shared_directory_has_one_mark_for_all_users(folder: Path) -> None:
    old, new = make(folder, "old", 60), make(folder, "new", 0)
    folder.chmod(0o777)
    new.mark_latest()
    with without_root():
        old.mark_latest()  # neither the version nor the mark is theirs
    assert latest(folder) == "old"


def test_without_versions_the_error_names_the_command(folder: Path) -> None:
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


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"schema_version": 1}, r"schema_version: .*\. Not a finsent dataset of schema 2: ingest"),
        ({"splits": {"train": split_content()}}, r"splits lack validation, test\. Not a finsent"),
        ({"speed": 3}, r"speed: .* not permitted\. Not a finsent dataset"),
        ({"labels": ["up", "down"]}, r"labels are \['up', 'down'\], not .*\. Ingest again"),
    ],
)
def test_a_manifest_of_another_kind_is_refused_in_one_line(
    folder: Path, changed: dict[str, object], problem: str
) -> None:
    write_json(folder / MANIFEST, manifest_content(**changed))
    with pytest.raises(InputError, match=problem) as caught:
        DatasetVersion.open(folder)
    assert str(caught.value).startswith(f"{folder / MANIFEST}: ")
    assert "\n" not in str(caught.value)
