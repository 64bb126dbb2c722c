"""The report of an evaluation: whole or in part, its warnings, and nothing that data can break."""

from __future__ import annotations

import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from finsent.evaluation.behavior.run import run_suite
from finsent.evaluation.behavior.suite_files import read_suite
from finsent.evaluation.metrics import confusion, scores
from finsent.evaluation.pictures import pictures_of
from finsent.evaluation.report import FIGURES, warnings, write_report
from finsent.evaluation.slices import slices
from finsent.labels import LABELS
from finsent.metrics_record import StoredMetrics

pytestmark = pytest.mark.cost(1.5, "draws the pictures of a report")

EVIL = '<script>alert("x")</script> & "quoted" {{ 7 * 7 }} $x$ https://example.org/a'
ROWS = 600
ABSTENTION = {
    "wanted_accuracy": 0.9,
    "threshold": 0.71,
    "coverage": 0.64,
    "accuracy": 0.93,
    "reason": None,
    "curve": [
        {"threshold": 0.9, "coverage": 0.2, "accuracy": 1.0},
        {"threshold": 0.4, "coverage": 1.0, "accuracy": 0.83},
    ],
}
MISTAKES = [
    {
        "key": "k",
        "text": EVIL,
        "label": "neutral",
        "predicted": "positive",
        "score": 0.987,
        "source": EVIL,
        "row": 7,
    },
    {
        "key": "k",
        "text": "plain",
        "label": "neutral",
        "predicted": "negative",
        "score": 0.9,
    },
]


def behavior_outcome() -> dict[str, Any]:
    """Return the outcome of two groups of the suite, with a text that a page must escape."""
    suite = [group for group in read_suite() if group.name in ("another ticker", "rumours")]
    outcome = run_suite(suite, lambda texts: np.tile([0.2, 0.5, 0.3], (len(texts), 1)))
    behavior = outcome.model_dump(mode="json")
    behavior["groups"][0]["examples"][0]["texts"] = [EVIL]
    return behavior


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """Return a complete result: right on 5 of 6 rows, calibrated, nothing to warn of."""
    rng = np.random.default_rng(0)
    truth = np.arange(ROWS) % 3
    predicted = np.where(np.arange(ROWS) % 6 == 5, 0, truth)
    sure = rng.uniform(0.5, 1, ROWS)
    probabilities = np.full((ROWS, 3), 0.0) + ((1 - sure) / 2)[:, None]
    probabilities[np.arange(ROWS), predicted] = sure
    rows = pa.table(
        {
            "text": [f"{EVIL} row {i}" for i in range(ROWS)],
            "source": np.where(np.arange(ROWS) % 5, EVIL, "other").tolist(),
        }
    )
    bins = [
        {"low": i / 10, "high": (i + 1) / 10, "rows": 0, "confidence": None, "accuracy": None}
        for i in range(9)
    ]
    bins.append({"low": 0.9, "high": 1, "rows": ROWS, "confidence": 0.95, "accuracy": 0.83})
    majority = scores(confusion(truth, truth * 0))
    return {
        **dict(scores(confusion(truth, predicted))),
        **dict.fromkeys(("weighted_f1", "mcc", "auroc"), 0.75),
        **dict.fromkeys(("log_loss", "brier"), 0.25),
        "ece": 0.012,
        "intervals": {name: [0.707, 0.909] for name in FIGURES} | {"ece": None},
        "noise_ceiling": {"rows_in": 0.955, "kept": 1.0},
        "baselines": {"majority": majority, EVIL: {**dict(majority), "labels": None}},
        "calibration": {
            "temperature": 1.234,
            "ece_before": 0.088,
            "ece_after": 0.012,
            "fitted_on": {"dataset_version": "v1", "split": "validation", "rows": 77},
        },
        "reliability": bins,
        "reliability_before": bins,
        "abstention": ABSTENTION,
        "slices": slices(rows, truth, probabilities),
        "behavior": behavior_outcome(),
        "mistakes": MISTAKES,
        "seen_in_training": 0,
        "model_dir": f"/models/{EVIL}",
        "dataset_version": "abc123",
        "split": "test",
        "rows_per_second": 123.456,
    }


def page(result: dict[str, Any], folder: Path, title: str = "A title") -> str:
    write_report(StoredMetrics.model_validate(result), folder, title)
    return (folder / "report.html").read_text(encoding="utf-8")


def without_pictures(text: str) -> str:
    """Return a page without its pictures, whose base64 may spell any word."""
    return re.sub(r'"data:[^"]*"', '""', text)


def test_all_that_was_measured_is_shown(result: dict[str, Any], tmp_path: Path) -> None:
    text = page(result, tmp_path / "new" / "evaluation")
    for phrase in (
        "0.833",
        "0.707 to 0.909",
        "noise ceiling",
        "0.955",  # headline
        "majority",
        "0.167",  # its macro-F1
        "1.234",
        "0.088",
        "fitted on 77 rows of the validation split",
        "0.71",  # confidence
        "64.0 %",
        "93.0 %",
        "90.0 %",  # abstention
        "other",
        "+0.000",  # slices
        "rumours: 2 of ",
        "another ticker: 0 of 12",
        "Minimum functionality",  # behavior
        "plain",
        "0.99",
        ", 7<",  # mistakes
        "abc123",
        "123.5",  # identity
    ):
        assert phrase in text, phrase
    assert all(name in text for name, _ in FIGURES.values())
    assert "<h2>Warnings</h2>" not in text
    names = ["confusion", "reliability", "coverage", "slices", "behavior"]
    assert list(pictures_of(StoredMetrics.model_validate(result))) == names
    assert text.count('src="data:image/png;base64,') == len(names)


def test_pictures_lie_beside_the_page(result: dict[str, Any], tmp_path: Path) -> None:
    page(result, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "report.html"]
    for path in (tmp_path / "pictures").iterdir():
        data = path.read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert data.startswith(b"\x89PNG")
        assert 700 <= width <= 1200 and 300 <= height <= 1600


def test_texts_are_escaped_and_nothing_is_fetched(result: dict[str, Any], tmp_path: Path) -> None:
    text = page(result, tmp_path, title=EVIL)
    assert "<script" not in text
    assert "{{ 7 * 7 }}" in text and " 49 " not in text  # shown, not computed
    parsed = Parsed(text)
    assert parsed.loaded and all(value.startswith(("data:", "#")) for value in parsed.loaded)
    assert parsed.tags & {"table", "img", "details"}
    assert not parsed.tags & {"script", "link", "iframe", "object", "embed", "base", "form", "svg"}
    assert "url(" not in parsed.style and "@import" not in parsed.style


class Parsed(HTMLParser):
    """Tags, style, and what attributes load or lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.style = text.partition("<style>")[2].partition("</style>")[0]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        names = ("src", "href", "srcset", "action", "style", "background", "onload", "onerror")
        self.loaded += [value or "" for name, value in attrs if name in names]


KEYS = [
    "rows",
    "accuracy",
    "macro_f1",
    "labels",
    "confusion",
    "intervals",
    "noise_ceiling",
    "baselines",
    "calibration",
    "reliability",
    "reliability_before",
    "abstention",
    "slices",
    "behavior",
    "mistakes",
    "seen_in_training",
    "model_dir",
    "dataset_version",
    "split",
    "ece",
]


def test_every_part_may_be_missing_or_null(result: dict[str, Any], tmp_path: Path) -> None:
    # Without pictures, which are slow to draw and have their own tests.
    drawn = dict.fromkeys(("confusion", "reliability", "slices", "behavior"))
    bare = {**result, **drawn, "abstention": {**result["abstention"], "curve": []}}
    for key in KEYS:
        for reduced in ({k: v for k, v in bare.items() if k != key}, {**bare, key: None}):
            text = page(reduced, tmp_path)
            assert text.rstrip().endswith("</html>"), key
            assert "None" not in without_pictures(text), key


def test_pictures_need_their_own_part_only(result: dict[str, Any], tmp_path: Path) -> None:
    parts = ("confusion", "reliability", "slices", "behavior")
    curve = {"curve": result["abstention"]["curve"]}
    text = page({**{key: result[key] for key in parts}, "abstention": curve}, tmp_path)
    assert text.count("<img") == 5


@pytest.mark.parametrize("keep", [(), ("rows", "accuracy", "macro_f1", "labels", "confusion")])
def test_older_results_are_shown_as_far_as_they_go(
    result: dict[str, Any], tmp_path: Path, keep: tuple[str, ...]
) -> None:
    text = page({key: result[key] for key in keep}, tmp_path)
    for said in ("not calibrated", "never abstains", "There are no slices", "suite was not run"):
        assert said in text
    assert text.count("<img") == len({"confusion"} & set(keep))
    assert "None" not in without_pictures(text)


def test_nested_figures_may_be_null(result: dict[str, Any], tmp_path: Path) -> None:
    changed = {
        **result,
        "labels": {
            name: figures.replaced(auroc=None) for name, figures in result["labels"].items()
        },
        "abstention": {
            "wanted_accuracy": 0.9,
            "threshold": None,
            "coverage": None,
            "accuracy": None,
            "reason": "rows are too few",
            "curve": [],
        },
        "calibration": {
            "temperature": 1.0,
            "ece_before": None,
            "ece_after": None,
            "fitted_on": None,
        },
        "intervals": dict.fromkeys(FIGURES),
        "auroc": None,
        "behavior": {"cases": 0, "failed": 0, "failure_rate": 0, "groups": []},
        "reliability": [{**result["reliability"][0]}],
    }
    text = page(changed, tmp_path)
    assert "rows are too few" in text
    assert "None" not in without_pictures(text)


def test_a_calibration_for_a_domain_is_named_with_its_biases(
    result: dict[str, Any], tmp_path: Path
) -> None:
    biases = {"negative": -0.2, "neutral": 1.3, "positive": -1.1}
    own = {**result["calibration"], "name": "tweets", "biases": biases}
    never = {**result["abstention"], "threshold": 1 + 2**-23, "reason": "rows are too hard"}
    drawn = dict.fromkeys(("confusion", "reliability", "slices", "behavior"))
    changed = {**result, **drawn, "calibration": own, "abstention": {**never, "curve": []}}
    text = page(changed, tmp_path)
    for words in (
        "The calibration tweets follows the model's own calibration",
        "(negative -0.20, neutral +1.30, positive -1.10)",
        "0.088 by the model's own calibration alone and 0.012 by tweets",
        "abstains from every row: rows are too hard",
    ):
        assert words in text, words


def test_a_second_report_replaces_the_first(result: dict[str, Any], tmp_path: Path) -> None:
    page(result, tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    text = page({"rows": 1, "confusion": result["confusion"]}, tmp_path)
    assert "A title" in text
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["confusion.png"]
    assert (tmp_path / "metrics.json").read_text() == "{}"
    assert not list(tmp_path.glob(".staging*"))


# --- warnings -------------------------------------------------------------------------------------


def test_a_good_result_gives_no_warning(result: dict[str, Any]) -> None:
    assert list(warnings(StoredMetrics.model_validate(result))) == []
    assert list(warnings(StoredMetrics())) == []


def part(accuracy: float, high: float, **more: Any) -> dict[str, Any]:
    return {
        "slice": "source",
        "value": "b.csv",
        "rows": 80,
        "accuracy": accuracy,
        "interval": [0.2, high],
        "difference": accuracy - 0.83,
        "macro_f1": 0.3,
        "small": False,
        **more,
    }


def group(name: str, failed: int) -> dict[str, Any]:
    rate = failed / 10
    return {"group": name, "kind": "mft", "cases": 10, "failed": failed, "failure_rate": rate}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seen_in_training": 1200}, ["1,200", "data.exclude"]),
        ({"ece": 0.081}, ["0.081", "Calibrate on rows"]),
        ({"noise_ceiling": {"kept": 0.951}}, ["95.1%", "data.conflicts"]),
        ({"baselines": {"majority": {"macro_f1": 0.8}}}, ["majority", "0.800", "0.707"]),
        (
            {"abstention": {"threshold": 0.8, "wanted_accuracy": 0.95, "accuracy": 0.91}},
            ["91.0%", "95.0%"],
        ),
        (
            {"slices": [part(0.5, 0.6), part(0.7, 0.8), part(0.1, 0.5, small=True)]},
            ["source, b.csv", "0.500", "80 rows", "0.330"],
        ),
        (
            {
                "behavior": {
                    "cases": 20,
                    "failed": 9,
                    "failure_rate": 0.45,
                    "groups": [group("a", 5), group("b", 4)],
                }
            },
            ["1 of 2 groups", ": a."],
        ),
        (
            {"labels": {label: {"support": 20 if label == "negative" else 90} for label in LABELS}},
            ["20 negative rows", "0.050"],
        ),
    ],
)
def test_warnings_name_number_and_remedy(
    result: dict[str, Any], changed: dict[str, Any], words: list[str]
) -> None:
    [warning] = warnings(StoredMetrics.model_validate({**result, **changed}))
    assert all(word in warning for word in words), warning
