"""Disk errors of Python and of libraries become one line with the setting."""

from __future__ import annotations

import errno
import gzip
import os
import pickle
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.config import load
from finsent.disk import (
    DiskError,
    check_free_space,
    find_disk_error,
    find_setting,
    translate_disk_errors,
)
from finsent.errors import InputError
from finsent.files import staged_dir, staged_file, write_json
from finsent.job_dirs import named_disk_errors
from finsent.training.capacity import check_disk
from finsent.training.config import TrainConfig
from ray_jobs._settings import JobSettings
from tests.disks import file_limit, filled, small_disk

LIMIT = 100_000  # bytes of a file
NOISE = np.random.default_rng(0).random(100_000)


# --- what libraries raise -------------------------------------------------------------------------


def python(place: Path) -> None:
    (place / "a").write_bytes(bytes(5 * LIMIT))


def copied(place: Path) -> None:
    shutil.copyfile(place.with_name("large"), place / "a")


def packed(place: Path) -> None:
    with gzip.open(place / "a", "wb") as stream:
        stream.write(NOISE.tobytes())


def parquet(place: Path) -> None:
    pq.write_table(pa.table({"a": NOISE}), place / "a")


def arrow(place: Path) -> None:
    table = pa.table({"a": NOISE})
    with pa.OSFile(str(place / "a"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)


def safetensors(place: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": NOISE}, place / "a")


def torch(place: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(100_000)}, place / "a")


def tokenizer(place: Path) -> None:
    from tokenizers import Tokenizer, models

    words = {f"word{i}": i for i in range(20_000)}
    Tokenizer(models.WordLevel(words, unk_token="word0")).save(str(place / "a"))


def onnx(place: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = onnx.numpy_helper.from_array(NOISE, "w")
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [weights])), place / "a"
    )


def openvino(place: Path) -> None:
    openvino = pytest.importorskip("openvino")
    graph = openvino.opset13.constant(NOISE)
    openvino.save_model(openvino.Model([graph], []), place / "a.xml", compress_to_fp16=False)


def sqlite(place: Path) -> None:
    base = sqlite3.connect(place / "a")
    base.execute("create table t(x)")
    base.executemany("insert into t values(?)", [("x" * 1000,)] * 1000)
    base.commit()


def optuna(place: Path) -> None:
    from optuna.storages import RDBStorage

    storage = RDBStorage(f"sqlite:///{place}/a")
    study = storage.create_new_study([])
    for number in range(100):
        storage.set_study_user_attr(study, f"key{number}", "x" * 2000)


def picture(place: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8))
    figure.add_subplot().imshow(NOISE.reshape(250, 400))
    figure.savefig(place / "a.png", dpi=150)


LIBRARIES = [
    python,
    copied,
    packed,
    parquet,
    arrow,
    safetensors,
    torch,
    tokenizer,
    onnx,
    openvino,
    sqlite,
    optuna,
    picture,
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "large").write_bytes(bytes(5 * LIMIT))
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.cost(8, "imports the libraries")
@pytest.mark.parametrize("write", LIBRARIES)
def test_each_library_at_a_limit_of_file_size(write: Callable[[Path], None], place: Path) -> None:
    with (
        pytest.raises(DiskError) as caught,
        file_limit(LIMIT),
        translate_disk_errors(place, "storage.root"),
    ):
        write(place)
    # SQLite does not say which error of the disk it was.
    number = errno.EIO if write in (sqlite, optuna) else errno.EFBIG
    assert (caught.value.errno, caught.value.field) == (number, "storage.root")
    assert str(caught.value).startswith(f"storage.root='{place}")


@pytest.mark.cost(8, "imports the libraries")
def test_each_library_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(5 * LIMIT))
    with small_disk(tmp_path / "place", "160k") as place:
        for write in LIBRARIES:
            with pytest.raises(DiskError) as caught, translate_disk_errors(place, "storage.root"):
                write(place)
            assert caught.value.errno == errno.ENOSPC, write.__name__
            assert "MB free, more is needed). Free some space there" in str(caught.value)
            for file in place.iterdir():
                file.unlink()


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
            found = find_disk_error(error)
            assert found is not None and found.errno == errno.ENOSPC and found.path == "/x"
            assert "Traceback" not in str(found)


def test_ray_without_room_for_objects_is_a_full_disk() -> None:
    from ray.exceptions import OutOfDiskError

    found = find_disk_error(OutOfDiskError("ray.put"))
    assert found is not None and found.errno == errno.ENOSPC


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
    found = (4096, 4096, 10**9, blocks, blocks, 10**7, files_free, files_free, 0, 255)
    return lambda _: os.statvfs_result(found)


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
    ("error", "said"),
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
    error: OSError, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "TEMP", "TMP", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)

    def unusable() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", unusable)
    with pytest.raises(OSError) as caught, named_disk_errors(load(JobSettings, [], [])):
        raise error
    if said is None:
        assert caught.value is error
    else:
        assert str(caught.value).startswith(said or "TMPDIR='/tmp': ")


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


@pytest.mark.parametrize("stage", ["file", "folder", "json"])
def test_a_new_file_is_complete_or_absent_and_the_old_one_stays(stage: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    text = "x" * 5 * LIMIT
    with pytest.raises(DiskError) as caught, file_limit(LIMIT):
        if stage == "json":
            write_json(path, text)
        elif stage == "file":
            with staged_file(path) as staged:
                staged.write_text(text)
        else:
            path = tmp_path / "folder"
            with staged_dir(path) as staging:
                (staging / "a").write_text(text)
    assert caught.value.path == path and caught.value.errno == errno.EFBIG
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"result.json": "old"}


def test_free_space_is_measured_after_cleanup(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "small", "1m") as place,
        pytest.raises(DiskError) as caught,
        translate_disk_errors(place, "storage.root"),
        staged_dir(place / "version") as staging,
    ):
        (staging / "a").write_bytes(bytes(5_000_000))
    assert str(caught.value).startswith(f"storage.root='{place}/version': No space left on device")
    assert "(1.0 MB free, more is needed)" in str(caught.value)


# --- room and names -------------------------------------------------------------------------------


def test_room_is_checked_before_work(tmp_path: Path) -> None:
    check_free_space(tmp_path / "new" / "deep", 1, "storage.root")
    with pytest.raises(
        DiskError, match=r"storage\.root=.* free, about 1000000000000000\.0 MB need"
    ):
        check_free_space(tmp_path / "new" / "deep", 10**21, "storage.root")


@pytest.mark.parametrize(
    ("recipe", "checkpoints", "epochs", "needed"),
    [
        ({"epochs": 1}, 0, 0, 3),
        ({"epochs": 9}, 0, 0, 9),
        ({"epochs": 9, "patience": 2}, 0, 0, 6),
        ({"epochs": 9, "lora_rank": 4}, 0, 0, 3),
        ({"epochs": 9, "unfreeze_epochs": 2}, 0, 0, 3),
        ({"epochs": 9}, 3, 5, 3),
        ({"epochs": 9}, 3, 9, None),
    ],
)
def test_a_training_is_refused_before_its_checkpoints_fill_the_disk(
    recipe: dict[str, Any], checkpoints: int, epochs: int, needed: int | None, tmp_path: Path
) -> None:
    config, weights = TrainConfig(**recipe), 10**15
    check_disk(config, 1, tmp_path, checkpoints, epochs)
    if needed is None:
        check_disk(config, weights, tmp_path, checkpoints, epochs)
        return
    with pytest.raises(DiskError) as caught:
        check_disk(config, weights, tmp_path, checkpoints, epochs)
    assert caught.value.needed == needed * weights
    assert f"storage.root='{tmp_path}': No space left on device (" in str(caught.value)


def test_the_deepest_setting_names_a_path(tmp_path: Path) -> None:
    places = {"storage.root": tmp_path, "registry.root": tmp_path / "registry"}
    inside: list[tuple[Path, Any]] = [
        (tmp_path / "runs" / "a", "storage.root"),
        (tmp_path / "registry" / "versions", "registry.root"),
        (Path("/elsewhere"), None),
    ]
    for place, field in inside:
        found = find_setting(place, places)
        assert (found and found[0]) == field


def test_without_a_path_the_setting_with_the_least_room_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as small, filled(small):
        found = find_setting(None, {"storage.root": tmp_path, "registry.root": small})
    assert found == ("registry.root", small)


@pytest.mark.parametrize(
    ("error", "said"),
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
    error: OSError, said: str | None, tmp_path: Path
) -> None:
    overrides = [f"storage.root={tmp_path}", f"predict.output={tmp_path}/out"]
    if error.filename:
        error.filename = error.filename.format(root=tmp_path)
    with pytest.raises(OSError) as caught, named_disk_errors(load(JobSettings, [], overrides)):
        raise error
    if said is None:
        assert caught.value is error
    else:
        assert str(caught.value).startswith(said.format(root=tmp_path))


def test_limits_of_this_process_are_restored() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert os.access("/dev/full", os.W_OK)
