"""Checkpoints: which are listed, kept, used and refused as damaged."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.training.checkpoint import (
    best_checkpoint,
    epoch_checkpoint_name,
    find_damage,
    latest_valid,
    list_checkpoints,
    prune,
    step_checkpoint_name,
)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "trains a tiny model")]


def test_checkpoints_are_listed_by_step_the_newest_last(run_dir: Path) -> None:
    names = [saved.folder.name for saved in list_checkpoints(run_dir)]
    assert names == [
        step_checkpoint_name(5),
        step_checkpoint_name(10),
        epoch_checkpoint_name(1),
        step_checkpoint_name(15),
        step_checkpoint_name(20),
        step_checkpoint_name(25),
        epoch_checkpoint_name(2),
        step_checkpoint_name(30),
        step_checkpoint_name(35),
        epoch_checkpoint_name(3),
    ]


def test_best_checkpoint_is_at_the_end_of_an_epoch(run_dir: Path) -> None:
    best = best_checkpoint(list_checkpoints(run_dir))
    assert best.step == 0
    scores = [m.macro_f1 for m in best_checkpoint(list_checkpoints(run_dir)[-1:]).history]
    assert best.metrics.macro_f1 == max(scores)


def test_the_best_and_the_two_newest_are_kept(run_dir: Path) -> None:
    best = best_checkpoint(list_checkpoints(run_dir)).folder.name
    prune(run_dir)
    assert {p.name for p in run_dir.iterdir()} == {
        best,
        step_checkpoint_name(35),
        epoch_checkpoint_name(3),
    }
    shutil.rmtree(run_dir / epoch_checkpoint_name(3))
    left = {p.name for p in run_dir.iterdir()}
    prune(run_dir)
    assert {p.name for p in run_dir.iterdir()} == left


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3]), (2, [2, 3]), (5, [3])])
def test_checkpoints_of_every_nth_epoch_are_kept(
    run_dir: Path, every: int, epochs: list[int]
) -> None:
    best = best_checkpoint(list_checkpoints(run_dir)).folder.name
    prune(run_dir, every)
    expected = {best, step_checkpoint_name(35), *map(epoch_checkpoint_name, epochs)}
    assert {p.name for p in run_dir.iterdir()} == expected


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "damage_file", "words"),
    [
        ("model/model.safetensors", flip, "model/model.safetensors has another SHA-256"),
        ("optimizer.safetensors", flip, "optimizer.safetensors has another SHA-256"),
        ("weights.safetensors", truncate, "weights.safetensors has"),
        ("model/tokenizer.json", Path.unlink, "model/tokenizer.json is missing"),
        ("optimizer.safetensors", Path.unlink, "is incomplete"),
        ("state.json", truncate, "is incomplete"),
    ],
)
def test_damaged_checkpoint_is_named_and_the_one_before_is_used(
    run_dir: Path, name: str, damage_file: Callable[[Path], None], words: str
) -> None:
    assert find_damage(run_dir / epoch_checkpoint_name(3)) is None
    damage_file(run_dir / epoch_checkpoint_name(3) / name)
    warnings: list[str] = []
    latest = latest_valid(run_dir, warnings.append)
    assert latest is not None
    assert latest.folder.name == step_checkpoint_name(35)
    [warning] = warnings
    assert epoch_checkpoint_name(3) in warning
    assert words in warning


def test_a_changed_state_is_damage(run_dir: Path) -> None:
    file = run_dir / epoch_checkpoint_name(3) / "state.json"
    state = json.loads(file.read_text())
    state["history"][0]["macro_f1"] = 1.0
    file.write_text(json.dumps(state))
    latest = latest_valid(run_dir, lambda _: None)
    assert latest is not None
    assert latest.folder.name == step_checkpoint_name(35)


def test_run_with_only_damaged_checkpoints_is_refused(run_dir: Path) -> None:
    for folder in run_dir.iterdir():
        flip(folder / "optimizer.safetensors")
    with pytest.raises(InputError, match=r"every checkpoint is damaged.*another run\.name"):
        latest_valid(run_dir, logging.getLogger().debug)


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert latest_valid(tmp_path) is None


def test_choosing_a_checkpoint_does_not_import_torch() -> None:
    """PyTorch takes seconds to import, in each trial of a sweep."""
    code = "import finsent.training.checkpoint_writer, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
