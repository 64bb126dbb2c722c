"""The jobs that judge models: evaluate, compare, publish's gate; on real small models, no Ray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from finsent.data.config import SourceConfig
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import ConfigError, InputError
from finsent.evaluation.config import EvaluateConfig
from finsent.files import read_json, write_json
from finsent.inference.config import EngineConfig
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_tokenizer, new_classifier, save_classifier
from finsent.modeling.provenance import Provenance
from finsent.registry.config import PublishConfig
from finsent.registry.registry import Registry
from finsent.storage import StorageConfig
from finsent.tracking.config import TrackingConfig
from finsent.training.fine_tune import calibrate_model
from ray_jobs import compare, evaluate, publish, registry, sweep
from ray_jobs._cli import Call, RefusedError
from ray_jobs._results import as_result
from ray_jobs._settings import JobSettings
from tests.unit import sweeps
from tests.unit.test_diff import Row, write
from tune.config import SweepConfig
from tune.records import Verification
from tune.results import SweepResult

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "measures models")]

WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}
NAMES = {"good": 0.0, "poor": 0.9}  # the share of negative training rows that are called neutral


def noisy_rows(count: int, split: str, seed: int) -> list[Row]:
    """Rows of which one in eight has another label than its words."""
    random = np.random.default_rng(seed)
    said = random.integers(0, 3, count)
    label = np.where(random.random(count) < 1 / 8, random.integers(0, 3, count), said)
    texts = (
        f"Unit {split} {i}: {WORDS[LABELS[s]]}{' today' * (i % 5)}" for i, s in enumerate(said)
    )
    return [Row(text, LABELS[i], split) for text, i in zip(texts, label, strict=True)]


@dataclass(frozen=True)
class World:
    """A storage root with a dataset version and two measured runs."""

    root: Path

    def settings(self, **sections: Any) -> JobSettings:
        return JobSettings(
            storage=StorageConfig(root=str(self.root)), engine=EngineConfig(threads=1), **sections
        )

    def run(self, name: str) -> Path:
        return self.root / "runs" / name

    def registry(self) -> Registry:
        return Registry(self.root / "registry")

    def publish(self, name: str, **settings: Any) -> dict[str, Any]:
        config = self.settings(publish=PublishConfig(model=name, **settings))
        return as_result(publish.run(Call(config, self.root / "runs" / f"publish-{name}")))


def train_tiny(tiny: Path, rows: list[Row], lost: float, folder: Path, dataset: str) -> None:
    """The tiny BERT after some passes, with a share of the negative rows taken for neutral."""
    tokenizer = load_tokenizer(str(tiny))
    model = new_classifier(Backbone("tiny", str(tiny)), seed=1)
    random = np.random.default_rng(0)
    truth = np.array([LABELS.index(row.label) for row in rows])
    truth[(truth == 0) & (random.random(len(truth)) < lost)] = 1
    inputs = tokenizer([row.text for row in rows], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in np.array_split(random.permutation(np.tile(np.arange(len(rows)), 8)), 150):
        part = {name: values[batch] for name, values in inputs.items()}
        model(**part, labels=torch.tensor(truth[batch])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():  # three times too sure
        for parameter in model.get_submodule("classifier").parameters():
            parameter.mul_(3)
    provenance = {
        "max_length": 48,
        "backbone": "tiny",
        "dataset": {"name": "tests", "version": dataset, "rows": len(rows)},
    }
    save_classifier(model, tokenizer, folder, Provenance.model_validate(provenance))


@pytest.fixture(scope="module")
def built(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    rows = {
        name: noisy_rows(n, name, i)
        for i, (name, n) in enumerate([("train", 300), ("validation", 150), ("test", 200)])
    }
    path = world.root / "datasets" / "tests" / "0123456789ab"
    write(path, [row for split in rows.values() for row in split])
    manifest = read_json(path / "manifest.json")
    write_json(path / "manifest.json", manifest | {"noise_ceiling": {"rows_in": 0.9, "kept": 1.0}})
    for name, lost in NAMES.items():
        train_tiny(tiny, rows["train"], lost, world.run(name) / "model", path.name)
        calibrate_model(world.settings(), world.run(name) / "model", DatasetVersion.open(path))
        evaluate.step(world.settings(), world.run(name) / "model", world.run(name) / "evaluation")
    return world


@pytest.fixture
def world(built: World) -> Iterator[World]:
    """With an empty registry."""
    yield built
    shutil.rmtree(built.root / "registry", ignore_errors=True)


def metrics(world: World, name: str) -> dict[str, Any]:
    result = json.loads((world.run(name) / "evaluation" / "metrics.json").read_text())
    assert isinstance(result, dict)
    return result


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
    # The keys of this version are no hashes of ingest, so its rows are result as near copies.
    assert (result["seen_in_training"], result["overlap"]["near_copies"]) == (0, trained)
    assert result["overlap"]["unseen"]["rows"] == result["rows"] - trained
    assert (result["truncation"]["cut"], result["truncation"]["max_length"]) == (1, 48)
    said = " ".join(caplog.messages)
    for part in (
        f"trained on: near copies of {trained} of",
        "No row is neutral",
        "1 of ",
        "are cut: ",
        "data.exclude",
    ):
        assert part in said
    assert "macro-F1 over negative and positive" in capsys.readouterr().err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in (
        "macro-F1 over negative and positive",
        "No row is neutral",
        "rows that the model was not trained on",
    ):
        assert part in page
    assert result["sources"] == [str(source)]
    assert f"calibrate.sources=[{source}]" in said or result["abstention"]["holds"] is not False


# --- compare --------------------------------------------------------------------------------------


def test_compare_says_which_is_better_and_on_which_rows(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = as_result(compare.run(Call(world.settings(), tmp_path, ["poor", "good"])))
    assert result["verdict"] == "better"
    assert result["rows"] == 200
    assert result["b"]["macro_f1"] == metrics(world, "good")["macro_f1"]
    assert result["a"]["model_dir"] == str(world.run("poor") / "model")
    assert result["seen_in_training"] == {"a": 0, "b": 0}
    assert result["overlap"]["b"] == {
        "rows": 0,
        "near_copies": result["overlap"]["a"]["near_copies"],
        "reason": None,
    }
    assert result["with_seen"] is None
    assert result["truncation"]["a"]["cut"] == 0
    flips = pq.read_table(Path(result["comparison_dir"]) / "flipped.parquet")
    assert len(flips) == result["flipped"] > 20
    assert result["judgment"]["outcome"] == "not inferior"
    assert "B is: better" in capsys.readouterr().err
    back = as_result(compare.run(Call(world.settings(), tmp_path, ["good", "poor"])))
    assert (back["verdict"], back["judgment"]["outcome"]) == ("worse", "inferior")


def test_compare_judges_in_the_gates_words(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = PublishConfig(min_rows=201)
    with caplog.at_level("INFO"):
        result = compare.run(Call(world.settings(publish=rules), tmp_path, ["poor", "good"]))
    judgment = result.judgment
    assert (judgment["outcome"], judgment["rows"]) == ("cannot tell", 200)
    assert f"B in A's place: cannot tell: {judgment['reason']}" in caplog.text
    assert judgment["macro_f1"]["bound"] > 0  # better, but on fewer rows than were demanded


def test_compare_leaves_out_what_a_model_was_trained_on(world: World, tmp_path: Path) -> None:
    config = world.settings().evaluate.replaced(split="train")
    settings = world.settings(evaluate=config)
    with pytest.raises(InputError, match="trained or validated on each of the 300 rows of train"):
        compare.run(Call(settings, tmp_path, ["poor", "good"]))


@pytest.mark.parametrize("arguments", [[], ["good"], ["a", "b", "c"]])
def test_compare_takes_two_models(world: World, tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"not two models\. Write A B: "):
        compare.run(Call(world.settings(), tmp_path, arguments))


def read_metadata(weights: Path) -> dict[str, str]:
    """Return the metadata of a file of weights, which hold the folded temperature."""
    with safe_open(weights, "pt") as file:
        return dict(file.metadata() or {})


# --- the gate -------------------------------------------------------------------------------------


def champion_alias(world: World) -> dict[str, Any]:
    result = json.loads((world.root / "registry" / "aliases" / "champion.json").read_text())
    assert isinstance(result, dict)
    return result


@pytest.fixture
def copy_run(world: World) -> Iterator[Callable[[str, str, list[Row]], Path]]:
    """Copy a run as one that was trained on another dataset version, with these rows."""
    folders: list[Path] = []

    def copy(name: str, new: str, rows: list[Row]) -> Path:
        dataset, run = world.root / "datasets/tests" / f"{len(folders):012x}", world.run(new)
        write(dataset, rows)
        shutil.copytree(world.run(name), run)
        provenance = read_json(run / "model/provenance.json")
        provenance["dataset"]["version"] = dataset.name
        write_json(run / "model/provenance.json", provenance)
        folders.extend([dataset, run])
        return dataset

    yield copy
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def clean_rows(split: str, *labels: str) -> list[Row]:
    """Rows that every model has right which takes the label for what it is."""
    return [
        Row(f"Item {split} {i}: {WORDS[label]}", label, split) for i, label in enumerate(labels)
    ]


def test_first_champion_is_compared_with_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first = world.publish("poor")
    assert first["gate"] is None
    again = world.publish("poor")  # the same model
    assert (again["model_version"], again["gate"]) == (first["model_version"], None)
    assert "first champion" not in caplog.text
    version = world.registry().get("champion")
    assert (version.path / "calibration.json").is_file()
    assert any(file.path == "calibration.json" for file in version.manifest.files)
    assert "mistakes" not in version.manifest.metrics


def test_first_champion_that_was_measured_on_few_rows_is_a_warning(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish("poor", min_rows=201)
    assert "the first champion was measured on 200 rows" in caplog.text
    assert "compared with it on 201 (publish.min_rows)" in caplog.text


def test_better_model_becomes_champion_with_the_numbers_kept(world: World) -> None:
    poor = world.publish("poor")["model_version"]
    good = world.publish("good")
    assert world.registry().aliases() == {"champion": good["model_version"]}
    gate = good["gate"]
    assert (gate["against"], gate["outcome"], gate["forced"]) == (poor, "not inferior", False)
    [split] = gate["splits"]  # both were trained on one dataset version
    assert (split["split_of"], split["dataset_version"]) == ("both", "0123456789ab")
    assert (split["verdict"], split["judgment"]["rows"]) == ("better", 200)
    assert split["seen_in_training"] == {"champion": 0, "candidate": 0}
    assert split["seen_in_validation"] == {"champion": 0, "candidate": 0}
    gain = split["candidate"]["macro_f1"] - split["champion"]["macro_f1"]
    assert split["judgment"]["macro_f1"]["value"] == pytest.approx(gain)
    assert 0 < split["judgment"]["macro_f1"]["bound"] < gain
    version = world.registry().get("champion")
    assert version.manifest.gate is not None
    assert champion_alias(world)["gate"] == gate == version.manifest.gate.as_json()
    assert str(world.root) not in json.dumps(gate)
    card = (version.path / "README.md").read_text(encoding="utf-8")
    assert f"## Comparison with the previous champion (`{poor}`)" in card
    assert f"| both (`0123456789ab`) | 200 | {gain:+.3f} (" in card


def test_worse_model_is_refused_with_the_numbers_unless_forced(world: World) -> None:
    good = world.publish("good")["model_version"]
    with pytest.raises(InputError) as caught:
        world.publish("poor")
    text = str(caught.value)
    for word in (
        f"inferior to the champion {good}",
        "worse on 200 rows",
        "macro-F1 0.",
        "against 0.",
        "95 % interval",
        "McNemar p = ",
        "publish.force=true",
    ):
        assert word in text
    assert "\n" not in text
    assert [v.version for v in world.registry().versions()] == [good]

    other = world.publish("poor", alias="challenger")
    assert other["gate"] is None
    assert world.registry().aliases()["champion"] == good

    forced = world.publish("poor", force=True)
    assert (forced["gate"]["outcome"], forced["gate"]["forced"]) == ("inferior", True)
    assert world.registry().aliases()["champion"] == forced["model_version"]
    assert champion_alias(world)["gate"]["forced"] is True


def test_rows_that_cannot_tell_refuse_unless_forced(
    world: World,
    copy_run: Callable[[str, str, list[Row]], Path],
) -> None:
    """Three rows that the poorer model has right, too: it replaced the champion before."""
    rows = clean_rows("test", "neutral", "positive", "neutral")
    copy_run("poor", "three", rows)
    copy_run("good", "first", rows)
    good = world.publish("first")["model_version"]
    with pytest.raises(InputError) as caught:
        world.publish("three")
    text = str(caught.value)
    for word in (
        f"cannot tell whether the model is inferior to the champion {good}",
        "3 rows",
        "100 are needed (publish.min_rows)",
        "Add rows",
        "publish.force=true",
    ):
        assert word in text
    assert world.registry().aliases()["champion"] == good
    forced = world.publish("three", force=True)["gate"]
    assert (forced["outcome"], forced["forced"]) == ("cannot tell", True)
    assert forced["splits"][0]["judgment"]["absent_labels"] == ["negative"]


def test_gate_judges_models_as_published_on_their_own_rows(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the caller evaluates: other rows, another calibration, another bootstrap."""
    world.publish("poor")
    wanted = EvaluateConfig(
        calibration="tweets",
        split="validation",
        dataset="nowhere",
        sources=[SourceConfig(uri="missing.csv")],
        bootstrap=100,
        seed=7,
    )
    rules = PublishConfig(model="good", margin=0.99, min_rows=1)
    config = world.settings(publish=rules, evaluate=wanted)
    gate = publish.run(Call(config, world.root / "runs/publish-good")).gate
    assert gate is not None
    assert (gate["outcome"], gate["resamples"], gate["seed"]) == ("not inferior", 1000, 0)
    assert [split["judgment"]["rows"] for split in gate["splits"]] == [200]
    weakened = ["publish.margin=0.99 (default: 0.06)", "publish.min_rows=1 (default: 100)"]
    assert champion_alias(world)["gate"]["weakened"] == gate["weakened"] == weakened
    assert f"gate: rules weaker than the defaults: {weakened[0]}, {weakened[1]}" in caplog.text
    card = (world.registry().get("champion").path / "README.md").read_text(encoding="utf-8")
    assert f"Judged by rules weaker than the defaults: {weakened[0]} and {weakened[1]}." in card


def test_validation_rows_that_are_measured_on_are_a_warning(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = EvaluateConfig(split="validation", baselines=False, behavior=None)
    evaluate.step(world.settings(evaluate=config), world.run("good") / "model", tmp_path / "out")
    assert "evaluate: 150 of the 150 rows are validation rows of the model" in caplog.text


def test_sweep_measures_its_model_as_it_is(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.run("good") / "model", tmp_path / "model")
    wanted = EvaluateConfig(calibration="tweets", split="train", baselines=False, behavior=None)
    record = sweeps.verification(model_dir=str(tmp_path / "model"))
    verification = Verification.model_validate(record)
    tested = sweep._test(world.settings(evaluate=wanted), verification, tmp_path).test
    assert tested is not None
    own = metrics(world, "good")
    assert {key: tested[key] for key in ("rows", "accuracy")} == {
        key: own[key] for key in ("rows", "accuracy")
    }


def sweep_result() -> SweepResult:
    return SweepResult(
        trials={"done": 3},
        trials_wanted=3,
        repeated=0,
        exhausted=False,
        epochs=3,
        spent_share=1.0,
        driver_share=None,
        best={"trial": 0},
        verified=None,
        front=None,
        best_yaml="best.yaml",
        page=None,
        storage=None,
        study=None,
    )


def test_sweep_keeps_its_result_when_the_gate_refuses_the_winner(world: World) -> None:
    world.publish("good")
    run_dir = world.root / "runs/sweep"
    shutil.copytree(world.run("poor"), run_dir)
    settings = world.settings(
        sweep=SweepConfig(publish="champion"), tracking=TrackingConfig(mode="disabled")
    )
    result = sweep_result()
    try:
        with pytest.raises(RefusedError, match="inferior to the champion") as caught:
            sweep._finish(settings, run_dir, result, None)
    finally:
        shutil.rmtree(run_dir)
    assert caught.value.result == result


@pytest.mark.parametrize("is_champion_damaged", [False, True])
def test_broken_model_never_becomes_champion(world: World, is_champion_damaged: bool) -> None:
    good = world.publish("good")["model_version"]
    if is_champion_damaged:
        (world.root / "registry/versions" / good / "config.json").unlink()
    shutil.copytree(world.run("poor"), world.run("broken"))
    try:
        (world.run("broken") / "model/model.safetensors").write_bytes(b"x")
        with pytest.raises(InputError, match=r"runs/broken/model.*cannot be loaded") as caught:
            world.publish("broken", force=True)
    finally:
        shutil.rmtree(world.run("broken"))
    assert "cannot tell" not in str(caught.value)
    assert world.registry().aliases() == {"champion": good}


def test_model_whose_answers_are_not_numbers_never_becomes_champion(world: World) -> None:
    """Such answers would count as wrong, and the model as inferior, which publish.force passes."""
    good = world.publish("good")["model_version"]
    shutil.copytree(world.run("poor"), world.run("nan"))
    try:
        weights = world.run("nan") / "model/model.safetensors"
        tensors = load_file(weights)
        tensors["classifier.weight"][:] = float("nan")
        save_file(tensors, weights, read_metadata(weights))
        with pytest.raises(InputError, match=r"runs/nan/model.*answers are not numbers"):
            world.publish("nan", force=True)
    finally:
        shutil.rmtree(world.run("nan"))
    assert world.registry().aliases() == {"champion": good}


@pytest.mark.parametrize("dataset", [None, {"name": "tests"}, "tests"])
def test_provenance_without_a_dataset_is_an_error_of_one_line(
    world: World, tmp_path: Path, dataset: object
) -> None:
    model_dir = Path(shutil.copytree(world.run("good") / "model", tmp_path / "model"))
    provenance = read_json(model_dir / "provenance.json")
    del provenance["dataset"]
    if dataset is not None:
        provenance["dataset"] = dataset
    write_json(model_dir / "provenance.json", provenance)
    with pytest.raises(
        InputError, match=r"provenance\.json: dataset.*directory is damaged"
    ) as error:
        compare.run(Call(world.settings(), tmp_path, [str(model_dir), "good"]))
    assert "\n" not in str(error.value)


def test_champions_own_rows_judge_too(
    world: World, copy_run: Callable[[str, str, list[Row]], Path]
) -> None:
    """The model's own test split has no negative row; these are what the model misses."""
    copy_run("poor", "narrow", clean_rows("test", *["neutral", "positive"] * 60))
    good = world.publish("good")["model_version"]
    with pytest.raises(InputError, match=rf"inferior to the champion {good}: the champion's test "):
        world.publish("narrow")
    comparisons = world.root / "runs/publish-narrow"
    assert read_json(comparisons / "comparison/comparison.json")["rows"] == 120
    assert read_json(comparisons / "comparison-champion/comparison.json")["rows"] == 200
    gate = world.publish("narrow", force=True)["gate"]
    result = {split["split_of"]: split["judgment"]["outcome"] for split in gate["splits"]}
    assert result == {"candidate": "not inferior", "champion": "inferior"}


def test_champion_whose_rows_are_not_at_hand_cannot_be_judged(
    world: World, copy_run: Callable[[str, str, list[Row]], Path]
) -> None:
    dataset = copy_run("poor", "lost", clean_rows("test", "neutral"))
    world.publish("lost")
    shutil.rmtree(dataset)
    with pytest.raises(
        InputError, match=r"cannot tell.*champion's test split.*Ingest the dataset again, give"
    ):
        world.publish("good")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_that_a_model_was_trained_or_validated_on_do_not_count(
    world: World, copy_run: Callable[[str, str, list[Row]], Path], split: str
) -> None:
    """The candidate's training or validation rows are the champion's test rows."""
    rows = noisy_rows(200, "test", 2)
    copy_run(
        "good", "cheat", [row._replace(split=split) for row in rows] + clean_rows("test", "neutral")
    )
    world.publish("poor")
    with pytest.raises(InputError, match=r"champion's test split .*no row that neither model was"):
        world.publish("cheat")


def test_champion_that_cannot_be_loaded_stops_the_gate_unless_forced(world: World) -> None:
    poor = world.publish("poor")["model_version"]
    (world.root / "registry" / "versions" / poor / "model.safetensors").write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"cannot tell .*champion is unusable.*force=true"
    ) as caught:
        world.publish("good")
    assert "Restore the champion, or roll the alias back" in str(caught.value)
    assert "Add rows" not in str(caught.value)
    assert ".." not in str(caught.value)
    gate = world.publish("good", force=True)["gate"]
    assert (gate["outcome"], gate["forced"], gate["against"]) == ("cannot tell", True, poor)
    assert "does not match its SHA-256" in gate["reason"]


def test_promoting_to_champion_passes_the_gate_too(world: World) -> None:
    poor = world.publish("poor", alias="challenger")["model_version"]
    good = world.publish("good")["model_version"]

    def promote(*names: str, force: bool = False) -> dict[str, Any]:
        config = world.settings(publish=PublishConfig(force=force))
        return as_result(registry.run(Call(config, world.root, ["promote", *names])))

    with pytest.raises(InputError, match=f"inferior to the champion {good}.*publish.force=true"):
        promote("challenger", "champion")
    assert world.registry().aliases()["champion"] == good
    assert promote("challenger", "candidate")["gate"] is None
    forced = promote(poor, "champion", force=True)
    assert (forced["model_version"], forced["gate"]["forced"]) == (poor, True)
    assert champion_alias(world)["gate"] == forced["gate"]
    store = world.registry()  # what the service shows: of the alias, and of the publishing
    for reference in ("champion", "alias:champion"):
        gate = store.gate_of(reference, store.get(poor))
        assert gate is not None
        assert gate.as_json() == forced["gate"]
    assert store.gate_of(poor, store.get(poor)) is None
    config = world.settings()
    gates = as_result(registry.run(Call(config, world.root, ["show", poor])))["gates"]
    assert gates == {"candidate": None, "challenger": None, "champion": forced["gate"]}
    listed = as_result(registry.run(Call(config, world.root, ["list"])))["models"]
    result = {model["model_version"]: model["gates"] for model in listed}
    assert result[good] == {}
    assert (result[poor]["champion"]["outcome"], result[poor]["challenger"]) == ("inferior", None)
    assert store.gate_of("champion", store.get(good)) is None
    assert promote(good, "champion")["gate"]["outcome"] == "not inferior"


def test_card_tells_how_far_to_trust_the_model(world: World) -> None:
    world.publish("good")
    card = (world.registry().get("champion").path / "README.md").read_text(encoding="utf-8")
    result = metrics(world, "good")
    low, high = result["intervals"]["macro_f1"]
    for part in (
        f"| this model | {result['macro_f1']:.3f} ({low:.3f} to {high:.3f}) |",
        f"temperature {result['calibration']['temperature']:.3f}",
        f"{result['ece']:.3f} with it",
        f"abstains below a confidence of {result['abstention']['threshold']:.3f}",
        "no classifier can exceed an accuracy of 1.000 on the rows that were kept, 0.900 on all",
    ):
        assert part in card
