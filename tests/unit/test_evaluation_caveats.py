"""What evaluation says besides figures: seen rows, cut texts, absent labels, broken promises."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from finsent.config import load
from finsent.data.config import DataConfig, NearConfig, SourceConfig
from finsent.data.versions.dataset import DatasetVersion
from finsent.evaluation import training_overlap
from finsent.evaluation.caveats import caveats, comparison_caveats
from finsent.evaluation.evaluate import promise, read_benchmark
from finsent.evaluation.metrics import Answers
from finsent.evaluation.pictures import agreement_table, trust_lines
from finsent.evaluation.slices import agreement_levels
from finsent.evaluation.training_overlap import TrainingRows, find_overlap
from finsent.inference.encoder import Encoded, Encoder
from finsent.inference.truncation import count_truncation
from finsent.inference.truncation_record import truncation_line
from finsent.metrics_record import EvaluationMetrics, OverlapCounts
from finsent.modeling.backbone import Backbone
from finsent.modeling.config import ModelConfig
from finsent.settings import Settings
from finsent.training.config import TrainConfig
from finsent.training.split_summary import summarize_splits
from finsent.training.task import make_task
from tests.unit.dataset_versions import Row, write
from tests.unit.evaluations import comparison, evaluation, truncation

LONG = "Operating profit of the third quarter rose to 13.1 million euros from 8.7 million euros"


def rows(*texts: str) -> pa.Table:
    return pa.table({"key": [f"key of {text}" for text in texts], "text": list(texts)})


# --- rows that the model was trained on -----------------------------------------------------------


def test_exact_and_near_rows_are_told_apart() -> None:
    training = TrainingRows(rows(LONG, "Sales fell", "Nothing was decided at the meeting"), None)
    asked = rows(LONG, f"{LONG} last year", "The dividend stays", "Sales fell", "A new plant opens")
    overlap = find_overlap(asked, training, NearConfig())
    assert overlap.exact is not None and overlap.near is not None and overlap.seen is not None
    assert overlap.exact.tolist() == [True, False, False, True, False]
    assert overlap.near.tolist() == [False, True, False, False, False]
    assert overlap.seen.tolist() == [True, True, False, True, False]
    assert overlap.counts() == OverlapCounts(rows=2, near_copies=1, reason=None)


def test_near_copies_among_the_evaluated_rows_are_no_overlap() -> None:
    overlap = find_overlap(
        rows(LONG, f"{LONG} last year"), TrainingRows(rows("Sales fell"), None), NearConfig()
    )
    assert overlap.counts() == OverlapCounts(rows=0, near_copies=0, reason=None)


def test_what_is_not_looked_for_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    one_row, training = rows(LONG), TrainingRows(rows(f"{LONG} last year"), None)
    assert find_overlap(one_row, TrainingRows(), NearConfig()).counts() == OverlapCounts(
        rows=None, near_copies=None, reason="the model was trained elsewhere"
    )
    off = find_overlap(one_row, training, NearConfig(enabled=False)).counts()
    assert (off.rows, off.near_copies) == (0, None)
    assert "data.near_duplicates.enabled=false" in (off.reason or "")
    monkeypatch.setattr(training_overlap, "MAX_NEAR_ROWS", 1)
    assert find_overlap(one_row, training, NearConfig()).counts().near_copies is None


# --- cut texts ------------------------------------------------------------------------------------


def test_tokens_left_out_are_those_beyond_the_cut(tiny: Path) -> None:
    encoder = Encoder(tiny, 8)
    texts = ["Up", LONG, f"{LONG} {LONG}"]
    lengths = [len(encoder.tokens(text, special=True)) for text in texts]
    for side in ("right", "left"):
        encoded = encoder(texts, side)
        assert [len(text.ids) + text.cut_tokens for text in encoded] == lengths
        assert (
            [text.truncated for text in encoded] == [n > 8 for n in lengths] == [False, True, True]
        )
    record = count_truncation(encoder(texts, "right"), 8)
    assert (record.rows, record.cut, record.tokens) == (3, 2, sum(lengths))
    assert record.left_out == sum(n - 8 for n in lengths[1:])
    assert record.left_out_share == pytest.approx(record.left_out / sum(lengths))


def test_cut_texts_are_said_with_a_remedy() -> None:
    encoded = [Encoded([1] * 8, 24), Encoded([1] * 8), Encoded([1] * 8), Encoded([1] * 8)]
    assert truncation_line(count_truncation(encoded, 8)) == (
        "1 of 4 texts (25.0%) are longer than the model's 8 tokens and are cut: 42.9% of all "
        "tokens are left out. Train with a larger model.max_length, or split long texts."
    )
    assert truncation_line(count_truncation(encoded[1:], 8)) is None
    rare = truncation(8, 5000, 1, 40_000, 2)
    line = truncation_line(rare)
    assert line is not None and line.startswith("1 of 5,000 texts (less than 0.1%) are longer")
    assert truncation_line(count_truncation([], 8)) is None


# --- the promised accuracy ------------------------------------------------------------------------


def sure(right: int, wrong: int, doubtful: int = 0) -> Answers:
    """Answers of confidence 0.9, right and wrong, and doubtful ones of 0.4."""
    truth = np.zeros(right + wrong + doubtful, np.int64)
    rows = [[0.9, 0.05, 0.05]] * right + [[0.05, 0.9, 0.05]] * wrong + [[0.4, 0.3, 0.3]] * doubtful
    return Answers(truth, np.array(rows))


@pytest.mark.parametrize(
    ("answers", "holds"),
    [(sure(390, 110, 100), False), (sure(46, 4, 10), True), (sure(17, 3), None)],
    ids=["0.78 of 500", "0.92 of 50", "0.85 of 20"],
)
def test_promise_is_judged_by_an_interval(answers: Answers, holds: bool | None) -> None:
    promised = promise(answers, 0.8, 0.9)
    assert promised.holds is holds
    assert promised.answered == (answers.confidence > 0.8).sum()
    assert promised.interval is not None
    low, high = promised.interval
    assert low < answers.right[answers.confidence > 0.8].mean() < high


@pytest.mark.parametrize(("threshold", "wanted"), [(None, 0.9), (0.95, 0.9), (0.8, None)])
def test_nothing_is_promised_without_threshold_answers_or_target(
    threshold: float | None, wanted: float | None
) -> None:
    assert promise(sure(5, 5), threshold, wanted).holds is None


# --- agreement ------------------------------------------------------------------------------------


def test_agreement_has_a_line_per_level() -> None:
    shares = [0.5, 0.5, 0.66, 0.75, 1.0, 1.0, None]
    table = pa.table(
        {"text": ["a text"] * 7, "agreement": pa.array(shares, pa.float32())},
    )
    truth = np.array([0, 1, 2, 0, 0, 1, 2])
    predicted = np.array([0, 0, 2, 0, 0, 1, 0])
    levels = agreement_levels(table, truth, predicted)
    assert [(level.level, level.rows, level.accuracy) for level in levels] == [
        ("below 0.66", 2, 0.5),
        ("0.66 to 0.75", 1, 1.0),
        ("0.75 to 1", 1, 1.0),
        ("all", 2, 1.0),
    ]
    assert [level.annotators for level in levels] == pytest.approx([0.5, 0.66, 0.75, 1.0])
    assert agreement_levels(table.select(["text"]), truth, predicted) == ()
    assert agreement_table(()) is None
    assert agreement_table(levels) is not None


# --- sentences ------------------------------------------------------------------------------------

SCORES = Answers(np.array([0, 1, 2]), np.eye(3)).measure()
RESULT: dict[str, Any] = {
    "model_dir": "/r/versions/0123456789ab",
    "model_version": "0123456789ab",
    "sources": ["a.csv", "b.csv"],
    "rows": 400,
    "macro_f1": 0.953,
    "accuracy": 0.96,
    "macro_over": ["negative", "neutral", "positive"],
    "confusion": [[100, 0, 0], [0, 200, 0], [0, 16, 84]],
    "seen_in_training": 0,
    "overlap": {"rows": 0, "near_copies": 0, "reason": None, "unseen": None},
    "truncation": truncation(128, 400, 0, 8000, 0),
    "abstention": {
        "wanted_accuracy": 0.9,
        "threshold": 0.7,
        "coverage": 0.9,
        "accuracy": 0.97,
        "interval": [0.95, 0.98],
        "holds": True,
        "reason": None,
    },
    "noise_ceiling": None,
    "calibration": {"temperature": 1.0, "ece_before": 0.1, "ece_after": 0.1},
}
UNSEEN = {
    "rows": 81,
    "macro_f1": 0.612,
    "accuracy": 0.64,
    "macro_over": ["negative"],
    "intervals": {"macro_f1": [0.5, 0.71], "accuracy": [0.53, 0.74]},
}


def metrics(**changed: Any) -> EvaluationMetrics:
    return evaluation(SCORES, **{**RESULT, **changed})


def test_a_good_result_has_no_remarks() -> None:
    assert list(caveats(metrics())) == []
    assert trust_lines(metrics())[0] == "trained on: none of these 400 rows"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"overlap": {"rows": 316, "near_copies": 3, "reason": None, "unseen": UNSEEN}},
            [
                "trained on 316 and near copies of 3 more of these rows",
                "macro-F1 0.953 with them",
                "0.612 (0.500 to 0.710) on the other 81 rows",
                "data.exclude",
            ],
        ),
        (
            {"overlap": {"rows": 0, "near_copies": 5, "reason": None, "unseen": UNSEEN}},
            ["trained on near copies of 5 of these rows, so"],
        ),
        (
            {"overlap": {"rows": 400, "near_copies": 0, "reason": None, "unseen": None}},
            ["trained on 400 of these rows", "no other row is left"],
        ),
        (
            {
                "macro_over": ["negative", "positive"],
                "confusion": [[100, 7, 0], [0] * 3, [0, 9, 84]],
            },
            [
                "No row is neutral",
                "means over negative and positive",
                "16 rows have such an answer",
            ],
        ),
        (
            {"truncation": truncation(128, 120, 120, 120_000, 104_640)},
            ["120 of 120 texts (100.0%)", "87.2% of all tokens", "model.max_length"],
        ),
        (
            {
                "abstention": {
                    "wanted_accuracy": 0.9,
                    "threshold": 0.7,
                    "coverage": 0.642,
                    "accuracy": 0.78,
                    "interval": [0.74, 0.82],
                    "holds": False,
                }
            },
            [
                "promised accuracy of 0.9 does not hold",
                "0.780 (0.740 to 0.820) on the 64.2%",
                "`python -m ray_jobs.calibrate calibrate.model=version:0123456789ab "
                "calibrate.name=NAME 'calibrate.sources=[a.csv,b.csv]'`",
            ],
        ),
    ],
    ids=["seen", "near", "all seen", "two labels", "cut", "promise"],
)
def test_each_remark_has_its_numbers_and_a_remedy(
    changed: dict[str, Any], words: list[str]
) -> None:
    [remark] = caveats(metrics(**changed))
    assert all(word in remark for word in words), remark


def broken(**changed: Any) -> str:
    """Return the remark on a result that does not hold its promise."""
    rule = {**RESULT["abstention"], "accuracy": 0.78, "interval": [0.74, 0.82], "holds": False}
    [remark] = caveats(metrics(abstention=rule, **changed))
    return remark


@pytest.mark.parametrize(
    "sources",
    [["a.csv", "/data/b-2.csv"], ["s3://b/it's a, file.csv", "1", "zoë: [x].csv"], []],
    ids=["plain", "odd", "none"],
)
def test_the_command_of_a_broken_promise_is_understood(sources: list[str]) -> None:
    command = broken(sources=sources).split("`")[1].replace("NAME", "tweets")
    python, flag, module, *overrides = shlex.split(command)
    assert [python, flag, module] == ["python", "-m", "ray_jobs.calibrate"]
    config = load(Settings, [], overrides).calibrate
    assert (config.model, config.name) == ("version:0123456789ab", "tweets")
    assert [source.uri for source in config.sources] == (sources or ["FILE"])


def test_a_model_that_is_not_published_is_to_be_published_first() -> None:
    remark = broken(model_version=None)
    assert "Publish the model first (`ray_jobs.publish`)" in remark
    assert "calibrate.model=" not in remark


def test_unknown_training_rows_are_said_with_the_reason() -> None:
    unknown = {"rows": None, "near_copies": None, "reason": "the model was trained elsewhere"}
    line = trust_lines(metrics(overlap=unknown))[0]
    assert line == (
        "trained on: not known how many of these 400 rows (the model was trained elsewhere)"
    )


def test_near_copies_that_were_not_looked_for_are_said() -> None:
    reason = "near copies: over 100,000 rows to compare"
    overlap = {"rows": 0, "near_copies": None, "reason": reason, "unseen": None}
    line = trust_lines(metrics(overlap=overlap))[0]
    assert line == f"trained on: none of these 400 rows ({reason})"


def test_phrasebank_files_keep_their_agreement(tmp_path: Path) -> None:
    texts = {"50Agree": ["Sales fell@negative", "Up a lot@positive", "A note@neutral"]}
    texts["66Agree"] = texts["50Agree"][1:]
    texts["75Agree"] = texts["AllAgree"] = texts["50Agree"][2:]
    for name, lines in texts.items():
        (tmp_path / f"Sentences_{name}.txt").write_text("\n".join(lines))
    files = [SourceConfig(uri=str(path)) for path in sorted(tmp_path.glob("*.txt"))]
    table = read_benchmark(files, DataConfig(), tmp_path / "cache")
    agreements = dict(zip(table["text"].to_pylist(), table["agreement"].to_pylist(), strict=True))
    assert agreements == pytest.approx({"Sales fell": 0.5, "Up a lot": 0.66, "A note": 1.0})


def test_a_comparison_says_what_it_left_out() -> None:
    cut, none = truncation(8, 10, 5, 100, 20), truncation(8, 10, 0, 70, 0)
    result = {
        "rows": 80,
        "macro_over": ["negative", "positive"],
        "overlap": {
            "a": {"rows": None, "near_copies": None, "reason": "no dataset is at hand"},
            "b": {"rows": 20, "near_copies": 4, "reason": None},
        },
        "with_seen": {
            "rows": 100,
            "a": {"macro_f1": 0.7, "accuracy": 0.71},
            "b": {"macro_f1": 0.9, "accuracy": 0.91},
        },
        "truncation": {"a": none, "b": cut},
    }
    assert list(comparison_caveats(comparison(**result))) == [
        "It is not known which rows A was trained on: no dataset is at hand.",
        "4 of the 80 compared rows are near copies of rows that B was trained on, which flatters "
        "B.",
        "With the rows that A or B was trained or validated on (100 rows): B reaches "
        "macro-F1 0.900 against 0.700, accuracy 0.910 against 0.710.",
        "No row is neutral: macro-F1 is the mean over negative and positive.",
        "B: 5 of 10 texts (50.0%) are longer than the model's 8 tokens and are cut: 20.0% of all "
        "tokens are left out. Train with a larger model.max_length, or split long texts.",
    ]


# --- training -------------------------------------------------------------------------------------


def test_training_says_what_is_cut_and_which_labels_have_no_rows(
    tiny: Path, tmp_path: Path
) -> None:
    labels = {"train": ("positive",), "validation": ("negative", "positive"), "test": ("neutral",)}
    write(
        tmp_path / "0123456789ab",
        [
            Row(f"{LONG} {i}", label, split)
            for split, names in labels.items()
            for label in names
            for i in range(3)
        ]
        + [Row("Up", "negative", "train")],
        **DataConfig().model_dump(mode="json"),
    )
    version = DatasetVersion.open(tmp_path / "0123456789ab")
    model = ModelConfig(backbone="tiny", max_length=8)
    task = make_task(TrainConfig(), model, Backbone("tiny", str(tiny)), version)
    splits = summarize_splits(version, task)
    assert (splits.truncation.rows, splits.truncation.cut) == (4, 3)
    assert splits.macro_over == ["negative", "positive"]
    cut, train, validation = splits.remarks()
    assert cut.startswith("training split: 3 of 4 texts (75.0%) are longer than the model's 8")
    assert cut.endswith("Raise model.max_length (at most 512), or split long texts.")
    assert train.startswith("No training row is neutral: the model does not learn to answer so.")
    assert "macro-F1 is the mean over negative and positive" in validation
