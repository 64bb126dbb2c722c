"""Texts in, probabilities out: in order, whatever they are batched with, or a clear refusal."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from finsent.errors import InputError
from finsent.inference.batching import micro_batches
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.modeling.classifier import load_tokenizer
from tests.unit.models import MAX_LENGTH, TEXTS, opinionated, saved_model

pytestmark = pytest.mark.cost(1.5, "runs a model")


@pytest.fixture(autouse=True, scope="module")
def keep_threads() -> Iterator[None]:
    """An engine sets the process's number of compute threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model_dir(tiny: Path, tmp_path: Path) -> Path:
    return saved_model(tiny, tmp_path / "model")


@pytest.fixture
def engine(model_dir: Path) -> Engine:
    return Engine(model_dir, EngineConfig())


# --- micro-batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [16, 64, 1024])
@pytest.mark.parametrize("rows", [0, 1, 2, 50, 333])
def test_micro_batches_hold_each_row_once_within_the_budget(rows: int, budget: int) -> None:
    lengths = np.random.default_rng(rows).integers(0, 129, rows)
    batches = micro_batches(lengths, budget)
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(rows))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([4, 4, 4, 4], 16, [4]),  # exactly the budget
        ([4, 4, 4, 4, 4], 16, [4, 1]),
        ([5, 5, 5, 5], 16, [3, 1]),
        ([40], 16, [1]),  # longer than the budget: alone
        ([40, 41, 2], 16, [1, 1, 1]),
        ([1, 16, 1, 1], 16, [3, 1]),
    ],
)
def test_micro_batches_are_as_large_as_the_budget_allows(
    lengths: list[int], budget: int, expected: list[int]
) -> None:
    assert [len(batch) for batch in micro_batches(np.array(lengths), budget)] == expected


def test_rows_of_a_micro_batch_are_about_as_long() -> None:
    lengths = np.random.default_rng(1).integers(5, 129, 500)
    batches = micro_batches(lengths, 1024)
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert 1 - lengths.sum() / padded < 0.05


# --- answers --------------------------------------------------------------------------------------


def test_probabilities_are_those_of_the_model(engine: Engine, tiny: Path) -> None:
    model, tokenizer = opinionated(tiny).eval(), load_tokenizer(str(tiny))
    probabilities = engine.probabilities(TEXTS)
    assert probabilities.shape == (len(TEXTS), len(LABELS))
    assert probabilities.sum(1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert np.ptp(probabilities, axis=0).max() > 0.3  # answers differ, so order matters below
    for text, row in zip(TEXTS, probabilities, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs).logits.softmax(-1)[0]
        assert row == pytest.approx(expected.numpy(), abs=1e-5)


def test_answers_come_in_the_order_of_the_texts(engine: Engine) -> None:
    expected = dict(zip(TEXTS, engine.probabilities(TEXTS), strict=True))
    for seed in range(3):
        texts = random.Random(seed).sample(TEXTS, len(TEXTS))
        for text, row in zip(texts, engine.probabilities(texts), strict=True):
            assert row == pytest.approx(expected[text], abs=1e-5)


@pytest.mark.parametrize("budget", [16, 100, 100_000])
@pytest.mark.parametrize("text", [*TEXTS, ""])
def test_answer_does_not_depend_on_the_company(model_dir: Path, text: str, budget: int) -> None:
    engine = Engine(model_dir, EngineConfig(token_budget=budget))
    alone = engine.probabilities([text])[0]
    among = engine.probabilities([*TEXTS, text, *TEXTS])[len(TEXTS)]
    assert among == pytest.approx(alone, abs=1e-5)


def test_labels_scores_and_probabilities_agree(engine: Engine) -> None:
    predictions = engine.classify(TEXTS)
    for prediction, row in zip(predictions, engine.probabilities(TEXTS), strict=True):
        assert tuple(prediction.probabilities) == LABELS
        assert [*prediction.probabilities.values()] == pytest.approx(row.tolist(), abs=1e-6)
        assert prediction.score == max(prediction.probabilities.values())
        assert prediction.probabilities[prediction.label] == prediction.score
        assert json.loads(json.dumps(prediction.probabilities)) == prediction.probabilities
    assert {prediction.label for prediction in predictions} == {*LABELS}


def test_no_texts_get_no_answers(engine: Engine) -> None:
    assert engine.classify([]) == []
    assert engine.probabilities([]).shape == (0, 3)


@pytest.mark.parametrize("text", ["Up\ud83d 5 %", "\udcff", "fine \udc80 not fine"])
def test_text_that_is_not_unicode_is_refused(engine: Engine, text: str) -> None:
    with pytest.raises(InputError, match=r"not valid Unicode .*\. Correct it"):
        engine.classify(["Profit rose.", text])


@pytest.mark.parametrize("text", ["\x00", "\u200b\ufeff", "  \t\n ", "🚀" * 40, "א" * 500])
def test_odd_texts_get_an_answer(engine: Engine, text: str) -> None:
    row = engine.probabilities([text])[0]
    assert row.sum() == pytest.approx(1, abs=1e-5)


def test_very_long_text_is_cut_off(engine: Engine) -> None:
    beginning = "profit fell again " * MAX_LENGTH
    probabilities = engine.probabilities([beginning, beginning + "and rose sharply " * 100_000])
    assert probabilities[1] == pytest.approx(probabilities[0], abs=1e-5)


def test_a_pipeline_of_transformers_cuts_where_the_engine_does(
    engine: Engine, model_dir: Path
) -> None:
    text = "order " * 60 + "loss"
    classify: Any = pipeline("text-classification", str(model_dir), top_k=None)
    [answers] = classify([text], truncation=True)
    scores = {answer["label"]: answer["score"] for answer in answers}
    [mine] = engine.classify([text])
    assert scores == pytest.approx(mine.probabilities, abs=1e-5)


@pytest.mark.parametrize("text", [" Profit\trose. ", "Profit\n\nrose.", "Profit\u00a0rose.\u200b"])
def test_texts_that_look_alike_get_the_same_answer(engine: Engine, text: str) -> None:
    probabilities, expected = engine.probabilities([text, "Profit rose."])
    assert probabilities == pytest.approx(expected, abs=1e-5)


def test_progress_adds_up_to_the_texts(model_dir: Path) -> None:
    counts: list[int] = []
    Engine(model_dir, EngineConfig(token_budget=64)).probabilities(TEXTS, counts.append)
    assert sum(counts) == len(TEXTS)
    assert len(counts) > 1


# --- loading --------------------------------------------------------------------------------------


def remove(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).unlink()


def overwrite(name: str, content: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_text(content)


def relabel(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    config["id2label"] = {"0": "down", "1": "flat", "2": "up"}
    (path / "config.json").write_text(json.dumps(config))


def drop_head(path: Path) -> None:
    file = path / "model.safetensors"
    left = {k: v for k, v in load_file(file).items() if not k.startswith("classifier.")}
    save_file(left, file, metadata={"format": "pt"})


def pickled(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove("config.json"), ["config.json is missing", "no model that finsent trained"]),
        (remove("model.safetensors"), ["model.safetensors is missing"]),
        (remove("tokenizer.json"), ["tokenizer.json is missing"]),
        (remove("provenance.json"), ["provenance.json is missing"]),
        (pickled, ["model.safetensors is missing"]),
        (relabel, ["config.json", "labels are", "'down'", "'negative'", "Use a model that"]),
        (overwrite("config.json", "{"), ["config.json", "not valid JSON", "damaged"]),
        (overwrite("config.json", "[1]"), ["config.json"]),
        (
            overwrite("provenance.json", "{}"),
            ["provenance.json", "max_length: Field required", "damaged"],
        ),
        (overwrite("provenance.json", "[1]"), ["provenance.json", "valid dictionary", "damaged"]),
        (overwrite("model.safetensors", "half"), ["model.safetensors"]),
        (overwrite("tokenizer.json", '{"version"'), ["tokenizer.json"]),
        (drop_head, ["model.safetensors", "classifier"]),
    ],
    ids=[
        "no config",
        "no weights",
        "no tokenizer",
        "no provenance",
        "pickled weights",
        "other labels",
        "half a config",
        "list for a config",
        "no max_length",
        "list for provenance",
        "half the weights",
        "half a tokenizer",
        "no head",
    ],
)
def test_unusable_directory_is_refused_with_the_file_at_fault(
    model_dir: Path, damage: Callable[[Path], object], words: list[str]
) -> None:
    damage(model_dir)
    with pytest.raises(InputError) as caught:
        Engine(model_dir, EngineConfig())
    text = str(caught.value)
    assert str(model_dir) in text
    assert all(word in text for word in words), text


def test_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none'?: config\.json is missing"):
        Engine(tmp_path / "none", EngineConfig())
