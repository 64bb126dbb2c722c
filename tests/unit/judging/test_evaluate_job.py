"""The job `evaluate` on small models, without Ray; what the model card says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finsent.data.config import SourceConfig
from finsent.data.versions.dataset import DatasetVersion
from finsent.evaluation.config import EvaluateConfig
from finsent.files import read_json
from finsent.labels import LABELS
from ray_jobs import evaluate
from ray_jobs._results import as_result
from tests.unit.judging.worlds import NAMES, World, metrics

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "measures models")]


# --- evaluate -------------------------------------------------------------------------------------


def test_metrics_hold_what_others_build_on(world: World) -> None:
    result = metrics(world, "good")
    assert result["rows"] == 200
    assert 0.8 < result["macro_f1"] <= result["accuracy"] + 0.05 < 1
    for name, bounds in result["intervals"].items():
        if name != "ece":
            assert bounds[0] <= result[name] <= bounds[1], name
    assert set(result["intervals"]) == {
        "accuracy",
        "macro_f1",
        "weighted_f1",
        "mcc",
        "auroc",
        "log_loss",
        "brier",
        "ece",
    }
    assert all(result["labels"][name]["auroc"] > 0.7 for name in LABELS)
    assert np.array(result["confusion"]).sum() == 200
    assert result["noise_ceiling"] == {"rows_in": 0.9, "kept": 1.0}
    assert set(result["baselines"]) == {"majority", "vader", "tfidf_logreg"}
    for base in result["baselines"].values():
        assert base.keys() >= {"accuracy", "macro_f1", "mcc", "auroc", "log_loss", "brier", "ece"}
    assert result["baselines"]["majority"]["auroc"] == 0.5
    assert result["baselines"]["tfidf_logreg"]["macro_f1"] > 0.8
    assert sum(bucket["rows"] for bucket in result["reliability"]) == 200
    assert result["seen_in_training"] == 0
    assert result["rows_per_second"] > 0


def test_temperature_of_the_validation_split_calibrates_the_test_split(world: World) -> None:
    result = metrics(world, "good")["calibration"]
    assert result["temperature"] > 1.5  # its logits were three times too large
    assert result["ece_after"] < result["ece_before"]
    assert result["log_loss_after"] < result["log_loss_before"]
    assert result["ece_after"] == metrics(world, "good")["ece"]
    fitted = result["fitted_on"]
    assert (fitted["dataset_version"], fitted["split"]) == ("0123456789ab", "validation")
    assert fitted["rows"] == 150


def test_abstention_reports_the_models_own_threshold(world: World) -> None:
    for name in NAMES:
        result = metrics(world, name)["abstention"]
        calibration = json.loads((world.run(name) / "model" / "calibration.json").read_text())
        assert result["threshold"] == calibration["abstention"]["threshold"]
        assert result["wanted_accuracy"] == 0.9
        assert (result["coverage"] is None) == (result["threshold"] is None)
        assert result["curve"][-1]["coverage"] == 1
        assert result["curve"][-1]["accuracy"] == pytest.approx(metrics(world, name)["accuracy"])


def test_mistakes_are_the_surest_wrong_rows(world: World) -> None:
    result = metrics(world, "poor")
    mistakes, wrong = result["mistakes"], 200 - round(200 * result["accuracy"])
    assert len(mistakes) == min(50, wrong)
    scores = [mistake["score"] for mistake in mistakes]
    assert scores == sorted(scores, reverse=True)
    for mistake in mistakes:
        assert mistake["predicted"] != mistake["label"]
        assert mistake.keys() == {"key", "text", "label", "source", "row", "predicted", "score"}


def test_result_line_has_no_long_lists_and_no_texts(world: World, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    result = as_result(evaluate.step(world.settings(), world.run("good") / "model", out))
    assert not {"mistakes", "reliability"} & result.keys()
    assert "curve" not in result["abstention"]
    assert "Unit test" not in json.dumps(result)
    assert len(json.dumps(result)) < 8_000


def test_file_with_training_rows_and_two_labels_is_told_in_the_terminal(
    world: World,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    version = DatasetVersion.open(world.root / "datasets" / "tests" / "0123456789ab")
    tables = [version.read(split, ["text", "label"]).to_pylist() for split in ("train", "test")]
    rows = [row for table in tables for row in table[:120] if row["label"] != "neutral"]
    rows.append(
        {"text": f"{rows[0]['text']} {' '.join(map(str, range(60)))}", "label": rows[0]["label"]}
    )
    source = tmp_path / "mixed.csv"
    lines = [f'"{row["text"]}",{row["label"]}' for row in rows]
    source.write_text("\n".join(["Sentence,Sentiment", *lines]))
    config = EvaluateConfig(sources=[SourceConfig(uri=str(source))], baselines=False, bootstrap=100)
    with caplog.at_level("INFO"):
        evaluate.step(world.settings(evaluate=config), world.run("poor") / "model", tmp_path)
    result = read_json(tmp_path / "metrics.json")
    trained = sum(row["label"] != "neutral" for row in tables[0][:120])
    assert result["macro_over"] == ["negative", "positive"]
    # The keys of this version are no hashes of ingest, so its rows are found as near copies.
    assert (result["seen_in_training"], result["overlap"]["near_copies"]) == (0, trained)
    assert result["overlap"]["unseen"]["rows"] == result["rows"] - trained
    assert (result["truncation"]["cut"], result["truncation"]["max_length"]) == (1, 48)
    messages = " ".join(caplog.messages)
    for phrase in (
        f"trained on: near copies of {trained} of",
        "No row is neutral",
        "1 of ",
        "are cut: ",
        "data.exclude",
    ):
        assert phrase in messages
    assert "macro-F1 over negative and positive" in capsys.readouterr().err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for phrase in (
        "macro-F1 over negative and positive",
        "No row is neutral",
        "rows that the model was not trained on",
    ):
        assert phrase in page
    assert result["sources"] == [str(source)]
    assert f"calibrate.sources=[{source}]" in messages or result["abstention"]["holds"] is not False


# --- the gate -------------------------------------------------------------------------------------


def test_card_tells_how_far_to_trust_the_model(world: World) -> None:
    world.publish("good")
    card = (world.registry().get("champion").path / "README.md").read_text(encoding="utf-8")
    result = metrics(world, "good")
    low, high = result["intervals"]["macro_f1"]
    for phrase in (
        f"| this model | {result['macro_f1']:.3f} ({low:.3f} to {high:.3f}) |",
        f"temperature {result['calibration']['temperature']:.3f}",
        f"{result['ece']:.3f} with it",
        f"abstains below a confidence of {result['abstention']['threshold']:.3f}",
        "no classifier can exceed an accuracy of 1.000 on the rows that were kept, 0.900 on all",
    ):
        assert phrase in card
