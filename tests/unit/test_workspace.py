"""Where a workspace keeps things, and which dataset version a model was trained on."""

from __future__ import annotations

from pathlib import Path

from finsent.evaluation.held_out_rows import training_rows, validation_keys
from finsent.modeling.trained_on import TrainedOn
from finsent.settings import Settings
from finsent.storage import StorageConfig
from finsent.workspace import Workspace
from tests.unit.dataset_versions import Row, write

VERSION = "0123456789ab"


def test_workspace_is_that_of_the_settings(tmp_path: Path) -> None:
    settings = Settings(storage=StorageConfig(root=str(tmp_path)))
    assert settings.workspace == Workspace.at(tmp_path)
    assert (
        settings.workspace.versions(settings.data.name).path
        == tmp_path / "datasets" / settings.data.name
    )


def test_rows_of_a_model_from_elsewhere_or_of_a_lost_version_are_not_known(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    elsewhere = training_rows(workspace, None)
    assert (elsewhere.rows, elsewhere.reason) == (None, "the model was trained elsewhere")
    lost = training_rows(workspace, TrainedOn("news", VERSION))
    assert lost.rows is None
    assert lost.reason == f"dataset version {VERSION} is not in {str(tmp_path / 'datasets/news')!r}"
    assert validation_keys(workspace, TrainedOn("news", VERSION)) is None


def test_rows_of_a_stored_version_are_known(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    write(
        tmp_path / "datasets" / "news" / VERSION,
        [Row("Profit rose.", "positive", "train"), Row("Loss widened.", "negative", "validation")],
    )
    trained_on = TrainedOn("news", VERSION)
    training = training_rows(workspace, trained_on)
    assert training.rows is not None
    assert training.rows["text"].to_pylist() == ["Profit rose."]
    keys = validation_keys(workspace, trained_on)
    assert keys is not None and len(keys) == 1
