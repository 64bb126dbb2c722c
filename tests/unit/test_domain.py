"""Calibrations for domains: what is fitted, what is refused, where it is kept, what jobs do."""

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
from scipy.optimize import check_grad
from scipy.special import log_softmax

from finsent.config import load
from finsent.data.config import DataConfig, NearConfig, SourceConfig
from finsent.data.rows.split import SPLITS
from finsent.errors import InputError
from finsent.evaluation.abstention import selective, threshold_for
from finsent.evaluation.config import CalibrateConfig, EvaluateConfig
from finsent.evaluation.domain import no_gain, too_few
from finsent.evaluation.domain_exports import calibrated_logits, compare_exports
from finsent.evaluation.domain_fit import Fit, bias_loss, fit
from finsent.evaluation.domain_report import gain_lines
from finsent.evaluation.domain_validation import (
    cross_validate,
    fold_ids,
    judge_own_calibration,
    judge_probabilities,
    log_loss_difference,
    wilson_share,
)
from finsent.evaluation.evaluate import evaluate as measure
from finsent.evaluation.evaluate import read_benchmark
from finsent.evaluation.metrics import Answers, Floats, Ids
from finsent.evaluation.pictures import trust_lines
from finsent.evaluation.training_overlap import near_groups
from finsent.files import sha256_file, write_json
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine, apply_calibration, softmax
from finsent.labels import LABELS
from finsent.modeling.calibration import Calibration
from finsent.modeling.domain_calibration import (
    UNREACHABLE_THRESHOLD,
    DomainCalibration,
    DomainContent,
    ExportAnswers,
    Figure,
)
from finsent.modeling.label_map import ABSENT_LOGIT
from finsent.registry.calibration_lookup import find_calibration
from finsent.registry.calibrations import Calibrations
from finsent.registry.registry import Registry
from finsent.settings import Settings
from ray_jobs import calibrate, classify, evaluate, registry
from ray_jobs._cli import Finished, invoke
from tests.unit.datasets import manifest_content, split_content
from tests.unit.models import METRICS, TEXTS, domain_content, publish_domain, published, saved_model

DATASET = {"name": "seen", "version": "v1", "rows": 10}  # that the model was trained on
BIASES = (-0.2, 1.3, -1.1)
COLUMNS = {"text_column": "text", "label_column": "label"}
ENGINE = EngineConfig(backend="torch", precision="fp32", threads=1)


def shifted(rows: int, temperature: float, seed: int = 0) -> tuple[Floats, Ids]:
    """Return logits whose true probabilities have a temperature and `BIASES`."""
    random = np.random.default_rng(seed)
    logits = log_softmax(random.normal(0, 3, (rows, 3)), axis=1)
    shares = softmax(logits, temperature, BIASES).astype(float)
    truth = (shares.cumsum(1) < random.random((rows, 1))).sum(1)
    return logits, np.minimum(truth, 2).astype(np.int64)


def each(rows: int) -> Ids:
    """Return groups of one row."""
    return np.arange(rows)


# --- fitting --------------------------------------------------------------------------------------


def test_biases_and_temperature_of_a_domain_are_found() -> None:
    logits, truth = shifted(20_000, 1.0)
    found = fit(logits, truth, 0.9)
    assert found.temperature == pytest.approx(1.0, abs=0.05)
    assert found.biases == pytest.approx(BIASES, abs=0.06)
    assert sum(found.biases) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_a_temperature_without_a_shift_is_found(temperature: float) -> None:
    random = np.random.default_rng(1)
    logits = log_softmax(random.normal(0, 3, (20_000, 3)), axis=1)
    shares = softmax(logits, temperature).astype(float)
    truth = np.minimum((shares.cumsum(1) < random.random((20_000, 1))).sum(1), 2)
    found = fit(logits, truth.astype(np.int64), 0.9)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.biases == pytest.approx((0, 0, 0), abs=0.06)


def test_the_gradient_is_that_of_the_loss() -> None:
    logits, truth = shifted(50, 1.5)
    for seed in range(3):
        place = np.random.default_rng(seed).normal(0, 1, 3)
        error = check_grad(
            lambda b: bias_loss(b, logits, truth)[0],
            lambda b: bias_loss(b, logits, truth)[1],
            place,
        )
        assert error < 1e-4


def test_the_loss_has_the_value_of_a_hand() -> None:
    # One row of equal logits: -ln(1/3); a bias of 1 costs 1/2 by the prior.
    value, _ = bias_loss(np.zeros(3), np.zeros((1, 3)), np.array([1]))
    assert value == pytest.approx(np.log(3))
    value, _ = bias_loss(np.array([0.0, 1.0, 0.0]), np.zeros((1, 3)), np.array([1]))
    assert value == pytest.approx(0.5 - np.log(np.e / (np.e + 2)))


def test_a_label_without_rows_gets_a_finite_bias() -> None:
    logits, truth = shifted(200, 1.0)
    seen = truth != 0
    found = fit(logits[seen], truth[seen], 0.9)
    assert -5 < found.biases[0] < found.biases[1]


def test_rows_of_a_label_that_the_model_never_answers_do_not_matter() -> None:
    logits, truth = shifted(300, 1.0)
    logits[:, 0] = ABSENT_LOGIT / 20
    known = truth != 0
    found, alone = fit(logits, truth, 0.9), fit(logits[known], truth[known], 0.9)
    assert found.biases == pytest.approx(alone.biases)
    assert found.probabilities(logits)[:, 0].max() == 0


def test_where_no_threshold_reaches_the_accuracy_no_row_is_answered() -> None:
    logits, truth = shifted(100, 1.0)
    assert fit(logits, (truth + 1) % 3, 0.999).threshold == UNREACHABLE_THRESHOLD


def test_a_saturated_row_is_not_answered_where_none_is_to_be() -> None:
    content = domain_content(threshold=1.0, threshold_reason="no threshold reaches 0.9")
    both = DomainCalibration.of(content).on(Calibration(threshold=0.5))
    sure = softmax(np.array([[60.0, 0.0, 0.0]]), 1.0)
    assert sure.max() == 1.0 and both.threshold is not None
    assert sure.max() < both.threshold  # in fp32, as NumPy compares it
    assert float(sure.max()) < both.threshold
    truth = np.zeros(1, np.int64)
    assert not judge_probabilities(truth, sure, np.array([UNREACHABLE_THRESHOLD])).answered.any()
    assert selective(Answers(truth, sure).confidence, np.array([True]), both.threshold) == {
        "coverage": 0.0,
        "accuracy": None,
    }
    assert DomainContent(**content.model_dump()).threshold == 1.0  # what is stored, with a reason


def test_a_threshold_by_confidence_needs_more_than_luck() -> None:
    confidence, right = np.array([0.95, 0.9, 0.6, 0.5]), np.array([True] * 4)
    assert threshold_for(confidence, right, 0.9) == 0
    # Mean confidence of the first two: 0.925; of three: 0.817.
    assert threshold_for(confidence, right, 0.9, by_confidence=True) == pytest.approx(0.75)


def test_each_fold_has_its_part_of_each_label() -> None:
    truth = np.array([0] * 20 + [1] * 30 + [2] * 10)
    ids = fold_ids(truth, each(60), 10)
    for label, rows in ((0, 2), (1, 3), (2, 1)):
        assert np.bincount(ids[truth == label], minlength=10).tolist() == [rows] * 10


def test_near_copies_are_in_one_fold() -> None:
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(25), 4))
    ids = fold_ids(np.tile([0, 1, 2, 2], 25), groups, 10)
    folds = [np.unique(ids[groups == group]).tolist() for group in range(25)]
    assert {len(fold) for fold in folds} == {1}
    assert sorted(np.bincount(np.ravel(folds))) == [2] * 5 + [3] * 5


def test_near_copies_are_groups() -> None:
    texts = ["Profit rose to 13.1 million euros in the third quarter, the company said"]
    texts += ["The annual meeting will be held on the fourth of May in Helsinki", "Up"]
    texts += [f"RT @desk: {texts[0]}", f"{texts[0]} today", "Sales fell", "Up"]
    found = near_groups(pa.chunked_array([texts]), NearConfig())
    assert len(set(found.tolist())) == 5  # "Up" is too short to be near
    assert found[0] == found[3] == found[4]
    off = near_groups(pa.chunked_array([texts]), NearConfig(enabled=False))
    assert off.tolist() == [*range(7)]


@pytest.mark.parametrize("seed", range(4))
def test_labels_drawn_from_the_model_s_own_probabilities_leave_nothing_to_gain(seed: int) -> None:
    """Without groups, 30 of 40 such draws of 20 texts in ten near copies are a gain."""
    random = np.random.default_rng(seed)
    logits = log_softmax(random.normal(0, 2, (20, 3)), axis=1)
    truth = (np.exp(logits).cumsum(1) < random.random((20, 1))).sum(1)
    truth = np.minimum(truth, 2).astype(np.int64).repeat(10)
    # Retweets hardly change what the model answers.
    near = logits.repeat(10, 0) + random.normal(0, 0.05, (200, 3))
    groups = np.arange(20).repeat(10)
    before = judge_own_calibration(near, truth, None).answers
    after = cross_validate(near, truth, groups, 5, 0.9).answers
    assert no_gain(log_loss_difference(before, after, groups, 100, 0)) is not None


def test_few_texts_in_many_copies_are_too_few() -> None:
    logits, truth = shifted(20, 1.0)
    rows, groups = np.arange(20).repeat(10), np.arange(20).repeat(10)
    found = too_few(logits[rows], truth[rows], groups, CalibrateConfig(min_label_rows=15))
    assert found[0] == (
        "20 rows (of 200, the others are near copies) are too few, 100 are needed "
        "(calibrate.min_rows)"
    )
    counts = np.bincount(truth, minlength=3)
    assert f"{counts[0]} rows are negative, 15 are needed" in found[1]


def test_cross_validation_promises_no_more_than_new_rows_hold() -> None:
    logits, truth = shifted(300, 1.6)
    promised = cross_validate(logits, truth, each(len(truth)), 10, 0.9)
    new_logits, new_truth = shifted(20_000, 1.6, seed=9)
    held = Answers(new_truth, fit(logits, truth, 0.9).probabilities(new_logits)).measure()
    found = promised.measure(each(300), 200, 0)
    for name in ("accuracy", "macro_f1", "log_loss"):
        figure = getattr(found, name)
        assert figure.interval[0] < held[name] < figure.interval[1]
    before = judge_own_calibration(logits, truth, None)
    assert before.measure(each(300), 200, 0).coverage is None
    gain = log_loss_difference(before.answers, promised.answers, each(300), 200, 0)
    assert no_gain(gain) is None


def test_a_calibration_of_what_needs_none_is_no_gain() -> None:
    random = np.random.default_rng(3)
    logits = log_softmax(random.normal(0, 3, (200, 3)), axis=1)
    truth = (np.exp(logits).cumsum(1) < random.random((200, 1))).sum(1)
    truth = np.minimum(truth, 2).astype(np.int64)
    found = cross_validate(logits, truth, each(len(truth)), 10, 0.9)
    before = judge_own_calibration(logits, truth, None).answers
    gain = log_loss_difference(before, found.answers, each(200), 200, 0)
    assert "no clear gain" in str(no_gain(gain))


def test_a_share_has_wilsons_interval() -> None:
    found = wilson_share(18, 20, 20)  # Newcombe 1998's formula, by hand: (0.699, 0.972)
    assert found.value == 0.9
    assert found.interval == pytest.approx((0.699, 0.972), abs=5e-4)
    assert wilson_share(90, 100, 20) == found  # five copies of each tell no more
    assert wilson_share(0, 0, 0) == Figure(value=None, interval=None)


@pytest.mark.parametrize(
    ("coverage", "interval", "doubt"),
    [
        (0.5, (0.8, 0.95), None),
        (0.05, (0.8, 0.95), "answered only 10 of 200 rows"),
        (0.5, (0.7, 0.85), "0.800 (0.700 to 0.850) of the answered rows are right, 0.9 are wanted"),
    ],
)
def test_doubts_about_a_threshold_are_said(
    coverage: float, interval: tuple[float, float], doubt: str | None
) -> None:
    content = domain_content(rows=200)
    answered = Figure(value=0.8, interval=interval)
    after = content.after.replaced(coverage=coverage, answered=answered)
    found = DomainCalibration.of(domain_content(rows=200, texts=200, after=after))
    lines = gain_lines(found)
    assert lines[:2] == [
        "temperature 2.000, biases negative -0.20, neutral +1.30, positive -1.10",
        "abstains below 0.800, for an accuracy of 0.9",
    ]
    copies = DomainCalibration.of(domain_content(rows=200, texts=20, after=after))
    if coverage == 0.5:  # ten rows, where near copies count as one
        assert "answered only 10 of 20 rows, where near copies" in gain_lines(copies)[2]
    assert ([] if doubt is None else [doubt in lines[2]]) == [True] * len(lines[2:])


# --- where it is kept -----------------------------------------------------------------------------


def test_it_comes_after_the_versions_own_calibration() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (50, 3)).astype(np.float32)
    both = DomainCalibration.of(domain_content()).on(Calibration(temperature=1.7, threshold=0.3))
    own_log = np.log(softmax(logits, 1.7).astype(float))
    expected = Fit(2.0, BIASES, 0.8).probabilities(own_log)
    assert softmax(logits, both.temperature, both.biases) == pytest.approx(expected, abs=1e-5)
    assert (both.threshold, both.name) == (0.8, "tweets")


@pytest.mark.parametrize("own", [Calibration(), Calibration(1.7), Calibration(1.7, folded=2.0)])
def test_logits_that_are_shown_have_the_probabilities_as_softmax(own: Calibration) -> None:
    logits = np.random.default_rng(0).normal(0, 4, (50, 3)).astype(np.float32)
    for used in (own, DomainCalibration.of(domain_content()).on(own)):
        expected = softmax(logits, used.temperature, used.biases)
        assert softmax(apply_calibration(logits, used), 1.0) == pytest.approx(expected, abs=1e-5)


def test_a_replaced_calibration_is_kept(tmp_path: Path) -> None:
    store = Calibrations(tmp_path, "0123456789ab")
    first = store.publish(DomainCalibration.of(domain_content()))
    assert store.get("tweets", "x") == first
    assert store.publish(DomainCalibration.of(domain_content())) == first  # the same stays
    second = store.publish(DomainCalibration.of(domain_content(temperature=3.0)))
    assert (second.previous, store.names()) == ((first.id,), ["tweets"])
    assert store.get("tweets", "x").temperature == 3.0
    kept = store.folder / "previous" / f"tweets-{first.id}.json"
    assert json.loads(kept.read_text())["temperature"] == 2.0
    assert not store.path("tweets").stat().st_mode & 0o222


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"temperature": 1.5}, "is not the digest"),
        ({"temperature": -1}, "greater than 0"),
        ({"biases": dict.fromkeys(LABELS, 1.0)}, "do not sum to 0"),
        ({"schema_version": 2}, "schema_version"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    store = Calibrations(tmp_path, "0123456789ab")
    store.publish(DomainCalibration.of(domain_content()))
    path = store.path("tweets")
    found = json.loads(path.read_text()) | change
    path.unlink()
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=f"tweets.json: is damaged .*{problem}"):
        store.get("tweets", "x")


def test_a_calibration_of_another_version_is_refused(tmp_path: Path) -> None:
    store = Calibrations(tmp_path, "0123456789ab")
    store.publish(DomainCalibration.of(domain_content()))
    other = Calibrations(tmp_path, "ffffffffffff")
    store.folder.rename(other.folder)
    with pytest.raises(InputError, match="of model version 0123456789ab"):
        other.get("tweets", "x")
    with pytest.raises(InputError, match=r"evaluate.calibration='news': .*known: tweets"):
        other.get("news", "evaluate.calibration")


def test_a_domain_is_compared_with_the_models_own_calibration(tiny: Path, tmp_path: Path) -> None:
    model = saved_model(tiny, tmp_path / "model")
    rule = {"threshold": 0.1, "wanted_accuracy": 0.8}
    own = {"schema_version": 1, "temperature": 2.5, "abstention": rule}
    write_json(model / "calibration.json", own)
    columns = {"key": TEXTS, "text": TEXTS, "label": ["neutral"] * len(TEXTS)}
    config = EvaluateConfig(behavior=None, bootstrap=100)
    content = domain_content(threshold=1.0, threshold_reason="no threshold reaches 0.9")
    plain, adapted = (
        measure(Engine(model, ENGINE, domain=domain), pa.table(columns), None, None, config)
        for domain in (None, DomainCalibration.of(content))
    )
    found = adapted["calibration"]
    assert (found["name"], found["biases"]) == ("tweets", content.biases)
    assert found["temperature"] == pytest.approx(2.0)
    for key in ("ece", "log_loss"):
        assert found[f"{key}_before"] == plain["calibration"][f"{key}_after"] == plain[key]
        assert found[f"{key}_after"] == adapted[key] != plain[key]
    assert adapted["reliability_before"] == plain["reliability"]
    assert (plain["calibration"]["name"], plain["calibration"]["temperature"]) == (None, 2.5)
    assert trust_lines(adapted)[1:] == [
        "calibration tweets, temperature 2.000, biases negative -0.20, neutral +1.30, positive "
        f"-1.10: ECE of these rows {plain['ece']:.3f} by the model's own calibration, "
        f"{adapted['ece']:.3f} by tweets",
        "abstains from every row: no threshold reaches 0.9",
    ]
    assert trust_lines(plain)[1].startswith("temperature 2.500: ECE of these rows ")


def test_kept_exports_are_compared_under_the_calibration(tiny: Path, tmp_path: Path) -> None:
    registry = published(tiny, tmp_path, EngineConfig(precision="fp32", threads=1))
    engine = Engine(registry.get("champion").path, ENGINE)
    logits = calibrated_logits(engine, TEXTS)
    found = compare_exports(engine, TEXTS, logits, 2.0, BIASES, 0.6)
    assert found["onnxruntime-fp32"] == ExportAnswers(same_labels=1, same_abstentions=1)
    # Other logits than the export's stand for an engine that answers otherwise.
    other = compare_exports(engine, TEXTS, logits[:, [1, 2, 0]], 1.0, (0, 0, 0), 0.0)
    assert other["onnxruntime-fp32"] == ExportAnswers(same_labels=0, same_abstentions=1)
    flat = compare_exports(engine, TEXTS, logits * 1e-9, 1.0, (0, 0, 0), 1 / 3 + 1e-3)
    assert flat["onnxruntime-fp32"].same_abstentions < 1
    lines = gain_lines(DomainCalibration.of(domain_content(exports=other)))
    words = "onnxruntime-fp32: label of 0.0% and abstention of 100.0% of the rows as torch-fp32"
    assert any(words in line for line in lines)


# --- jobs -----------------------------------------------------------------------------------------


def written(path: Path, texts: list[str], labels: list[str]) -> str:
    lines = [json.dumps({"text": t, "label": n}) for t, n in zip(texts, labels, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def domain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, str, str]:
    """Return a registry, rows of a domain whose labels the champion confuses, and other rows."""
    folder = tmp_path_factory.mktemp("domain")
    found = Registry(folder / "registry")
    model = saved_model(tiny, folder / "model", dataset=DATASET)
    found.promote(found.publish(model, METRICS, {}).version, "champion")
    words = " ".join(TEXTS).split()
    random = np.random.default_rng(0)
    texts = sorted({" ".join(random.choice(words, 6)) for _ in range(160)})
    labels = [one.label for one in Engine(found.get("champion").path, ENGINE).classify(texts)]
    # What the model calls by its usual label is any label here.
    usual = max(set(labels), key=labels.count)
    rest = [label for label in LABELS if label != usual]
    mixed = [rest[i % 2] if i % 3 else usual for i in range(len(texts))]
    rows = written(folder / "rows.jsonl", [*texts[:120], texts[0]], [*mixed[:120], mixed[0]])
    return found, rows, written(folder / "others.jsonl", texts[120:], mixed[120:])


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
    shown = job(registry, store, "show", "champion")
    assert shown.result["calibrations"][0]["biases"] == made.result["biases"]

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
    filled = [one.replace("ROWS", rows).replace("OTHERS", others) for one in arguments]
    found = job(calibrate, store, *filled)
    assert found.code == 2
    [line] = [line for line in found.err.splitlines() if line.startswith("error:")]
    assert re.search(problem, line), line


def test_force_publishes_and_records_why(domain: tuple[Registry, str, str]) -> None:
    store, _, others = domain
    found = job(calibrate, store, "name=few", f"calibrate.sources=[{others}]", "force=true")
    assert found.code == 0, found.err
    assert "40 rows are too few" in found.result["refusal"]
    single = written(store.root.parent / "single.jsonl", ["Up"], ["positive"])
    found = job(calibrate, store, "name=few", f"calibrate.sources=[{single}]", "force=true")
    assert found.code == 0, found.err
    assert len(found.result["previous"]) == 1


def test_a_model_that_is_not_published_has_no_calibration(
    domain: tuple[Registry, str, str],
) -> None:
    store, _, _ = domain
    model = store.root.parent / "model"
    found = job(classify, store, f"classify.model={model}", "classify.calibration=x", "--", "Up")
    assert found.code == 2
    assert "is not a published version" in found.err


def test_a_promotion_says_which_calibrations_are_lost(
    domain: tuple[Registry, str, str], tiny: Path
) -> None:
    store, _, _ = domain
    old = store.get("champion").version
    new = store.publish(saved_model(tiny, store.root.parent / "next", 4), METRICS, {}).version
    store.promote(old, "stable")
    publish_domain(store, name="lost")
    found = job(registry, store, "promote", new, "stable")
    assert found.code == 0, found.err
    [line] = [line for line in found.err.splitlines() if "lacks calibrations" in line]
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
    found = find_calibration(
        Registry(settings.workspace.registry),
        store.get("champion").path,
        name,
        "classify.calibration",
    )
    assert found is not None and found.name == name
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
        found = job(calibrate, store, "name=fewer", f"calibrate.sources=[{rows}]")
        shutil.rmtree(folder)
        if problem:
            assert (found.code, problem in found.err) == (2, True), found.err
        else:
            assert found.result["rows"] == len(table) - count - 3
            assert "left out 10 rows that the model was trained on" in found.err
            assert "left out 3 near copies of rows that the model was trained on" in found.err
