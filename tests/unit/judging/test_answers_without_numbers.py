"""Jobs that measure refuse a model that answers a row by NaN, and write nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from finsent.errors import InputError
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.modeling.classifier import load_tokenizer
from ray_jobs import compare, evaluate
from ray_jobs._cli import Call
from tests.unit.judging.worlds import World

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "measures models")]

PROBLEM = r"runs/nan/model'?: the model's answers are not numbers: .* Use another model\.$"


@pytest.fixture
def damaged(world: World) -> Iterator[Path]:
    """Return a model's directory. Only texts with the word `profit` have answers of NaN."""
    shutil.copytree(world.run("good"), world.run("nan"))
    model_dir = world.run("nan") / "model"
    shutil.rmtree(world.run("nan") / "evaluation")
    weights = model_dir / "model.safetensors"
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(weights)
    [word] = load_tokenizer(str(model_dir))("profit", add_special_tokens=False)["input_ids"]
    tensors["bert.embeddings.word_embeddings.weight"][word] = float("nan")
    save_file(tensors, weights, metadata)
    yield model_dir
    shutil.rmtree(world.run("nan"))


def test_evaluate_refuses_the_model_and_writes_nothing(world: World, damaged: Path) -> None:
    Engine(damaged, EngineConfig(threads=1)).warm_up()  # sees no damage
    out = damaged.parent / "evaluation"
    with pytest.raises(InputError, match=PROBLEM) as caught:
        evaluate.step(world.settings(), damaged, out)
    assert "\n" not in str(caught.value)
    assert not out.exists()


@pytest.mark.usefixtures("damaged")
def test_compare_refuses_the_model_and_writes_nothing(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=PROBLEM):
        compare.run(Call(world.settings(), tmp_path, ["good", "nan"]))
    assert not list(tmp_path.iterdir())
