"""Backends of the engine answer as the model does."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file

from finsent.errors import InputError
from finsent.export.exporter import export_model
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.modeling.model_dir import EXPORTS
from tests.unit.exports.engines import ALL, ANY, EXACT, corpus, engine
from tests.unit.models import MAX_LENGTH, TEXTS

pytestmark = [
    pytest.mark.cost(8, "loads and measures backends"),
    pytest.mark.usefixtures("keep_threads"),
]


@pytest.mark.parametrize("name", ["torch-fp32", *sorted(ALL)])
def test_answer_does_not_depend_on_the_company(exported: Path, name: str) -> None:
    """Random mixes of texts, at random token budgets."""
    draw = random.Random(7)
    texts = [*TEXTS, *corpus(20)]
    single = engine(exported, name)
    alone = {text: single.probabilities([text])[0] for text in texts}
    tolerance = 1e-5 if name.endswith("fp32") else 2e-2
    for _ in range(4):
        mix = draw.choices(texts, k=draw.randint(2, 50))
        probabilities = engine(
            exported, name, token_budget=draw.choice([16, 300, 4096])
        ).probabilities(mix)
        for text, row in zip(mix, probabilities, strict=True):
            assert row == pytest.approx(alone[text], abs=tolerance), (name, text)


@pytest.mark.parametrize("name", sorted(ALL))
def test_streams_side_by_side_do_not_mix_answers(exported: Path, name: str) -> None:
    texts = corpus(200)
    single_thread, two_threads = (
        engine(exported, name, threads=n).probabilities(texts) for n in (1, 2)
    )
    assert two_threads == pytest.approx(single_thread, abs=1e-5 if name.endswith("fp32") else 2e-2)


def test_measured_backend_is_chosen_and_said(
    exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        measured = Engine(exported, EngineConfig(threads=1))
    assert measured.rates.keys() == ALL  # on a CPU torch only where there is nothing else
    # On a busy machine the second, see test_choice.py.
    assert re.search(rf"engine: {measured.backend.name}( is|, usually) the fastest", caplog.text)
    assert measured.probabilities(TEXTS).shape == (len(TEXTS), len(LABELS))


def test_precision_limits_the_choice(exported: Path) -> None:
    assert Engine(exported, EngineConfig(precision="fp32")).backend.name == "onnxruntime-fp32"
    assert Engine(exported, EngineConfig().exact()).backend.name == "torch-fp32"
    config = EngineConfig(backend="openvino")
    assert config.exact() == config


def test_model_without_exports_takes_torch(own: Path) -> None:
    assert Engine(own, EngineConfig(threads=1)).backend.name == "torch-fp32"
    with pytest.raises(InputError, match=r"engine\.backend='onnxruntime'.*ray_jobs\.export"):
        Engine(own, EngineConfig(backend="onnxruntime"))


def test_bf16_and_compiled_torch_answer_alike(own: Path) -> None:
    exact = Engine(own, EXACT).probabilities(TEXTS)
    half = Engine(own, EngineConfig(backend="torch", precision="bf16")).probabilities(TEXTS)
    assert half == pytest.approx(exact, abs=0.1)
    assert np.abs(half - exact).max() > 1e-5


@pytest.mark.parametrize("name", ["torch-fp32", *sorted(ALL)])
def test_warming_up_changes_no_answer(exported: Path, name: str) -> None:
    warm = engine(exported, name)
    warm.warm_up()
    expected = engine(exported, name).probabilities(TEXTS)
    assert warm.probabilities(TEXTS) == pytest.approx(expected, abs=1e-6)


def test_weights_that_are_no_numbers_are_found_when_warming_up(own: Path, rows: pa.Table) -> None:
    weights = load_file(own / "model.safetensors")
    weights["classifier.weight"][0, 0] = float("nan")
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="not numbers"):
        Engine(own, EXACT).warm_up()
    with pytest.raises(InputError, match="not numbers"):
        export_model(own, rows, ANY, EXACT, {})
    assert not (own / EXPORTS).exists()


def test_long_texts_are_cut_where_the_config_says(exported: Path) -> None:
    long = "profit rose " * 100 + "loss fell " * 100
    right = engine(exported, "onnxruntime-fp32")
    left = engine(exported, "onnxruntime-fp32", truncate="left")
    strict = engine(exported, "onnxruntime-fp32", truncate="error")
    [cut] = right.encode([long])
    assert cut.truncated
    assert len(cut.ids) == MAX_LENGTH
    assert not right.encode(["short"])[0].truncated
    assert right.encode([long])[0].ids != left.encode([long])[0].ids
    assert left.encode([long])[0].ids[1:-1] == left.encode(["loss fell " * 100])[0].ids[1:-1]
    with pytest.raises(InputError, match=rf"text 2 has more than {MAX_LENGTH} tokens"):
        strict.classify(["short", long])
