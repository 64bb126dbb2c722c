"""Hugging Face `Trainer` and Lightning instead of the native loop train the same model."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from finsent.errors import InputError
from finsent.training.config import TrainConfig
from finsent.training.frontends.check import check_trainer
from tests.unit.loop_bench import Bench, Recorder, distance, weights

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.cost(3, "trains with each front end"),
]
OTHERS = ["transformers", "lightning"]


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "loss": {"schedule": "cosine", "label_smoothing": 0.1, "class_weights": "balanced"},
    "layers": {"layer_decay": 0.5, "ema_decay": 0.9, "batch_tokens": 256},
    "adapters": {"lora_rank": 4, "max_grad_norm": 0.05},
    "memory": {"gradient_checkpointing": True},
    "half": {"precision": "bf16"},
    "often": {"checkpoint_every_steps": 5},
}


@pytest.fixture(scope="module")
def bench(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny, tmp_path_factory.mktemp("frontends"))


@pytest.fixture(scope="module")
def native(bench: Bench) -> Callable[[str], Recorder]:
    """Return the native run by the name of its settings; each runs once."""
    return cache(lambda name: bench.run(**SETTINGS[name]))


@pytest.mark.parametrize("trainer", OTHERS)
@pytest.mark.parametrize("name", ["plain", "loss", "layers", "adapters", "memory"])
def test_same_model_as_native(
    bench: Bench, native: Callable[[str], Recorder], trainer: str, name: str
) -> None:
    native_run, run = native(name), bench.run(trainer=trainer, **SETTINGS[name])
    assert distance(weights(native_run.last), weights(run.last)) < 1e-5
    for expected, metrics in zip(native_run.metrics, run.metrics, strict=True):
        for key in ("macro_f1", "validation_confusion", "train_rows", "epoch", "padding_share"):
            assert getattr(expected, key) == getattr(metrics, key), key
        assert metrics.train_loss == pytest.approx(expected.train_loss, abs=1e-5)
    steps = [[line.step for line in run.lines] for run in (native_run, run)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("trainer", OTHERS)
def test_half_precision(bench: Bench, native: Callable[[str], Recorder], trainer: str) -> None:
    """Gradients are summed in another order for their norm, and bf16 has 8 bits."""
    native_run, other_run = native("half"), bench.run(trainer=trainer, **SETTINGS["half"])
    full = native("plain")  # the other front end's is the same, see above
    assert distance(weights(native_run.last), weights(other_run.last)) < 1e-2
    assert distance(weights(full.last), weights(other_run.last)) > 1e-4
    losses = [run.metrics[-1].train_loss for run in (native_run, other_run)]
    assert losses[0] == pytest.approx(losses[1], abs=0.01)


@pytest.mark.parametrize("trainer", OTHERS)
def test_any_front_end_resumes_in_mid_epoch(
    bench: Bench, native: Callable[[str], Recorder], trainer: str
) -> None:
    settings = SETTINGS["often"]
    name = "checkpoint_step_00000015"
    uninterrupted = native("often")
    stopped = bench.run(stop_after=name, trainer=trainer, **settings)
    for resuming_trainer in (trainer, "native"):
        resumed = bench.run(resume=stopped.folder / name, trainer=resuming_trainer, **settings)
        assert distance(weights(uninterrupted.last), weights(resumed.last)) < 1e-5
        assert resumed.start_step == 15


@pytest.mark.parametrize("trainer", OTHERS)
def test_patience_and_a_finished_run(bench: Bench, trainer: str) -> None:
    run = bench.run(trainer=trainer, epochs=30, patience=1, learning_rate=1e-6)
    assert len(run.metrics) == 2
    assert "macro-F1 has not risen" in run.notes[0]
    again = bench.run(resume=run.last, trainer=trainer, epochs=2)
    assert again.metrics == []


@pytest.mark.parametrize(
    ("settings", "package", "extra"),
    [
        ({"trainer": "transformers"}, "accelerate", "transformers"),
        ({"trainer": "lightning"}, "lightning", "lightning"),
    ],
)
def test_missing_package_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], package: str, extra: str
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(InputError) as caught:
        check_trainer(TrainConfig.model_validate(settings))
    assert f"needs the package {package}. Run pip install 'finsent[{extra}]'" in str(caught.value)


@pytest.mark.parametrize("trainer", OTHERS)
@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"accumulation_steps": 2}, "Set train.accumulation_steps=1"),
        ({"unfreeze_epochs": 1.0}, "Set train.unfreeze_epochs=0.0"),
        ({"compile": True}, "Set train.compile=false"),
        ({"precision": "fp16"}, "Set train.precision=bf16"),
        ({"num_workers": [1, 2]}, "Set train.num_workers=2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_unsupported_setting_is_refused(
    trainer: str, settings: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_trainer(TrainConfig.model_validate({"trainer": trainer, **settings}))
    assert remedy in str(caught.value)
    assert f"train.trainer='{trainer}' does not support it" in str(caught.value)
