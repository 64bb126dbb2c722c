"""A resumable training state on disk: safetensors and JSON, no pickle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file
from torch.optim import Optimizer
from transformers import PreTrainedModel

from finsent.errors import InputError
from finsent.files import read_json, write_json
from finsent.modeling.layout import check_model_dir

MODEL = "model"
PREFIX = "checkpoint_epoch_"
_OPTIMIZER = "optimizer.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint of a run."""

    folder: Path
    history: list[dict[str, Any]]  # metrics of every epoch up to it

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of its own epoch."""
        return self.history[-1]


def saved_checkpoints(run_dir: Path) -> list[Saved]:
    """The run's checkpoints, the newest last; without any that is only half deleted.

    Raises:
        InputError: one is damaged.
    """
    needed = (_STATE, _OPTIMIZER, f"{MODEL}/config.json", f"{MODEL}/model.safetensors")
    folders = [
        folder
        for folder in run_dir.glob(f"{PREFIX}*")
        if all((folder / name).is_file() for name in needed)
    ]
    found = [Saved(folder, read_json(folder / _STATE)["history"]) for folder in folders]
    return sorted(found, key=lambda saved: int(saved.metrics["epoch"]))


def best_checkpoint(saved: list[Saved]) -> Saved:
    """The one with the highest macro-F1 on the validation split; of equals the newest, as
    Ray Train has it when it deletes the others."""
    return max(saved, key=lambda one: (float(one.metrics["macro_f1"]), int(one.metrics["epoch"])))


def save_state(out: Path, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Write the optimiser's tensors and a JSON-able state beside the model's directory."""
    tensors = {
        f"{index}.{name}": value.detach().contiguous()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    save_file(tensors, out / _OPTIMIZER)
    write_json(out / _STATE, {**state, "optimizer_tensors": len(tensors)})


def load_state(path: Path, model: PreTrainedModel, optimizer: Optimizer) -> dict[str, Any]:
    """Restore model and optimiser in place; returns the JSON state.

    Raises:
        InputError: the checkpoint is incomplete or has other labels.
    """
    state: dict[str, Any] = read_json(path / _STATE)
    check_model_dir(path / MODEL)
    with _named(path / MODEL / "model.safetensors") as file:
        load_model(model, file, device=str(model.device))
    with _named(path / _OPTIMIZER) as file:
        tensors = load_file(file)
        _check_moments(tensors, optimizer, state.pop("optimizer_tensors", None))
    restored = optimizer.state_dict()
    restored["state"] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        restored["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(restored)
    return state


def _check_moments(
    tensors: dict[str, torch.Tensor], optimizer: Optimizer, saved: int | None
) -> None:
    """`Optimizer.load_state_dict` takes any state, and would go on with a wrong one."""
    if len(tensors) != saved:
        raise RuntimeError(f"holds {len(tensors)} tensors, not {saved}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        if key != "step" and tensor.shape != parameters[int(index)].shape:
            raise RuntimeError(f"{name} has another shape than its weights")


@contextmanager
def _named(file: Path) -> Iterator[Path]:
    try:
        yield file
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, OSError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise InputError(
            f"checkpoint {str(file)!r}: damaged ({problem}); begin anew under another run.name"
        ) from None
