"""Disk errors: the setting, the path, the problem and the fix that they name."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finsent.config import load
from finsent.disk import (
    DiskError,
    find_disk_error,
    translate_disk_errors,
)
from finsent.errors import InputError
from finsent.job_dirs import named_disk_errors
from ray_jobs._settings import JobSettings
from tests.disks import file_limit

LIMIT = 100_000  # bytes of a file


# --- the line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "problem", "remedy"),
    [
        (errno.ENOSPC, "No space left on device", "Free some space there, or set a.b to another"),
        (errno.EDQUOT, "Disk quota exceeded", "Free some space there, or set a.b to another"),
        (errno.EFBIG, "File too large", "Raise the limit by `ulimit -f`, or set a.b to another"),
        (errno.EROFS, "Read-only file system", "Let this user read and write there, or set a.b"),
        (errno.EACCES, "Permission denied", "Let this user read and write there, or set a.b"),
        (errno.EMFILE, "Too many open files", "Raise the limit by `ulimit -n`."),
        (errno.EIO, "Input/output error", "Check the disk or its mount, or set a.b to another"),
    ],
)
def test_the_error_names_field_path_problem_and_remedy(
    number: int, problem: str, remedy: str
) -> None:
    text = str(DiskError(number, Path("/x/y"), "a.b"))
    assert text.startswith(f"a.b='/x/y': {problem}") and remedy in text
    assert "\n" not in text and text.endswith(".")


def test_the_error_has_figures() -> None:
    full = DiskError(errno.ENOSPC, "/x", "a.b", free=2_000_000, needed=30_000_000)
    assert "device (2.0 MB free, about 30.0 MB needed). " in str(full)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert f"(at most {files} per process)" in str(DiskError(errno.EMFILE, "/x"))
    with file_limit(LIMIT):
        assert "(at most 0.1 MB per file)" in str(DiskError(errno.EFBIG, "/x"))


def test_the_error_can_be_pickled() -> None:
    full = DiskError(errno.ENOSPC, Path("/x"), "a.b", 1, 2)
    again = pickle.loads(pickle.dumps(full))
    assert (type(again), str(again), again.errno) == (DiskError, str(full), errno.ENOSPC)


def test_the_cause_of_a_ray_error_is_found() -> None:
    from ray.exceptions import RayTaskError
    from ray.train import ControllerError, WorkerGroupError

    full = DiskError(errno.ENOSPC, "/x", "a.b")
    for cause in (full, OSError(errno.ENOSPC, "No space left on device", "/x")):
        remote = RayTaskError("f", "Traceback of elsewhere", cause)
        for error in (
            remote,
            remote.as_instanceof_cause(),
            ControllerError(cause),
            WorkerGroupError("text", {0: ConnectionResetError(), 1: remote}),
        ):
            disk_error = find_disk_error(error)
            assert (
                disk_error is not None
                and disk_error.errno == errno.ENOSPC
                and disk_error.path == "/x"
            )
            assert "Traceback" not in str(disk_error)


def test_ray_without_room_for_objects_is_a_full_disk() -> None:
    from ray.exceptions import OutOfDiskError

    disk_error = find_disk_error(OutOfDiskError("ray.put"))
    assert disk_error is not None and disk_error.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        FileNotFoundError(errno.ENOENT, "no", "/x"),
        InputError("no"),
        ConnectionRefusedError(errno.ECONNREFUSED, "no"),
        PermissionError(errno.EACCES, "a port"),
        RuntimeError("basic_ios::clear: iostream error"),  # maybe a damaged file that is read
        RuntimeError("[enforce fail at inline_container.cc:242] . PytorchStreamReader failed"),
    ],
)
def test_other_errors_pass(error: Exception, tmp_path: Path) -> None:
    assert find_disk_error(error) is None
    if "iostream" not in str(error):
        with pytest.raises(type(error)) as caught, translate_disk_errors(tmp_path, "storage.root"):
            raise error
        assert caught.value is error


NCCL = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77\n"
    "Error while creating shared memory segment /dev/shm/nccl-5tQ (size 9637888), "
    "error: No space left on device (28)"
)


ROOM = 64_000_000_000


def free_of(bytes_free: int, files_free: int = 10**6) -> Callable[[Any], os.statvfs_result]:
    blocks = bytes_free // 4096
    figures = (4096, 4096, 10**9, blocks, blocks, 10**7, files_free, files_free, 0, 255)
    return lambda _: os.statvfs_result(figures)


@pytest.mark.parametrize(
    ("error", "free", "files_free", "is_named"),
    [
        (RuntimeError(NCCL), 10**6, 10**6, False),
        (OSError(errno.ENOSPC, "No space left on device"), ROOM, 10**6, False),
        (OSError(errno.ENOSPC, "No space left on device"), 10**6, 10**6, True),
        (OSError(errno.ENOSPC, "No space left on device"), ROOM, 0, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ROOM, 10**6, True),
        (RuntimeError("Error: I/O error: No space (os error 28)"), ROOM, 10**6, False),
    ],
)
def test_another_full_disk_is_not_attributed_to_the_path(
    error: Exception,
    free: int,
    files_free: int,
    is_named: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "statvfs", free_of(free, files_free))
    with pytest.raises(type(error)) as caught, translate_disk_errors(tmp_path, "storage.root"):
        raise error
    assert (caught.value is not error) == is_named
    with pytest.raises(DiskError) as named, named_disk_errors(load(JobSettings, [], [])):
        raise caught.value
    assert (named.value.field == "storage.root") == is_named
    if error.args[0] == NCCL:
        assert str(named.value).startswith("'/dev/shm/nccl-5tQ': No space left on device")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", ["news.csv", ".", None])
def test_a_broken_disk_of_an_input_is_not_attributed_to_the_output(
    number: int, name: str | None, tmp_path: Path
) -> None:
    error = OSError(number, "broken", *([] if name is None else [str(tmp_path / name)]))
    with (
        pytest.raises(OSError) as caught,
        translate_disk_errors(tmp_path / "scored", "predict.output", reads=True),
    ):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("name", ["scored", "scored/a.csv", ".staging-scored-1/a.csv", "."])
def test_a_path_includes_its_files_staging_names_and_parents(name: str, tmp_path: Path) -> None:
    with (
        pytest.raises(DiskError, match=r"^predict\.output=") as caught,
        translate_disk_errors(tmp_path / "scored", "predict.output"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / name))
    assert caught.value.is_permission_error


def test_a_full_ray_directory_is_not_attributed_to_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import OutOfDiskError, RayTaskError

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    error = RayTaskError("f", "Traceback of elsewhere", OutOfDiskError("ray.put"))
    with (
        pytest.raises(DiskError) as caught,
        named_disk_errors(load(JobSettings, [], [])),
        translate_disk_errors(tmp_path / "scored", "predict.output"),
    ):
        raise error
    assert str(caught.value).startswith(f"RAY_TMPDIR='{tmp_path}/ray': No space left on device")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "full", "/tmp/tmpabc/model.onnx"), "TMPDIR='/tmp/tmpabc/model.onnx"),
        (
            OSError(errno.ENOSPC, "full", f"/tmp/finsent-ray-{os.geteuid()}/ray/a"),
            f"RAY_TMPDIR='/tmp/finsent-ray-{os.geteuid()}/ray/a'",
        ),
        (PermissionError(errno.EACCES, "no", "/tmp/keys.json"), None),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), ""),
    ],
)
def test_the_default_temporary_directories_have_settings(
    error: OSError, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "TEMP", "TMP", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)

    def unusable() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", unusable)
    with pytest.raises(OSError) as caught, named_disk_errors(load(JobSettings, [], [])):
        raise error
    if message is None:
        assert caught.value is error
    else:
        assert str(caught.value).startswith(message or "TMPDIR='/tmp': ")


def test_an_error_for_the_user_keeps_its_text(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"^data\.sources") as caught,
        translate_disk_errors(tmp_path, "a.b"),
    ):
        try:
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "source"))
        except PermissionError:
            raise InputError("data.sources: cannot be read") from None
    assert type(caught.value) is InputError


def test_a_closed_file_elsewhere_is_not_attributed_to_the_path(tmp_path: Path) -> None:
    with (
        pytest.raises(PermissionError) as caught,
        translate_disk_errors(tmp_path / "a" / "b", "storage.root"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/source.csv")
    assert not isinstance(caught.value, DiskError)


# --- nothing half-written -------------------------------------------------------------------------


def test_a_full_device_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    with pytest.raises(DiskError) as caught, translate_disk_errors(tmp_path / "log"):
        (tmp_path / "log").write_text("line\n")
    assert (caught.value.errno, caught.value.field) == (errno.ENOSPC, None)
    assert caught.value.path == tmp_path / "log"


# --- room and names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "full", "{root}/runs/a"), "storage.root='{root}/runs/a': No space"),
        (OSError(errno.ENOSPC, "full", "{root}/out/a"), "predict.output='{root}/out/a': No space"),
        (
            OSError(errno.ENOSPC, "full", "/nowhere/a"),
            "'/nowhere/a': No space left on device. Free some",
        ),
        (OSError(errno.EMFILE, "too many"), "ulimit: Too many open files (at most "),
        (
            PermissionError(errno.EACCES, "no", "{root}/runs/a"),
            "storage.root='{root}/runs/a': Perm",
        ),
        (PermissionError(errno.EACCES, "no", "/nowhere/a"), None),
    ],
)
def test_a_job_names_the_setting_of_an_unwritable_path(
    error: OSError, message: str | None, tmp_path: Path
) -> None:
    overrides = [f"storage.root={tmp_path}", f"predict.output={tmp_path}/out"]
    if error.filename:
        error.filename = error.filename.format(root=tmp_path)
    with pytest.raises(OSError) as caught, named_disk_errors(load(JobSettings, [], overrides)):
        raise error
    if message is None:
        assert caught.value is error
    else:
        assert str(caught.value).startswith(message.format(root=tmp_path))


def test_limits_of_this_process_are_restored() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert os.access("/dev/full", os.W_OK)
