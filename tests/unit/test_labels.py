"""The list of labels, and the refusal of models with other labels."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from finsent.errors import InputError
from finsent.labels import ID2LABEL, LABEL2ID, LABELS, check_labels


def test_ids_are_positions_and_never_change() -> None:
    assert LABELS == ("negative", "neutral", "positive")
    assert ID2LABEL == {0: "negative", 1: "neutral", 2: "positive"}
    assert LABEL2ID == {"negative": 0, "neutral": 1, "positive": 2}


@pytest.mark.parametrize(
    "id2label",
    [
        {0: "negative", 1: "neutral", 2: "positive"},
        {"0": "negative", "1": "neutral", "2": "positive"},
        {"2": "positive", "0": "negative", "1": "neutral"},
    ],
)
def test_own_labels_are_taken(id2label: Mapping[int, str] | Mapping[str, str]) -> None:
    check_labels(id2label, "config.json")


@pytest.mark.parametrize(
    "id2label",
    [
        {},
        {0: "positive", 1: "neutral", 2: "negative"},
        {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"},
        {0: "negative", 1: "neutral"},
        {0: "negative", 1: "neutral", 2: "positive", 3: "mixed"},
        {0: "Negative", 1: "Neutral", 2: "Positive"},
        {"zero": "negative", "one": "neutral", "two": "positive"},
    ],
)
def test_other_labels_are_refused_with_both_lists_and_the_remedy(
    id2label: Mapping[int, str] | Mapping[str, str],
) -> None:
    with pytest.raises(InputError) as caught:
        check_labels(id2label, "/models/x/config.json")
    text = str(caught.value)
    assert text.startswith("/models/x/config.json: labels are {")
    assert all(repr(label) in text for label in [*id2label.values(), *LABELS])
    assert "Use a model that finsent trained" in text
