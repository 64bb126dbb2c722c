"""A checkpoint restores the exact state of training, and contains no pickle."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_tokenizer, new_classifier
from finsent.modeling.provenance import Provenance
from finsent.runs import MODEL_DIR
from finsent.training.checkpoint import LoopState
from finsent.training.config import TrainConfig
from finsent.training.optim import build_optimizer
from finsent.training.training_state import TrainingState, load_training_state, optimizer_tensors
from tests.unit.metrics import epoch_metrics

pytestmark = pytest.mark.usefixtures("one_thread")

LOOP = LoopState(epoch=2, step=3, history=[epoch_metrics(1), epoch_metrics(2)])
Trainer = tuple[PreTrainedModel, torch.optim.AdamW]


def trainer(tiny: Path, seed: int) -> Trainer:
    model = new_classifier(Backbone("tiny", str(tiny)), seed)
    model.eval()  # no dropout: steps are comparable
    return model, build_optimizer(model, TrainConfig(learning_rate=0.01))


def step(model: PreTrainedModel, optimizer: torch.optim.AdamW, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(5, 100, (4, 6), generator=generator)
    labels = torch.tensor([0, 1, 2, number % 3])
    model(input_ids=ids, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def save(tiny: Path, made: Trainer, out: Path) -> Path:
    model, optimizer = made
    out.mkdir()
    state = TrainingState(
        model=model,
        tokenizer=load_tokenizer(str(tiny)),
        provenance=Provenance(max_length=64),
        published_weights=model.state_dict(),
        step_weights=None,
        optimizer_tensors=optimizer_tensors(optimizer),
        loop=LOOP,
    )
    state.write(out)
    return out


@pytest.fixture
def trained(tiny: Path) -> Trainer:
    made = trainer(tiny, seed=1)
    for number in range(3):
        step(*made, number)
    return made


def test_next_steps_equal_those_of_an_uninterrupted_run(
    tiny: Path, trained: Trainer, tmp_path: Path
) -> None:
    path = save(tiny, trained, tmp_path / "c")
    restored = trainer(tiny, seed=2)  # another head, and an optimizer that has not stepped
    state = load_training_state(path, *restored)
    assert {name: getattr(state, name) for name in LoopState.model_fields} == dict(LOOP)
    for number in range(3, 6):
        step(*trained, number)
        step(*restored, number)
    for (name, expected), parameter in zip(
        trained[0].named_parameters(), restored[0].parameters(), strict=True
    ):
        assert torch.equal(expected, parameter), name


def test_optimizer_state_matters(tiny: Path, trained: Trainer, tmp_path: Path) -> None:
    """With weights alone the steps differ, so the test above depends on the optimizer's state."""
    path = save(tiny, trained, tmp_path / "c")
    forgetful = trainer(tiny, seed=2)
    load_training_state(path, forgetful[0], trainer(tiny, seed=3)[1])
    step(*trained, 3)
    step(*forgetful, 3)
    expected, changed = (m[0].get_parameter("classifier.weight") for m in (trained, forgetful))
    assert float((expected - changed).detach().abs().max()) > 1e-3


def test_rates_and_decay_come_from_the_config_not_from_the_checkpoint(
    tiny: Path, trained: Trainer, tmp_path: Path
) -> None:
    path = save(tiny, trained, tmp_path / "c")
    model = trainer(tiny, seed=2)[0]
    optimizer = build_optimizer(model, TrainConfig(learning_rate=0.5, weight_decay=0.3))
    load_training_state(path, model, optimizer)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.5, 0.3), (0.5, 0)]


def test_nothing_is_pickled(tiny: Path, trained: Trainer, tmp_path: Path) -> None:
    path = save(tiny, trained, tmp_path / "c")
    files = [file for file in path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".txt"}
    assert {"optimizer.safetensors", "model.safetensors"} <= {file.name for file in files}
    for file in files:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))


# --- what is refused ------------------------------------------------------------------------------


def relabel(path: Path) -> None:
    file = path / MODEL_DIR / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["id2label"] = {"0": "positive", "1": "neutral", "2": "negative"}
    file.write_text(json.dumps(config), encoding="utf-8")


def without_labels(path: Path) -> None:
    file = path / MODEL_DIR / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    del config["id2label"]
    file.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("change", [relabel, without_labels])
def test_other_labels_are_refused_before_weights_are_loaded(
    tiny: Path, trained: Trainer, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = save(tiny, trained, tmp_path / "c")
    change(path)
    model, optimizer = trainer(tiny, seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_training_state(path, model, optimizer)
    text = str(caught.value)
    assert str(path / MODEL_DIR / "config.json") in text
    assert "labels are" in text
    assert "'negative'" in text
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def remove(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).unlink()


def truncate(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:50])


def drop_head(path: Path) -> None:
    file = path / MODEL_DIR / "model.safetensors"
    left = {k: v for k, v in load_file(file).items() if not k.startswith("classifier.")}
    save_file(left, file, metadata={"format": "pt"})


def drop_moments(path: Path) -> None:
    file = path / "optimizer.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not k.startswith("3.")}, file)


def other_moments(path: Path) -> None:
    """Write the tensors of an encoder of another width."""
    file = path / "optimizer.safetensors"
    save_file({k: torch.cat([v, v]) if v.ndim else v for k, v in load_file(file).items()}, file)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_disk_error_is_not_reported_as_damage(
    number: int,
    tiny: Path,
    trained: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, "fails")

    path = save(tiny, trained, tmp_path / "c")
    monkeypatch.setattr("safetensors.torch.load_file", fail)
    with pytest.raises(DiskError) as caught:
        load_training_state(path, *trainer(tiny, seed=2))
    assert (caught.value.number, caught.value.path) == (
        number,
        path / MODEL_DIR / "model.safetensors",
    )


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (remove("state.json"), "state.json"),
        (remove("optimizer.safetensors"), "optimizer.safetensors"),
        (remove("model/config.json"), "config.json"),
        (remove("model/model.safetensors"), "model.safetensors"),
        (truncate("state.json"), "state.json"),
        (truncate("optimizer.safetensors"), "optimizer.safetensors"),
        (truncate("model/model.safetensors"), "model.safetensors"),
        (drop_head, "model.safetensors"),
        (drop_moments, "optimizer.safetensors"),
        (other_moments, "optimizer.safetensors"),
    ],
    ids=[
        "no state",
        "no optimizer",
        "no config",
        "no weights",
        "half a state",
        "half an optimizer",
        "half the weights",
        "no head",
        "a parameter's moments lost",
        "moments of another encoder",
    ],
)
def test_damaged_checkpoint_is_refused_by_the_name_of_its_file(
    tiny: Path, trained: Trainer, tmp_path: Path, damage: Callable[[Path], object], named: str
) -> None:
    path = save(tiny, trained, tmp_path / "c")
    damage(path)
    with pytest.raises(InputError) as caught:
        load_training_state(path, *trainer(tiny, seed=2))
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
