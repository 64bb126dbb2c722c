"""A scorer with a small model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.scoring.score import Scorer
from tests.threads import compute_threads
from tests.unit.models import saved_model


@pytest.fixture(scope="module")
def scorer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    """Return a scorer with one compute thread."""
    folder = saved_model(tiny, tmp_path_factory.mktemp("scored") / "model")
    with compute_threads():
        yield Scorer(Engine(folder, EngineConfig(threads=1)), "v1")
