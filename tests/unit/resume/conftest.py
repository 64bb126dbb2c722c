"""An uninterrupted training, and copies of its run directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.threads import compute_threads
from tests.unit.loop_bench import Bench, Recorder
from tests.unit.resume.recipes import RECIPE


@pytest.fixture(scope="session")
def bench(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench that trains a tiny model."""
    return Bench(tiny, tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="session")
@compute_threads(1)
def uninterrupted(bench: Bench) -> Recorder:
    """Return a run that was never killed."""
    return bench.run(**RECIPE)


@pytest.fixture
def run_dir(uninterrupted: Recorder, tmp_path: Path) -> Path:
    """Return a copy of the directory of the uninterrupted run."""
    shutil.copytree(uninterrupted.folder, tmp_path / "run")
    return tmp_path / "run"
