"""Free space: checks before work, complete files."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from finsent.disk import (
    DiskError,
    check_free_space,
    find_setting,
    translate_disk_errors,
)
from finsent.files import staged_dir, staged_file, write_json
from finsent.training.capacity import check_disk
from finsent.training.config import TrainConfig
from tests.disks import file_limit, filled, small_disk

LIMIT = 100_000  # bytes of a file


# --- nothing half-written -------------------------------------------------------------------------


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
        small_disk(tmp_path / "small", "1m") as folder,
        pytest.raises(DiskError) as caught,
        translate_disk_errors(folder, "storage.root"),
        staged_dir(folder / "version") as staging,
    ):
        (staging / "a").write_bytes(bytes(5_000_000))
    assert str(caught.value).startswith(f"storage.root='{folder}/version': No space left on device")
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
    for folder, field in inside:
        setting = find_setting(folder, places)
        assert (setting and setting[0]) == field


def test_without_a_path_the_setting_with_the_least_room_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as small, filled(small):
        setting = find_setting(None, {"storage.root": tmp_path, "registry.root": small})
    assert setting == ("registry.root", small)
