"""The behavior suite: what is shipped, what is refused, and how a model is judged."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from finsent.errors import InputError
from finsent.evaluation.behavior.run import run_suite
from finsent.evaluation.behavior.suite import Case, Suite
from finsent.evaluation.behavior.suite_files import read_suite
from finsent.labels import LABEL2ID, LABELS
from finsent.metrics_record import Behavior, BehaviorExample, BehaviorGroup

README = Path(__file__).parents[2] / "finsent/evaluation/behavior/README.md"

Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def shipped() -> Suite:
    return read_suite()


def cases_of(suite: Suite) -> list[tuple[str, Case]]:
    return [(group.kind, case) for group in suite for case in group.expand()]


def groups_of(outcome: Behavior) -> tuple[BehaviorGroup, ...]:
    assert outcome.groups is not None
    return outcome.groups


def always(label: str) -> Callable[[Sequence[str]], Floats]:
    return lambda texts: np.tile(np.eye(3)[LABEL2ID[label]], (len(texts), 1))


def oracle(suite: Suite) -> Callable[[Sequence[str]], Floats]:
    """What satisfies every case; where a case leaves the label open, neutral."""
    answers: dict[str, Floats] = {}
    cases = [case for _, case in cases_of(suite)]
    for case in cases:
        for text, label in zip(case.texts, case.labels, strict=False):
            answers[text] = np.eye(3)[LABEL2ID[label]]
    for case in cases:
        if not case.labels:
            answers.setdefault(case.texts[0], np.array([0.3, 0.4, 0.3]))
    for case in cases:
        if case.moves:
            moved = answers[case.texts[0]].copy()
            for label, direction in case.moves.items():
                moved[LABEL2ID[label]] += 0.25 if direction == "up" else -0.25
            answers.setdefault(case.texts[1], moved)
        elif not case.labels:
            answers.setdefault(case.texts[1], answers[case.texts[0]])
    return lambda texts: np.array([answers[text] for text in texts])


# --- what is shipped ------------------------------------------------------------------------------


def test_the_suite_is_broad(shipped: Suite) -> None:
    cases = cases_of(shipped)
    assert len(cases) >= 200
    assert len({group.name for group in shipped}) == len(shipped) >= 12
    assert {kind for kind, _ in cases} == {"mft", "inv", "dir"}
    assert all(n >= 20 for n in Counter(c.labels[0] for _, c in cases if c.labels).values())
    assert {label for _, case in cases for label in case.labels} == set(LABELS)


def test_no_case_stands_twice_and_no_brace_is_left(shipped: Suite) -> None:
    cases = cases_of(shipped)
    assert len({(kind, case.texts) for kind, case in cases}) == len(cases)
    assert not [case for _, case in cases if re.search(r"[{}]", " ".join(case.texts))]


def test_no_text_is_in_the_sample_corpus(shipped: Suite) -> None:
    """A model is trained on that; the suite would measure its memory."""
    sample = resources.files("finsent.data.sample").joinpath("sentences.csv").read_text("utf-8")
    known = {row["Sentence"].casefold() for row in csv.DictReader(sample.splitlines())}
    assert len(known) > 1000
    assert not known & {text.casefold() for _, case in cases_of(shipped) for text in case.texts}


def test_an_oracle_fails_nothing(shipped: Suite) -> None:
    outcome = run_suite(shipped, oracle(shipped))
    assert (outcome.failed, outcome.failure_rate) == (0, 0.0)
    assert outcome.cases == len(cases_of(shipped))
    assert all(group.examples == () for group in groups_of(outcome))


@pytest.mark.parametrize("label", LABELS)
def test_a_model_of_one_label_fails_what_it_must(shipped: Suite, label: str) -> None:
    outcome = run_suite(shipped, always(label))
    for group, group_outcome in zip(shipped, groups_of(outcome), strict=True):
        cases = group.expand()
        wrong = {
            "mft": sum(case.labels != (label,) for case in cases),
            "inv": 0,
            "dir": len(cases),  # nothing moves
        }[group.kind]
        assert (group_outcome.group, group_outcome.cases, group_outcome.failed) == (
            group.name,
            len(cases),
            wrong,
        )
        assert group_outcome.failure_rate == wrong / len(cases)
        assert len(group_outcome.examples) == min(wrong, 5)
    assert outcome.failed == sum(group_outcome.failed for group_outcome in groups_of(outcome))


# --- judging --------------------------------------------------------------------------------------


def suite_of(folder: Path, **group: Any) -> Suite:
    content = {"groups": [{"name": "g", "about": "why", **group}]}
    (folder / "own.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return read_suite(folder)


def answer(by_text: dict[str, list[float]]) -> Callable[[Sequence[str]], Floats]:
    return lambda texts: np.array([by_text[text] for text in texts])


def test_a_failure_is_shown_with_all_that_is_needed(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, kind="mft", cases=[{"text": "a", "label": "positive"}])
    [group] = groups_of(run_suite(suite, answer({"a": [0.5, 0.25, 0.25]})))
    assert group.examples == (
        BehaviorExample(
            texts=("a",),
            expected="positive",
            got="negative",
            probabilities=({"negative": 0.5, "neutral": 0.25, "positive": 0.25},),
        ),
    )


@pytest.mark.parametrize(
    ("after", "failed"), [([0.5, 0.2, 0.3], 0), ([0.35, 0.25, 0.4], 1), ([0.1, 0.2, 0.7], 1)]
)
def test_probabilities_must_move_far_enough(
    tmp_path: Path, after: list[float], failed: int
) -> None:
    case = {"text": "a", "variants": ["{text} b"], "moves": {"positive": "down", "negative": "up"}}
    suite = suite_of(tmp_path, kind="dir", cases=[{**case, "by": 0.15}])
    [group] = groups_of(run_suite(suite, answer({"a": [0.3, 0.2, 0.5], "a b": after})))
    assert group.failed == failed
    if failed:
        [example] = group.examples
        assert example.expected == "positive down by 0.15, negative up by 0.15"
        assert example.got.startswith("positive 0.50 to 0.")


def test_a_direction_needs_both_labels(tmp_path: Path) -> None:
    case = {"text": "a", "variants": ["b"], "label": "positive", "becomes": "negative"}
    suite = suite_of(tmp_path, kind="dir", cases=[case])
    for first, second, failed in ((2, 0, 0), (2, 2, 1), (0, 0, 1), (1, 0, 1)):
        rows = {"a": np.eye(3)[first].tolist(), "b": np.eye(3)[second].tolist()}
        assert run_suite(suite, answer(rows)).failed == failed


def test_each_text_is_asked_once_and_the_surest_failures_lead(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(9)]
    suite = suite_of(
        tmp_path, kind="inv", swap="x", fillers={"x": names}, cases=[{"text": "{x} rose"}]
    )
    asked: list[str] = []

    def probabilities(texts: Sequence[str]) -> Floats:
        asked.extend(texts)
        sure = np.array([0.0, *np.linspace(0.5, 0.9, 8)])
        return np.stack([1 - sure, sure, 0 * sure], 1)

    outcome = run_suite(suite, probabilities)
    assert asked == [f"{name} rose" for name in names]
    [group] = groups_of(outcome)
    assert [example.texts[1] for example in group.examples] == [
        f"n{i} rose" for i in (8, 7, 6, 5, 4)
    ]
    assert group.examples[0].got == "negative, then neutral"


# --- templates ------------------------------------------------------------------------------------


def test_variants_take_the_same_fillers_as_their_text(tmp_path: Path) -> None:
    suite = suite_of(
        tmp_path,
        kind="inv",
        variants=["{text:upper}"],
        fillers={"c": ["x", "y"], "n": ["1", "2"]},
        cases=[{"text": "{c} rose {n}", "variants": ["{c} rose {{{n}}}"]}],
    )
    assert [case.texts for case in suite[0].expand()] == [
        (f"{c} rose {n}", changed)
        for c in "xy"
        for n in "12"
        for changed in (f"{c.upper()} ROSE {n}", f"{c} rose {{{n}}}")
    ]


def test_the_readmes_example_is_a_suite(tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "own.yaml").write_text(block, encoding="utf-8")
    suite = read_suite(tmp_path)
    assert [len(group.expand()) for group in suite] == [2, 3, 2]


# --- what is refused ------------------------------------------------------------------------------

MFT = {"kind": "mft", "cases": [{"text": "a", "label": "neutral"}]}
DIR = {"text": "a", "variants": ["b"]}


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ({**MFT, "kind": "mtf"}, ["kind='mtf'", "mft, inv, dir"]),
        ({"kind": "mft"}, ["cases: is missing", "the cases"]),
        ({**MFT, "cases": []}, ["cases=[]", "at least 1"]),
        ({**MFT, "case": []}, ["case: unknown key", "Did you mean 'cases'"]),
        (
            {"kind": "mft", "cases": [{"text": "a", "label": "postive"}]},
            ["cases.0.label='postive'", "'positive'", "guidelines"],
        ),
        (
            {"kind": "mft", "cases": [{"text": "a", "lable": "positive"}]},
            ["cases.0", "lable: unknown key. Did you mean 'label'"],
        ),
        (
            {"kind": "mft", "cases": [{"text": True, "label": "neutral"}]},
            ["cases.0.text=True", "Quote the text"],
        ),
        (
            {
                "kind": "mft",
                "cases": [{"text": "{firm} rose", "label": "neutral"}],
                "fillers": {"firms": ["x"]},
            },
            ["cases.0", "{firm}", "did you mean {firms}"],
        ),
        ({"kind": "mft", "cases": [{"text": "a {b", "label": "neutral"}]}, ["'a {b'", "{{"]),
        (
            {"kind": "inv", "cases": [{"text": "a", "variants": ["{text:loud}"]}]},
            ["'{text:loud}'", "lower, upper, title"],
        ),
        ({**MFT, "fillers": {"x": []}}, ["fillers.x=[]", "at least one"]),
        ({**MFT, "fillers": {"x": [1]}}, ["fillers.x.0=1", "Quote the text"]),
        (
            {
                "kind": "mft",
                "cases": [{"text": "{a}{b}{c}", "label": "neutral"}],
                "fillers": {n: [f"{n}{i}" for i in range(30)] for n in "abc"},
            },
            ["27,000 combinations", "5,000"],
        ),
        ({"kind": "inv", "cases": [{"text": "a"}]}, ["'a'", "nothing changes", "swap"]),
        ({"kind": "inv", "cases": [{"text": "a", "variants": ["a"]}]}, ["same text"]),
        ({"kind": "inv", "swap": "x", "cases": [{"text": "a"}]}, ["{x}", "swap"]),
        (
            {"kind": "inv", "swap": "x", "fillers": {"x": ["a"]}, "cases": [{"text": "{x}"}]},
            ["swap='x'", "two fillers"],
        ),
        ({"kind": "dir", "cases": [DIR]}, ["cases.0", "label and becomes, or moves"]),
        ({"kind": "dir", "cases": [{**DIR, "label": "neutral"}]}, ["label and becomes"]),
        ({"kind": "dir", "cases": [{**DIR, "label": "neutral", "becomes": "neutral"}]}, ["inv"]),
        (
            {"kind": "dir", "cases": [{**DIR, "moves": {"positive": "sideways"}}]},
            ["moves.positive='sideways'", "'up'"],
        ),
        (
            {"kind": "dir", "cases": [{**DIR, "moves": {"positive": "up"}, "by": 2}]},
            ["cases.0.by=2", "less than or equal to 1"],
        ),
        ({"kind": "mft", "cases": [{"text": "a", "label": "neutral"}] * 2}, ["'a'", "Remove one"]),
        (
            {"kind": "mft", "cases": [{"text": "a", "label": label} for label in LABELS[:2]]},
            ["'a'", "Remove one"],
        ),
        (
            {
                "kind": "dir",
                "cases": [
                    {**DIR, "label": "positive", "becomes": "negative"},
                    {"text": "b", "variants": ["c"], "label": "neutral", "becomes": "positive"},
                ],
            },
            ["'b' is neutral here and negative in 'g'", "Choose one label"],
        ),
    ],
)
def test_a_mistake_is_answered_with_file_group_and_remedy(
    tmp_path: Path, group: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        suite_of(tmp_path, **group)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'own.yaml'}: group 'g': ")
    assert "\n" not in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"groups: [", ["not valid YAML at line 1", "Correct that line"]),
        (b"groups: \xff", ["cannot be read", "UTF-8"]),
        (b"- a\n", ["no list of groups"]),
        (b"", ["no list of groups"]),
        (b"groups: []\nfiller: {}\n", ["filler: unknown key", "fillers"]),
        (b"groups: []\nfillers: [a]\n", ["fillers=['a']", "not a mapping"]),
        (b"groups: [a]\n", ["groups.0", "not a mapping"]),
    ],
)
def test_a_file_that_is_no_suite_is_named(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "own.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_suite(tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'own.yaml'}: ")
    assert all(word in text for word in words), text


def test_groups_of_one_name_in_two_files_are_refused(tmp_path: Path) -> None:
    suite_of(tmp_path, **MFT)
    (tmp_path / "two.yaml").write_bytes((tmp_path / "own.yaml").read_bytes())
    with pytest.raises(InputError, match=r"two\.yaml: group 'g': also in .*own\.yaml\. Rename"):
        read_suite(tmp_path)


def test_a_directory_without_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evaluate\.behavior='.*no \*\.yaml.*shipped"):
        read_suite(tmp_path)
