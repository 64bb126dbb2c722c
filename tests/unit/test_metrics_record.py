"""Records of evaluations: files of this and earlier versions are read and written key by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from finsent.errors import InputError
from finsent.evaluation.report import page_without_texts, write_report
from finsent.evaluation.results import read_metrics
from finsent.files import read_json
from finsent.metrics_record import METRICS_FILE, EvaluationMetrics, StoredMetrics
from finsent.registry.version_manifest import VersionManifest

DATA = Path(__file__).parents[1] / "data"
FILES = sorted(path.name for path in DATA.glob("metrics*.json"))
OLD = "metrics-before-overlap.json"  # before macro_over, overlap, truncation and agreement


@pytest.mark.parametrize("name", FILES)
def test_a_stored_evaluation_keeps_each_key_and_value(name: str, tmp_path: Path) -> None:
    content = read_json(DATA / name)
    metrics = StoredMetrics.read(DATA / name)
    metrics.write(tmp_path / METRICS_FILE)
    assert read_json(tmp_path / METRICS_FILE) == content
    if name != OLD:
        complete = EvaluationMetrics.model_validate(content).model_dump(mode="json")
        assert complete == content
        assert list(complete) == list(content), "the order of the keys"


@pytest.mark.parametrize("name", FILES)
def test_the_manifest_of_a_version_stores_the_brief_form(name: str) -> None:
    content = read_json(DATA / name)
    for key in ("reliability", "reliability_before", "mistakes", "slices"):
        content.pop(key)
    content["abstention"].pop("curve")
    if content.get("behavior"):
        content["behavior"].pop("groups")
    record = StoredMetrics if name == OLD else EvaluationMetrics
    assert manifest(record.read(DATA / name).brief()) == content
    assert manifest(StoredMetrics()) == {}


def manifest(metrics: StoredMetrics) -> Any:
    """Return the metrics of a manifest after writing and reading."""
    unset = {"labels", "gate", "license", "backbone", "origin", "dataset", "config"}
    record = VersionManifest(
        version="0123456789ab",
        created="2026-01-01T00:00:00+00:00",
        files=(),
        metrics=metrics,
        exports=(),
        code={},
        **dict.fromkeys(unset),
    )
    restored = VersionManifest.model_validate_json(record.model_dump_json())
    assert restored.metrics.is_measured == metrics.is_measured
    return json.loads(restored.model_dump_json())["metrics"]


@pytest.mark.cost(3, "draws the pictures of a report")
@pytest.mark.parametrize("name", FILES)
def test_a_report_of_each_version_is_rendered(name: str, tmp_path: Path) -> None:
    metrics = StoredMetrics.read(DATA / name)
    write_report(metrics, tmp_path, "A title")
    metrics.write(tmp_path / METRICS_FILE)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    mistake = str(escape(read_json(DATA / name)["mistakes"][0]["text"]))
    assert mistake in page
    without = page_without_texts(tmp_path, "A title")
    assert mistake not in without and "This report has no texts of rows" in without
    assert without.count("<img") == page.count("<img") >= 3


@pytest.mark.parametrize("name", FILES)
def test_each_version_can_be_published(name: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / METRICS_FILE).write_bytes((DATA / name).read_bytes())
    metrics = read_metrics("first", tmp_path / "model")
    assert metrics.model_dump(mode="json") == read_json(DATA / name)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"accuracy": 0.5, "labels": {}}', r"metrics\.json: macro_f1: .*required.*\. Evaluate"),
        ('{"accuracy": "high", "macro_f1": 1, "labels": {}}', r"accuracy: .*number"),
        ("[]", r"metrics\.json: the file: .*\. Evaluate the model again\."),
        (None, r"publish\.model='first': has no .*metrics\.json\. Measure it first"),
    ],
)
def test_figures_that_cannot_be_published_are_one_line(
    text: str | None, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "evaluation").mkdir()
    if text is not None:
        (tmp_path / "evaluation" / METRICS_FILE).write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        read_metrics("first", tmp_path / "model")
    assert "\n" not in str(caught.value)
