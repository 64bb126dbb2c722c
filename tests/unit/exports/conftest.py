"""Models with and without exports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from finsent.export.exporter import export_model
from finsent.inference.engine import Engine
from tests.threads import compute_threads
from tests.unit.exports.engines import ANY, EXACT, corpus
from tests.unit.models import TEXTS, saved_model


@pytest.fixture(scope="session")
@compute_threads()
def rows(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Return texts with the labels that the model predicts."""
    engine = Engine(saved_model(tiny, tmp_path_factory.mktemp("labels") / "model"), EXACT)
    texts = [*TEXTS, *corpus()]
    return pa.table(
        {"text": texts, "label": [prediction.label for prediction in engine.classify(texts)]}
    )


@pytest.fixture(scope="session")
@compute_threads()
def exported(tiny: Path, rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a model with all exports. Tests must not change it."""
    folder = saved_model(tiny, tmp_path_factory.mktemp("exported") / "model")
    export_model(folder, rows, ANY, EXACT, {"split": "validation"})
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of the exported model that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "copied"))


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """Return the directory of a model without exports."""
    return saved_model(tiny, tmp_path / "model")
