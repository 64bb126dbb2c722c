"""A measured model is published with each figure that the registry shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.evaluation.results import read_metrics
from finsent.metrics_record import METRICS_FILE, StoredMetrics
from finsent.registry.registry import Registry
from tests.unit.registry.model_dirs import CODE, METRICS, model_dir, refusal

SHOWN = ["accuracy", "macro_f1", "rows", "labels"]


@pytest.mark.parametrize("name", SHOWN)
def test_metrics_without_a_figure_are_refused_before_anything_is_written(
    name: str, registry: Registry, tmp_path: Path
) -> None:
    model = model_dir(tmp_path / "model")
    text = refusal(lambda: registry.publish(model, METRICS.without(name), CODE))
    assert text == f"{str(model)!r}: its metrics lack {name}. Evaluate the model again."
    assert not registry.root.exists()


def test_all_missing_figures_are_named(registry: Registry, tmp_path: Path) -> None:
    model = model_dir(tmp_path / "model")
    text = refusal(lambda: registry.publish(model, StoredMetrics(split="test"), CODE))
    assert f"its metrics lack {', '.join(SHOWN)}. " in text


def test_a_model_that_was_not_measured_is_published_as_such(
    registry: Registry, tmp_path: Path
) -> None:
    version = registry.publish(model_dir(tmp_path / "model"), StoredMetrics(), CODE)
    card = (version.path / "README.md").read_text(encoding="utf-8")
    assert "Not measured when it was published." in card
    assert "None" not in card.partition("## Results")[2].partition("## ")[0]


def test_an_evaluation_without_its_rows_is_refused_before_a_comparison(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    METRICS.without("rows").write(tmp_path / "evaluation" / METRICS_FILE)
    with pytest.raises(InputError, match=r"rows: Field required\. Evaluate the model again\."):
        read_metrics("first", tmp_path / "model")
