"""The job `calibrate`, and what other jobs do with its calibrations."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.config import load
from finsent.data.config import DataConfig, SourceConfig
from finsent.data.rows.split import SPLITS
from finsent.evaluation.evaluate import read_benchmark
from finsent.files import sha256_file, write_json
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine, softmax
from finsent.labels import LABELS
from finsent.registry.calibration_lookup import find_calibration
from finsent.registry.calibrations import Calibrations
from finsent.registry.registry import Registry
from finsent.settings import Settings
from ray_jobs import calibrate, classify, evaluate, registry
from ray_jobs._cli import Finished, invoke
from tests.unit.datasets import manifest_content, split_content
from tests.unit.models import METRICS, TEXTS, publish_domain, saved_model

ENGINE = EngineConfig(backend="torch", precision="fp32", threads=1)


DATASET = {"name": "seen", "version": "v1", "rows": 10}  # that the model was trained on


COLUMNS = {"text_column": "text", "label_column": "label"}


def written(path: Path, texts: list[str], labels: list[str]) -> str:
    lines = [json.dumps({"text": t, "label": n}) for t, n in zip(texts, labels, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def domain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, str, str]:
    """Return a registry, rows of a domain whose labels the champion confuses, and other rows."""
    folder = tmp_path_factory.mktemp("domain")
    registry = Registry(folder / "registry")
    model = saved_model(tiny, folder / "model", dataset=DATASET)
    registry.promote(registry.publish(model, METRICS, {}).version, "champion")
    words = " ".join(TEXTS).split()
    random = np.random.default_rng(0)
    texts = sorted({" ".join(random.choice(words, 6)) for _ in range(160)})
    labels = [
        prediction.label
        for prediction in Engine(registry.get("champion").path, ENGINE).classify(texts)
    ]
    # What the model calls by its usual label is any label here.
    usual = max(set(labels), key=labels.count)
    other_labels = [label for label in LABELS if label != usual]
    mixed = [other_labels[i % 2] if i % 3 else usual for i in range(len(texts))]
    rows = written(folder / "rows.jsonl", [*texts[:120], texts[0]], [*mixed[:120], mixed[0]])
    return registry, rows, written(folder / "others.jsonl", texts[120:], mixed[120:])


def job(module: Any, store: Registry, *arguments: str) -> Finished:
    folder = store.root.parent
    base = ["engine.threads=1", *(f"data.{key}={value}" for key, value in COLUMNS.items())]
    base += ["evaluate.behavior=null", "evaluate.baselines=false", "evaluate.bootstrap=100"]
    roots = [f"storage.root={folder}", f"registry.root={store.root}"]
    return invoke(module.JOB, [*base, *roots, *arguments])


@pytest.mark.cost(3, "runs five jobs with a tiny model")
def test_a_calibration_is_made_and_used(domain: tuple[Registry, str, str]) -> None:
    store, rows, others = domain
    version = store.get("champion")
    before = (version.path / "manifest.json").read_bytes()
    made = job(calibrate, store, "name=tweets", f"calibrate.sources=[{rows}]")
    assert made.code == 0, made.err
    assert "120 rows are used; left out: 1 duplicates" in made.err
    assert made.result["rows"] == 120
    after, old = made.result["after"], made.result["before"]
    assert after["log_loss"]["value"] < old["log_loss"]["value"]
    assert (version.path / "manifest.json").read_bytes() == before
    assert store.get("champion").version == version.version

    listed = job(registry, store, "list")
    assert listed.result["models"][0]["calibrations"] == ["tweets"]
    finished = job(registry, store, "show", "champion")
    assert finished.result["calibrations"][0]["biases"] == made.result["biases"]

    measured = job(
        evaluate,
        store,
        "evaluate.model=champion",
        "evaluate.calibration=tweets",
        f"evaluate.sources=[{rows},{others}]",
    )
    assert measured.code == 0, measured.err
    assert "left out 120 rows that the calibration tweets was fitted on" in measured.err
    assert "near copies of its rows, if any, remain" in measured.err
    assert measured.result["domain_calibration"] == {"name": "tweets", "id": made.result["id"]}

    labeled = job(classify, store, "classify.calibration=tweets", "--", *TEXTS)
    plain = job(classify, store, "--", *TEXTS)
    biases = [made.result["biases"][label] for label in LABELS]
    for ours, theirs in zip(
        labeled.result["predictions"], plain.result["predictions"], strict=True
    ):
        z = np.log([theirs["probabilities"][label] for label in LABELS])
        expected = softmax(z[None], made.result["temperature"], biases)[0]
        assert [*ours["probabilities"].values()] == pytest.approx(expected, abs=1e-4)
        assert ours["label"] == LABELS[int(expected.argmax())]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["calibrate.sources=[ROWS]"], "calibrate.name=null: name the calibration"),
        (["name=a"], r"calibrate.sources=\[\]: name labeled files"),
        (["name=a", "calibrate.sources=[OTHERS]"], "40 rows are too few, 100 are needed"),
        (
            ["name=a", "calibrate.sources=[ROWS]", "min_label_rows=90"],
            "90 are needed .calibrate.min_label_rows",
        ),
        (["name=a", "model=nobody", "calibrate.sources=[ROWS]"], "calibrate.model='nobody': no "),
        (["name=a", "model=run:m", "calibrate.sources=[ROWS]"], "calibrate.model='run:m': "),
        (["name=A b", "calibrate.sources=[ROWS]"], "calibrate.name='A b'"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    domain: tuple[Registry, str, str], arguments: list[str], problem: str
) -> None:
    store, rows, others = domain
    filled = [argument.replace("ROWS", rows).replace("OTHERS", others) for argument in arguments]
    finished = job(calibrate, store, *filled)
    assert finished.code == 2
    [line] = [line for line in finished.err.splitlines() if line.startswith("error:")]
    assert re.search(problem, line), line


def test_force_publishes_and_records_why(domain: tuple[Registry, str, str]) -> None:
    store, _, others = domain
    finished = job(calibrate, store, "name=few", f"calibrate.sources=[{others}]", "force=true")
    assert finished.code == 0, finished.err
    assert "40 rows are too few" in finished.result["refusal"]
    single = written(store.root.parent / "single.jsonl", ["Up"], ["positive"])
    finished = job(calibrate, store, "name=few", f"calibrate.sources=[{single}]", "force=true")
    assert finished.code == 0, finished.err
    assert len(finished.result["previous"]) == 1


def test_a_model_that_is_not_published_has_no_calibration(
    domain: tuple[Registry, str, str],
) -> None:
    store, _, _ = domain
    model = store.root.parent / "model"
    finished = job(classify, store, f"classify.model={model}", "classify.calibration=x", "--", "Up")
    assert finished.code == 2
    assert "is not a published version" in finished.err


def test_a_promotion_says_which_calibrations_are_lost(
    domain: tuple[Registry, str, str], tiny: Path
) -> None:
    store, _, _ = domain
    old = store.get("champion").version
    new = store.publish(saved_model(tiny, store.root.parent / "next", 4), METRICS, {}).version
    store.promote(old, "stable")
    publish_domain(store, name="lost")
    finished = job(registry, store, "promote", new, "stable")
    assert finished.code == 0, finished.err
    [line] = [line for line in finished.err.splitlines() if "lacks calibrations" in line]
    assert "lost" in line and f"calibrate.model=version:{new}" in line
    back = job(registry, store, "promote", old, "stable")
    assert (back.code, "lacks" in back.err) == (0, False)
    Calibrations(store.root, old).path("lost").unlink()


def test_a_registry_behind_a_link_has_its_calibrations(
    domain: tuple[Registry, str, str], tmp_path: Path
) -> None:
    store, _, _ = domain
    name = publish_domain(store, name="linked").name
    (tmp_path / "link").symlink_to(store.root.parent)
    settings = load(Settings, [], [f"storage.root={tmp_path / 'link'}"])
    calibration = find_calibration(
        Registry(settings.workspace.registry),
        store.get("champion").path,
        name,
        "classify.calibration",
    )
    assert calibration is not None and calibration.name == name
    Calibrations(store.root, store.get("champion").version).path(name).unlink()


def test_rows_that_the_model_was_trained_on_are_left_out(
    domain: tuple[Registry, str, str],
) -> None:
    store, rows, _ = domain
    table = read_benchmark([SourceConfig(uri=rows)], DataConfig(**COLUMNS), store.root)
    for count, problem in ((10, ""), (len(table), "the model was trained on each of their rows")):
        folder = store.root.parent / "datasets" / "seen" / "v1"
        folder.mkdir(parents=True)
        copies = table.slice(10, 3).to_pydict()
        retweets = {
            **copies,
            "key": ["a", "b", "c"],
            "text": [f"RT @desk {text.upper()}" for text in copies["text"]],
        }
        train = [table.slice(0, count), pa.table(retweets, table.schema)]
        pq.write_table(pa.concat_tables(train), folder / "train.parquet")
        entry = {
            "path": "train.parquet",
            "rows": count + 3,
            "sha256": sha256_file(folder / "train.parquet"),
        }
        splits = {split: split_content() for split in SPLITS}
        splits["train"] = split_content(count + 3, files=[entry])
        manifest = manifest_content(name="seen", version="v1", splits=splits)
        write_json(folder / "manifest.json", manifest)
        finished = job(calibrate, store, "name=fewer", f"calibrate.sources=[{rows}]")
        shutil.rmtree(folder)
        if problem:
            assert (finished.code, problem in finished.err) == (2, True), finished.err
        else:
            assert finished.result["rows"] == len(table) - count - 3
            assert "left out 10 rows that the model was trained on" in finished.err
            assert "left out 3 near copies of rows that the model was trained on" in finished.err
