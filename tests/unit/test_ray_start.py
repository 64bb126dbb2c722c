"""A local Ray: where its files are, and what is reported when it does not start."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.services import get_node_ip_address

from finsent.adapters.ray_core import LONGEST_SOCKET
from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.ray_session import _start_local, session_directory
from tests.disks import small_disk

LATE = "The current node timed out during startup. This could happen because"


@pytest.mark.parametrize(
    ("problem", "raised", "message"),
    [
        (Exception(LATE), InputError, "did not start within its 30 seconds"),
        (RuntimeError("no space"), RuntimeError, "no space"),
    ],
)
def test_only_a_start_timeout_is_a_user_error(
    problem: Exception, raised: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**settings: Any) -> None:
        assert settings["num_cpus"] == 4
        assert get_node_ip_address() == "127.0.0.1", "Ray listens on it"
        raise problem

    # Of integration tests that ran in this process before.
    monkeypatch.setattr("ray._private.worker._global_node", None)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(raised, match=message):
        _start_local(4, worker_logs=False)


def test_full_temporary_directory_is_reported_before_ray_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "small", "100k") as folder:
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        with pytest.raises(DiskError, match=r"^RAY_TMPDIR='.* free, about 1\.0 MB needed\)"):
            _start_local(4, worker_logs=False)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's temporary directory, with a path that is short, unlike pytest's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_other_users_cannot_enter_the_directory_of_a_local_ray(temporary: Path) -> None:
    directory = session_directory()
    assert directory == session_directory(), "there is one for all jobs"
    assert directory is not None
    [parent] = temporary.iterdir()
    assert directory.parent == parent
    assert parent.stat().st_mode & 0o777 == 0o700
    parent.chmod(0o755)
    with pytest.raises(InputError, match=r"^ray: .*mode 0700.*set RAY_TMPDIR"):
        session_directory()
    parent.rename(temporary / "moved")
    parent.symlink_to(temporary / "moved")  # by whoever was first
    with pytest.raises(InputError, match=r"^ray: .*mode 0700"):
        session_directory()


def test_sockets_of_a_local_ray_have_a_short_path(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = temporary / ("deep" * 10)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    directory = session_directory()
    assert directory is not None
    assert directory.parent.parent == Path("/tmp")
    assert len(f"{directory.parent}{LONGEST_SOCKET}") <= 107


def test_ray_tmpdir_is_respected(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(temporary))
    assert session_directory() is None
