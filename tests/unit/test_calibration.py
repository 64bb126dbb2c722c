"""A temperature that makes confidence true, a threshold that keeps its word, safe defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finsent.errors import InputError
from finsent.evaluation.abstention import risk_coverage, selective, threshold_for
from finsent.evaluation.calibration import (
    MIN_ROWS,
    calibrate,
    calibration_line,
    calibration_of,
    fit_temperature,
    log_loss,
)
from finsent.evaluation.metrics import Answers
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine, softmax
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.calibration import (
    CalibrationFit,
    CalibrationRecord,
    read_calibration,
    read_calibration_record,
)
from finsent.modeling.classifier import load_tokenizer, new_classifier, save_classifier
from finsent.modeling.label_map import ABSENT_LOGIT
from finsent.modeling.model_dir import fingerprint
from finsent.modeling.provenance import Provenance

pytestmark = pytest.mark.cost(1, "simulates many samples")

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


def simulated(rows: int, temperature: float, seed: int = 0) -> tuple[Logits, Ids]:
    """Logits that are right only when divided by a temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2 * temperature, (rows, 3)).astype(np.float32)
    shares = softmax(logits, temperature).astype(float)
    truth = (shares.cumsum(1) < random.random((rows, 1))).sum(1)
    return logits, np.minimum(truth, 2).astype(np.int64)


# --- temperature ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 7.0])
def test_the_temperature_that_spoilt_the_logits_is_found(temperature: float) -> None:
    logits, truth = simulated(4000, temperature)
    fitted, reason = fit_temperature(logits, truth)
    assert reason is None
    assert fitted == pytest.approx(temperature, rel=0.08)
    grid = np.exp(np.linspace(np.log(0.1), np.log(15), 2000))
    best = min(grid, key=lambda t: log_loss(logits, truth, float(t)))
    assert fitted == pytest.approx(best, rel=0.01)


def test_calibration_lowers_ece_and_moves_no_label() -> None:
    fitted, unseen = simulated(1500, 3.0, seed=1), simulated(1500, 3.0, seed=2)
    calibration = calibration_of(*fitted, 0.9)
    assert calibration.log_loss_after is not None and calibration.log_loss_before is not None
    assert calibration.log_loss_after < calibration.log_loss_before
    assert calibration.ece_after is not None and calibration.ece_before is not None
    assert calibration.ece_after < 0.03 < 0.15 < calibration.ece_before
    logits, truth = unseen
    raw, scaled = (Answers(truth, softmax(logits, t)) for t in (1.0, calibration.temperature))
    assert np.array_equal(raw.predicted, scaled.predicted)
    raw_ece, scaled_ece = raw.measure().ece, scaled.measure().ece
    assert raw_ece is not None and scaled_ece is not None
    assert scaled_ece < 0.05 < raw_ece


def test_rows_that_a_model_never_answers_right_do_not_move_the_temperature() -> None:
    """A model of two labels: its temperature is that of the rows that it can answer."""
    logits, truth = simulated(2000, 2.0)
    logits[:, 1] = ABSENT_LOGIT
    answerable = truth != 1
    expected = calibration_of(logits[answerable], truth[answerable], 0.9)
    calibration = calibration_of(logits, truth, 0.9)
    assert calibration.temperature == expected.temperature
    assert calibration.reason is None
    # Abstention counts all rows: those are wrong answers, too.
    rule = calibration.abstention
    confidence = softmax(logits, calibration.temperature).max(1)
    expected_threshold = threshold_for(confidence, logits.argmax(1) == truth, 0.9)
    assert rule.threshold == expected_threshold


def all_right(rows: int) -> tuple[Logits, Ids]:
    truth = np.arange(rows) % 3
    return (np.eye(3, dtype=np.float32)[truth] * 4), truth


def all_one_label(rows: int) -> tuple[Logits, Ids]:
    return simulated(rows, 1.0)[0], np.full(rows, 2, np.int64)


def not_finite(rows: int) -> tuple[Logits, Ids]:
    logits, truth = simulated(rows, 1.0)
    logits[3, 1] = np.nan
    return logits, truth


def opposite(rows: int) -> tuple[Logits, Ids]:
    """Worse than chance: the flatter, the better, without end."""
    truth = np.arange(rows) % 3
    return (-np.eye(3, dtype=np.float32)[truth]), truth


@pytest.mark.parametrize(
    ("logits", "truth", "words"),
    [
        (*simulated(MIN_ROWS - 1, 3.0), f"{MIN_ROWS - 1} rows are too few"),
        (np.zeros((0, 3), np.float32), np.zeros(0, np.int64), "0 rows are too few"),
        (*all_right(100), "all rows are right"),
        (*opposite(100), "no minimum"),
        (*all_one_label(100), "all rows are positive"),
        (*not_finite(100), "not finite"),
    ],
    ids=["few rows", "no rows", "all right", "all wrong", "one label", "not finite"],
)
def test_rows_that_say_nothing_leave_the_temperature_at_one(
    logits: Logits, truth: Ids, words: str
) -> None:
    temperature, reason = fit_temperature(logits, truth)
    assert temperature == 1.0
    assert words in str(reason)


@pytest.mark.parametrize("rows", [0, 7, MIN_ROWS - 1])
def test_few_rows_give_a_calibration_that_changes_nothing(rows: int) -> None:
    calibration = calibration_of(*simulated(rows, 3.0), 0.5)
    assert (calibration.temperature, calibration.abstention.threshold) == (1.0, None)
    assert CalibrationRecord.model_validate_json(calibration.model_dump_json()) == calibration
    line = calibration_line(calibration)
    assert line.startswith(f"temperature 1 ({rows} rows are too few")
    assert "no abstention threshold" in line


# --- abstention -----------------------------------------------------------------------------------

Rated = list[tuple[float, bool]]
rated = st.lists(
    st.tuples(st.sampled_from([i / 20 for i in range(7, 21)]), st.booleans()),
    min_size=1,
    max_size=40,
)


@given(rated, st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_threshold_answers_as_many_as_it_can(rows: Rated, wanted: float) -> None:
    confidence = np.array([c for c, _ in rows])
    right = np.array([r for _, r in rows])
    threshold = threshold_for(confidence, right, wanted)
    possible = [
        (confidence >= t).mean()
        for t in set(confidence.tolist())
        if right[confidence >= t].mean() >= wanted
    ]
    if not possible:
        assert threshold is None
        return
    assert threshold is not None
    assert (confidence >= threshold).mean() == max(possible)
    accuracy = selective(confidence, right, threshold).accuracy
    assert accuracy is not None and accuracy >= wanted
    assert (threshold == 0) == (max(possible) == 1)
    assert 0 <= threshold <= 1


@given(rated)
def test_curve_runs_to_all_rows(rows: Rated) -> None:
    confidence = np.array([c for c, _ in rows])
    right = np.array([r for _, r in rows])
    curve = risk_coverage(confidence, right)
    for point in curve:
        answered = confidence >= point.threshold
        assert point.coverage == pytest.approx(answered.mean())
        assert point.accuracy == pytest.approx(right[answered].mean())
    coverages = [point.coverage for point in curve]
    assert coverages == sorted(set(coverages))
    assert coverages[-1] == 1
    assert len(curve) == len(set(confidence.tolist()))


def test_long_curve_is_thinned() -> None:
    random = np.random.default_rng(0)
    curve = risk_coverage(random.random(5000), random.random(5000) < 0.8)
    assert len(curve) == 100
    assert curve[-1].coverage == 1
    assert np.diff([p.coverage for p in curve]).max() < 0.011


def test_no_rows_are_never_answered() -> None:
    none = np.zeros(0)
    assert threshold_for(none, none.astype(bool), 0.5) is None
    assert risk_coverage(none, none.astype(bool)) == ()
    assert selective(none, none.astype(bool), 0.5) == (None, None)


def test_threshold_keeps_its_word_on_other_rows() -> None:
    rule = calibration_of(*simulated(4000, 2.0, seed=3), 0.9)
    threshold = rule.abstention.threshold
    assert rule.abstention.coverage is not None
    assert 0.3 < rule.abstention.coverage < 0.95
    logits, truth = simulated(4000, 2.0, seed=4)
    answers = Answers(truth, softmax(logits, rule.temperature))
    measured = selective(answers.confidence, answers.right, threshold)
    assert measured.accuracy == pytest.approx(0.9, abs=0.02)
    assert measured.coverage == pytest.approx(rule.abstention.coverage, abs=0.03)
    assert answers.right.mean() < 0.85


def test_accuracy_out_of_reach_is_said() -> None:
    random = np.random.default_rng(5)
    logits = random.normal(0, 2, (500, 3)).astype(np.float32)
    logits[0] = [-9, 9, -9]  # the surest row is wrong
    truth = random.integers(0, 3, 500)
    truth[0] = 0
    calibration = calibration_of(logits, truth, 1.0)
    assert calibration.abstention.threshold is calibration.abstention.coverage is None
    assert "no threshold reaches an accuracy of 1" in calibration_line(calibration)


# --- in a model's directory -----------------------------------------------------------------------

TEXTS = ["Profit rose.", "The shares fell 8 %.", "The meeting is on 4 May.", "order " * 30]


@pytest.fixture(autouse=True, scope="module")
def keep_threads() -> Iterator[None]:
    """An engine sets the process's number of compute threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model_dir(tiny: Path, tmp_path: Path) -> Path:
    model = new_classifier(Backbone("tiny", str(tiny)), seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(20)
    save_classifier(model, load_tokenizer(str(tiny)), tmp_path / "model", Provenance(max_length=48))
    return tmp_path / "model"


def engine(model_dir: Path) -> Engine:
    return Engine(model_dir, EngineConfig(threads=1))


def write(model_dir: Path, **changed: Any) -> None:
    record = {"schema_version": 1, "temperature": 2.0, "abstention": {"threshold": 0.6}}
    (model_dir / "calibration.json").write_text(json.dumps(record | changed))


def test_model_without_a_calibration_is_as_before(model_dir: Path) -> None:
    plain = engine(model_dir)
    assert (plain.temperature, plain.threshold) == (1.0, None)
    expected = torch.from_numpy(plain.logits(TEXTS)).softmax(-1).numpy()
    assert plain.probabilities(TEXTS) == pytest.approx(expected, abs=1e-6)
    assert not any(p.abstained for p in plain.classify(TEXTS))


def test_engine_divides_by_the_temperature_and_abstains_below_the_threshold(
    model_dir: Path,
) -> None:
    raw = engine(model_dir).logits(TEXTS)
    expected = torch.from_numpy(raw / 2).softmax(-1).numpy()
    surest = np.sort(expected.max(1))
    write(model_dir, abstention={"threshold": float(surest[1:3].mean())})
    loaded = engine(model_dir)
    assert loaded.logits(TEXTS) == pytest.approx(raw)
    assert loaded.probabilities(TEXTS) == pytest.approx(expected, abs=1e-6)
    predictions = loaded.classify(TEXTS)
    assert [p.abstained for p in predictions] == (expected.max(1) < surest[1:3].mean()).tolist()
    assert sum(p.abstained for p in predictions) == 2
    assert all(p.score == max(p.probabilities.values()) for p in predictions)


def test_calibration_is_written_beside_the_model_and_used(model_dir: Path) -> None:
    random = np.random.default_rng(0)
    texts = [
        f"Unit {i}: profit {'rose' if i % 2 else 'fell'}{' again' * (i % 9)}" for i in range(120)
    ]
    before = engine(model_dir)
    truth = before.logits(texts).argmax(1)
    wrong = random.random(120) < 0.3
    truth[wrong] = random.integers(0, 3, int(wrong.sum()))
    rows = pa.table({"text": texts, "label": [LABELS[i] for i in truth]})
    calibration = calibrate(
        before, rows, 0.6, {"dataset_version": "0123abcd", "split": "validation"}
    )
    assert calibration.rows == 120
    stored = json.loads((model_dir / "calibration.json").read_text())
    assert stored == calibration.model_dump(mode="json")
    after = engine(model_dir)
    assert after.temperature == calibration.temperature == 1  # the weights have it
    assert after.folded == after.calibration.fitted == calibration.folded_temperature
    assert after.folded > 1.05
    record = read_calibration_record(model_dir)
    assert record is not None
    assert record == calibration
    assert after.calibration.fit == CalibrationFit(
        dataset_version="0123abcd",
        split="validation",
        rows=120,
        reason=None,
        ece_before=calibration.ece_before,
        ece_after=calibration.ece_after,
        wanted_accuracy=0.6,
        threshold_reason=calibration.abstention.reason,
    )
    assert after.uncalibrated(after.logits(texts)) == pytest.approx(before.logits(texts), rel=1e-5)
    ids = np.array([LABELS.index(label) for label in rows["label"].to_pylist()])
    measured = Answers(ids, after.probabilities(texts)).measure()
    assert measured.ece == pytest.approx(calibration.ece_after, abs=1e-4)
    files = fingerprint(model_dir)
    again = calibrate(after, rows, 0.6, {"dataset_version": "0123abcd", "split": "validation"})
    assert again == calibration  # on raw logits, whatever the engine's temperature was
    assert fingerprint(model_dir) == files


def test_many_rows_are_sampled(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finsent.evaluation.calibration._MAX_ROWS", 60)
    texts = [f"Unit {i} opened" for i in range(90)]
    rows = pa.table({"text": texts, "label": [LABELS[i % 3] for i in range(90)]})
    calibration = [calibrate(engine(model_dir), rows, 0.9, {}) for _ in range(2)]
    assert calibration[0].rows == 60
    assert calibration[0] == calibration[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[1]", "the file: Input should be a valid dictionary"),
        ('{"schema_version": 2, "temperature": 1}', "schema_version: Input should be 1"),
        ('{"schema_version": 1}', "temperature: Field required"),
        ('{"schema_version": 1, "temperature": 0}', "temperature: Input should be greater than 0"),
        (
            '{"schema_version": 1, "temperature": true}',
            "temperature: Input should be a valid",
        ),
        ('{"schema_version": 1, "temperature": NaN}', "temperature: Input should be"),
        (
            '{"schema_version": 1, "temperature": "2"}',
            "temperature: Input should be a valid",
        ),
        ('{"schema_version": 1, "temperature": 2}', "abstention: Field required"),
        (
            '{"schema_version": 1, "temperature": 2, "abstention": {"threshold": 1.5}}',
            "abstention.threshold: Input should be less than or equal to 1",
        ),
    ],
)
def test_damaged_calibration_is_refused_with_the_remedy(
    model_dir: Path, content: str, words: str
) -> None:
    (model_dir / "calibration.json").write_text(content)
    for action in (read_calibration, engine):
        with pytest.raises(InputError) as caught:
            action(model_dir)
        text = str(caught.value)
        assert text.startswith(f"{model_dir / 'calibration.json'}: ")
        assert words in text
        assert words == "not valid JSON" or "Delete the file to use the model uncalibrated" in text
