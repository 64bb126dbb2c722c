"""Libraries on a full disk or at a limit of the file size: one line with the setting."""

from __future__ import annotations

import errno
import gzip
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.disk import (
    DiskError,
    translate_disk_errors,
)
from tests.disks import file_limit, small_disk

LIMIT = 100_000  # bytes of a file


NOISE = np.random.default_rng(0).random(100_000)


def python(folder: Path) -> None:
    (folder / "a").write_bytes(bytes(5 * LIMIT))


def copied(folder: Path) -> None:
    shutil.copyfile(folder.with_name("large"), folder / "a")


def packed(folder: Path) -> None:
    with gzip.open(folder / "a", "wb") as stream:
        stream.write(NOISE.tobytes())


def parquet(folder: Path) -> None:
    pq.write_table(pa.table({"a": NOISE}), folder / "a")


def arrow(folder: Path) -> None:
    table = pa.table({"a": NOISE})
    with pa.OSFile(str(folder / "a"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)


def safetensors(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": NOISE}, folder / "a")


def torch(folder: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(100_000)}, folder / "a")


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models

    words = {f"word{i}": i for i in range(20_000)}
    Tokenizer(models.WordLevel(words, unk_token="word0")).save(str(folder / "a"))


def onnx(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = onnx.numpy_helper.from_array(NOISE, "w")
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [weights])), folder / "a"
    )


def openvino(folder: Path) -> None:
    openvino = pytest.importorskip("openvino")
    graph = openvino.opset13.constant(NOISE)
    openvino.save_model(openvino.Model([graph], []), folder / "a.xml", compress_to_fp16=False)


def sqlite(folder: Path) -> None:
    base = sqlite3.connect(folder / "a")
    base.execute("create table t(x)")
    base.executemany("insert into t values(?)", [("x" * 1000,)] * 1000)
    base.commit()


def optuna(folder: Path) -> None:
    from optuna.storages import RDBStorage

    storage = RDBStorage(f"sqlite:///{folder}/a")
    study = storage.create_new_study([])
    for number in range(100):
        storage.set_study_user_attr(study, f"key{number}", "x" * 2000)


def picture(folder: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8))
    figure.add_subplot().imshow(NOISE.reshape(250, 400))
    figure.savefig(folder / "a.png", dpi=150)


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
def folder(tmp_path: Path) -> Path:
    (tmp_path / "large").write_bytes(bytes(5 * LIMIT))
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.cost(8, "imports the libraries")
@pytest.mark.parametrize("write", LIBRARIES)
def test_each_library_at_a_limit_of_file_size(write: Callable[[Path], None], folder: Path) -> None:
    with (
        pytest.raises(DiskError) as caught,
        file_limit(LIMIT),
        translate_disk_errors(folder, "storage.root"),
    ):
        write(folder)
    # SQLite does not say which error of the disk it was.
    number = errno.EIO if write in (sqlite, optuna) else errno.EFBIG
    assert (caught.value.errno, caught.value.field) == (number, "storage.root")
    assert str(caught.value).startswith(f"storage.root='{folder}")


@pytest.mark.cost(8, "imports the libraries")
def test_each_library_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(5 * LIMIT))
    with small_disk(tmp_path / "place", "160k") as folder:
        for write in LIBRARIES:
            with pytest.raises(DiskError) as caught, translate_disk_errors(folder, "storage.root"):
                write(folder)
            assert caught.value.errno == errno.ENOSPC, write.__name__
            assert "MB free, more is needed). Free some space there" in str(caught.value)
            for file in folder.iterdir():
                file.unlink()
