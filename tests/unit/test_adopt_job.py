"""The job `adopt`: an adopted model is used as any model version."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from finsent.files import read_json
from finsent.labels import LABELS
from finsent.registry.registry import Registry
from tests.commands import check_refused, invoke_job
from tests.unit.adoption import STARS, STARS_MAP, adopted
from tests.unit.dataset_versions import Row, write
from tests.unit.foreign import classifier, edit_json, saved
from tests.unit.models import saved_model

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(6, "exports and measures")]


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    """A labeled file."""
    words = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}
    rows = [(f"Unit {i}: {words[LABELS[i % 3]]} in {1990 + i}", LABELS[i % 3]) for i in range(240)]
    file = tmp_path / "gold.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("Sentence", "Sentiment"), *rows])
    return file


QUICK = (
    "export.openvino=false",
    "export.max_f1_loss=1",
    "export.min_same_labels=0.0001",
    "export.min_same_abstentions=0.0001",
    "export.max_score_change=1",
    "evaluate.behavior=null",
    "evaluate.bootstrap=100",
    "engine.threads=1",
)


def run(job: str, *arguments: str) -> dict[str, Any]:
    """Run a job that succeeds, and return its result."""
    finished = invoke_job(job, *QUICK, *arguments)
    assert finished.code == 0, finished.err
    return finished.result


def write_models_and_dataset(tiny: Path, project: Path) -> None:
    """Write the classifiers `stars` and `own`, and a dataset version without their rows."""
    saved(classifier(labels=STARS), project / "stars", tiny)
    (project / "stars/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    saved(classifier(seed=4), project / "own", tiny)
    write(
        project / "artifacts/datasets/default/0123456789ab",
        [
            Row(f"{split} {i}", LABELS[i % 3], split)
            for split in ("train", "validation", "test")
            for i in range(60)
        ],
    )


def check_adopted(result: dict[str, Any], metrics: dict[str, Any], gold: Path) -> None:
    """Check the calibration and the measurement of a model adopted with labeled rows."""
    assert result["max_difference"] <= 1e-5
    assert result["exports"]["onnxruntime-fp32"]["refused"] is None
    calibration = read_json(Path(result["version_dir"]) / "calibration.json")
    assert calibration["sources"] == ["gold.csv"]
    assert calibration["temperature"] == 1
    assert calibration["folded_temperature"] == result["temperature"]
    assert calibration["rows"] + metrics["rows"] == 240  # each row once
    assert metrics["macro_f1"] == result["macro_f1"]
    assert metrics["model_version"] == result["model_version"]
    assert metrics["sources"] == [str(gold)]


def check_registry(theirs: dict[str, Any], own: dict[str, Any], evaluated_rows: int) -> None:
    """Check what the registry and the model cards contain of two adopted models."""
    manifest = run("registry", "show", "theirs")["manifest"]
    assert manifest["origin"]["license"] == "apache-2.0"
    assert manifest["origin"]["label_map"] == STARS_MAP
    models = run("registry", "list")["models"]
    assert [model["macro_f1"] for model in models] == [theirs["macro_f1"], None]
    assert not [model for model in models if model.get("damaged")]
    card = (Path(theirs["version_dir"]) / "README.md").read_text()
    for text in (
        "license: apache-2.0",
        "| `5 stars` | positive |",
        "Adopted from `stars`",
        f"not calibrated on ({evaluated_rows} rows)",
    ):
        assert text in card
    assert "Not measured" in (Path(own["version_dir"]) / "README.md").read_text()


def check_other_jobs(dataset: str) -> None:
    """Check that other jobs accept adopted models."""
    evaluated = run("evaluate", dataset, "evaluate.model=alias:theirs")
    assert evaluated["dataset_version"] == "0123456789ab"
    compared = run("compare", dataset, "alias:theirs", "own")
    assert compared["rows"] == 60
    assert compared["seen_in_training"] == {"a": None, "b": None}
    exported = run("export", dataset, "model=theirs")
    assert exported["exports"]["onnxruntime-fp32"]["refused"] is None
    predictions = run("classify", "classify.model=alias:theirs", "Profit rose.")["predictions"]
    assert predictions[0]["label"] in LABELS


@pytest.mark.cost(15, "eight jobs")
def test_adopted_model_is_measured_compared_exported_and_served_as_any_version(
    tiny: Path, project: Path, gold: Path
) -> None:
    write_models_and_dataset(tiny, project)
    label_map = "label_map={" + ", ".join(f"{k}: {v}" for k, v in STARS_MAP.items()) + "}"
    sources = f'adopt.sources=["{gold}"]'
    adopted = invoke_job(
        "adopt", *QUICK, "stars", "name=theirs", label_map, sources, "run.name=theirs"
    )
    assert adopted.code == 0, adopted.err
    theirs = adopted.result
    for line in ("trained on: not known how many", "ECE of these rows", "never abstains: "):
        assert line in adopted.err  # as `evaluate` logs
    metrics = read_json(project / "artifacts/runs/theirs/evaluation/metrics.json")
    check_adopted(theirs, metrics, gold)
    own = run("adopt", "own", "name=own", "adopt.license=mit", "adopt.export=false")
    assert (own["macro_f1"], own["temperature"], own["exports"]) == (None, None, {})
    check_registry(theirs, own, metrics["rows"])

    dataset = "data.name=default"
    check_other_jobs(dataset)
    promoted = invoke_job("registry", *QUICK, dataset, "promote", "own", "champion")
    assert promoted.code == 0, promoted.err
    challenged = invoke_job("registry", *QUICK, dataset, "promote", "theirs", "champion")
    check_refused(challenged, ["cannot tell whether", "60 rows", "publish.min_rows"])
    forced = run(
        "adopt",
        "stars",
        "name=champion",
        label_map,
        "run.name=forced",
        dataset,
        "adopt.export=false",
        "publish.force=true",
    )
    assert (forced["gate"]["outcome"], forced["gate"]["forced"]) == ("cannot tell", True)
    assert [split["split_of"] for split in forced["gate"]["splits"]] == ["neither"]
    assert (project / "artifacts/runs/forced/model/model.safetensors").is_file()
    assert (project / "artifacts/runs/forced/comparison/comparison.json").is_file()


def test_adopting_a_model_of_ours_keeps_what_it_was_trained_on(tiny: Path, project: Path) -> None:
    rows = [Row(f"Profit rose {i}.", LABELS[i % 3], "train") for i in range(200)]
    dataset = {"name": "default", "version": "0123456789ab", "rows": len(rows)}
    write(project / "artifacts/datasets/default/0123456789ab", rows)
    saved_model(tiny, project / "ours", dataset=dataset)
    lines = [f"{row.text},{row.label}" for row in rows]
    (project / "seen.csv").write_text("\n".join(["Sentence,Sentiment", *lines]))
    adopted = run(
        "adopt", "ours", "run.name=mine", "adopt.export=false", "adopt.sources=[seen.csv]"
    )
    version = Path(adopted["version_dir"])
    assert read_json(version / "provenance.json")["dataset"] == dataset
    metrics = read_json(project / "artifacts/runs/mine/evaluation/metrics.json")
    assert (metrics["overlap"]["near_copies"], metrics["overlap"]["reason"]) == (
        metrics["rows"],
        None,
    )
    card = (version / "README.md").read_text()
    assert "Dataset `default`, version `0123456789ab`" in card
    assert "model-index" not in card  # it was measured on other rows than the dataset's test split


@pytest.mark.parametrize(
    "dataset", [None, "news", {}, {"name": "..", "version": "1"}, {"name": "a/b", "version": "1"}]
)
def test_provenance_of_another_tool_names_no_dataset(
    tiny: Path, tmp_path: Path, dataset: object
) -> None:
    theirs = saved_model(tiny, tmp_path / "theirs")
    edit_json(theirs / "provenance.json", dataset=dataset)
    adopted(tmp_path / "theirs", tmp_path / "model")
    assert read_json(tmp_path / "model/provenance.json")["dataset"] is None


def test_adopting_again_under_a_name_leaves_the_published_version_whole(
    tiny: Path, project: Path
) -> None:
    saved(classifier(hidden_size=160), project / "one", tiny)  # large enough to be linked
    saved(classifier(hidden_size=160, seed=8), project / "other", tiny)
    quick = ("adopt.export=false", "run.name=mine")
    first_result = run("adopt", "one", *quick)
    file = project / "artifacts/runs/mine/model/model.safetensors"
    assert file.stat().st_nlink > 1
    second = run("adopt", "other", *quick)
    assert first_result["model_version"] != second["model_version"]
    registry = Registry(project / "artifacts/registry")
    registry.get(first_result["model_version"])  # verifies each file
    registry.get(second["model_version"])


def test_model_that_the_gate_refuses_keeps_its_result(tiny: Path, project: Path) -> None:
    saved(classifier(), project / "one", tiny)
    saved(classifier(seed=8), project / "other", tiny)
    quick = ("adopt.export=false", "name=champion", "run.name=mine")
    first_result = run("adopt", "one", *quick)
    refused = invoke_job("adopt", *QUICK, "other", *quick)
    check_refused(refused, ["alias 'champion': cannot tell whether the model is inferior"])
    result = read_json(project / "artifacts/runs/mine/result.json")
    assert (result["source"], result["model_version"], result["gate"]) == ("other", None, None)
    assert result["refused"].startswith("alias 'champion': cannot tell")
    assert (project / "artifacts/runs/mine/model/model.safetensors").is_file()
    assert (
        Registry(project / "artifacts/registry").aliases()["champion"]
        == first_result["model_version"]
    )


def test_few_labeled_rows_neither_calibrate_nor_measure(tiny: Path, project: Path) -> None:
    saved(classifier(), project / "one", tiny)
    (project / "few.csv").write_text("Sentence,Sentiment\nProfit rose,positive\nFlat,neutral\n")
    refused = invoke_job("adopt", *QUICK, "one", "adopt.sources=[few.csv]")
    check_refused(refused, ["adopt.sources=['", "few.csv']", "too few; 50 of each", "leave"])


def test_refused_model_is_left_to_no_job(tiny: Path, project: Path) -> None:
    saved(classifier(), project / "one", tiny)
    refused = invoke_job("adopt", *QUICK, "one", "run.name=mine", "adopt.max_difference=1e-30")
    check_refused(refused, ["SOURCE='one'", "differs by", "adopt.max_difference"])
    check_refused(invoke_job("evaluate", "evaluate.model=mine"), ["neither a run"])


def test_model_whose_check_is_interrupted_is_left_to_no_job(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> float:
        raise KeyboardInterrupt

    saved(classifier(), project / "one", tiny)
    with monkeypatch.context() as patched:
        patched.setattr("finsent.adoption.steps.check_same", interrupt)
        with suppress(KeyboardInterrupt):
            assert invoke_job("adopt", *QUICK, "one", "run.name=mine").code not in (0, 2)
    assert not [*(project / "artifacts/runs/mine").rglob("*.safetensors")]
    check_refused(invoke_job("evaluate", "evaluate.model=mine"), ["neither a run"])


def test_adopted_run_is_not_the_latest_training(tiny: Path, project: Path) -> None:
    saved(classifier(), project / "one", tiny)
    run("adopt", "one", "adopt.export=false")
    check_refused(invoke_job("evaluate", "evaluate.model=latest"), ["no trained model"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["adopt ''", "Write one SOURCE"]),
        (["a", "b"], ["adopt 'a b'"]),
        (["./none"], ["SOURCE='./none': no such directory"]),
        (["no/such/model"], ["SOURCE='no/such/model': neither a directory nor a hub id"]),
        (["x", "name=Champion"], ["adopt.name='Champion'"]),
        (["x", "label_map={up: good}"], ["adopt.label_map.up='good'"]),
        (["empty"], ["SOURCE='empty': config.json, model.safetensors, tokenizer.json missing"]),
    ],
)
def test_bad_arguments_are_one_line(project: Path, arguments: list[str], words: list[str]) -> None:
    (project / "empty").mkdir()
    check_refused(invoke_job("adopt", *arguments), words)
