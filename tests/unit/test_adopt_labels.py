"""Label maps of adopted classifiers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.config import load
from finsent.errors import InputError
from finsent.inference.engine import Engine, softmax
from finsent.labels import LABELS
from finsent.modeling.label_map import LABEL_MAP, LabelMap, make_label_map
from finsent.modeling.model_dir import fingerprint
from finsent.settings import Settings
from tests.unit.adoption import EXACT, ORDER, STARS, STARS_MAP, adopted, opened, refusal
from tests.unit.foreign import classifier, saved

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(6, "exports and measures")]


# --- labels ---------------------------------------------------------------------------------------


logits_of_five = st.lists(
    st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5), min_size=1, max_size=4
)


@given(logits_of_five, st.lists(st.sampled_from(LABELS), min_size=5, max_size=5))
def test_folded_logits_are_those_of_summed_probabilities(
    logits: list[list[float]], targets: list[str]
) -> None:
    label_map = LabelMap(STARS, tuple(targets))
    source = np.array(logits, np.float32)
    probabilities = softmax(source, 1.0).astype(np.float64)
    folded = softmax(label_map.fold(source), 1.0)
    for i, label in enumerate(LABELS):
        expected = probabilities[:, label_map.columns(label)].sum(1)
        assert folded[:, i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])  # all that a calibration may find
def test_absent_label_has_no_probability_at_any_temperature(temperature: float) -> None:
    folded = LabelMap(("a", "b"), ("negative", "positive")).fold(
        np.array([[-30.0, 30.0], [0.0, 0.0]], np.float32)
    )
    assert np.isfinite(folded).all()
    assert (softmax(folded, temperature)[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("labels", "label_map", "words"),
    [
        (STARS, {}, ["does not map '1 star', '2 stars'", "label_map={'1 star': LABEL"]),
        (("LABEL_0", "LABEL_1", "LABEL_2"), {}, ["'LABEL_0'", "each LABEL one of negative,"]),
        (("positive", "mixed"), {}, ["does not map 'mixed'"]),
        (ORDER, {"bullish": "positive"}, ["no label 'bullish'", "Positive, Negative, Neutral"]),
    ],
)
def test_labels_without_a_meaning_are_refused(
    tiny: Path, tmp_path: Path, labels: Sequence[str], label_map: dict[str, str], words: list[str]
) -> None:
    folder = saved(classifier(labels=labels), tmp_path / "source", tiny)
    text = refusal(folder, label_map=label_map)
    assert text.startswith("adopt.label_map={")
    assert all(word in text for word in words), text


def test_labels_that_yaml_reads_as_truths_are_mapped() -> None:
    config = load(Settings, [], ["adopt.label_map={yes: positive, no: negative}"])
    label_map = make_label_map(("No", "Neutral", "YES"), config.adopt.label_map)
    assert label_map.pairs == {"No": "negative", "Neutral": "neutral", "YES": "positive"}
    with pytest.raises(InputError, match="no label 'true'"):
        make_label_map(("No", "Neutral"), config.adopt.label_map)


# --- the job --------------------------------------------------------------------------------------


def test_damaged_label_map_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(labels=STARS), tmp_path / "source", tiny)
    adopted(folder, tmp_path / "model", label_map=STARS_MAP)
    assert LABEL_MAP in fingerprint(tmp_path / "model")  # it decides the answers
    file = tmp_path / "model" / LABEL_MAP
    for content in ({}, {"schema_version": 1, "labels": {"1 star": "negative"}}, [1]):
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"label_map\.json"):
            Engine(tmp_path / "model", EXACT)


def test_another_s_label_map_is_not_read(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(labels=STARS), tmp_path / "source", tiny)
    (folder / LABEL_MAP).write_text('{"0": "1 star"}')
    assert "does not map" in refusal(folder)
    assert opened(folder, label_map=STARS_MAP).label_map.pairs == STARS_MAP
    (folder / "provenance.json").write_text("{}")  # as finsent writes
    assert LABEL_MAP in refusal(folder)
    assert opened(folder, label_map=STARS_MAP).label_map.pairs == STARS_MAP
