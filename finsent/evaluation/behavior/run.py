"""Run a behavior suite on a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from finsent.evaluation.behavior.suite import Case, DirGroup, InvGroup, MftGroup, Suite
from finsent.labels import LABEL2ID, LABELS
from finsent.metrics_record import Behavior, BehaviorExample, BehaviorGroup

_MAX_EXAMPLES = 5  # failing cases in the result, per group

Probabilities = npt.NDArray[np.floating[Any]]


def run_suite(suite: Suite, probabilities: Callable[[Sequence[str]], Probabilities]) -> Behavior:
    """Classify each distinct text once, and judge all cases.

    Args:
        suite: from `read_suite`.
        probabilities: texts -> probabilities of `LABELS`, shape (texts, labels), such as
            `Engine.probabilities`.
    """
    expanded = [(group, group.expand()) for group in suite]
    texts = list(
        dict.fromkeys(text for _, cases in expanded for case in cases for text in case.texts)
    )
    by_text = dict(zip(texts, probabilities(texts), strict=True))
    groups = tuple(_judge(group, cases, by_text) for group, cases in expanded)
    failed, case_count = sum(group.failed for group in groups), sum(group.cases for group in groups)
    return Behavior(
        cases=case_count,
        failed=failed,
        failure_rate=failed / max(case_count, 1),
        groups=groups,
    )


def _judge(
    group: MftGroup | InvGroup | DirGroup, cases: list[Case], by_text: dict[str, Probabilities]
) -> BehaviorGroup:
    """Judge the cases of a group, and keep the failing cases of highest confidence."""
    failing = [case for case in cases if not _holds(case, by_text)]
    failing.sort(key=lambda case: -float(by_text[case.texts[-1]].max()))
    return BehaviorGroup(
        group=group.name,
        kind=group.kind,
        about=group.about,
        cases=len(cases),
        failed=len(failing),
        failure_rate=len(failing) / len(cases),
        examples=tuple(_example(case, by_text) for case in failing[:_MAX_EXAMPLES]),
    )


def _predicted(row: Probabilities) -> str:
    return LABELS[int(row.argmax())]


def _holds(case: Case, by_text: dict[str, Probabilities]) -> bool:
    rows = [by_text[text] for text in case.texts]
    labels = tuple(map(_predicted, rows))
    if case.labels:
        return labels == case.labels
    if not case.moves:
        return len(set(labels)) == 1
    changes = rows[-1] - rows[0]
    return all(
        changes[LABEL2ID[label]] * (1 if direction == "up" else -1) >= case.by
        for label, direction in case.moves.items()
    )


def _example(case: Case, by_text: dict[str, Probabilities]) -> BehaviorExample:
    rows = [by_text[text] for text in case.texts]
    if case.moves:
        expected = ", ".join(
            f"{label} {direction} by {case.by:g}" for label, direction in case.moves.items()
        )
        ids = [LABEL2ID[label] for label in case.moves]
        got = ", ".join(f"{LABELS[i]} {rows[0][i]:.2f} to {rows[-1][i]:.2f}" for i in ids)
    else:
        expected = ", then ".join(case.labels) or "the same label"
        got = ", then ".join(map(_predicted, rows))
    return BehaviorExample(
        texts=case.texts,
        expected=expected,
        got=got,
        probabilities=tuple(dict(zip(LABELS, map(float, row), strict=True)) for row in rows),
    )
