"""The state of a training in memory, and its exact copy in a checkpoint: no pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from finsent.disk import find_disk_error
from finsent.errors import InputError
from finsent.files import sha256_file, write_json
from finsent.modeling.classifier import save_classifier
from finsent.modeling.model_dir import check_model_dir
from finsent.modeling.provenance import Provenance
from finsent.records import ContentDigest
from finsent.runs import MODEL_DIR
from finsent.training.checkpoint import (
    OPTIMIZER_FILE,
    STATE_FILE,
    LoopState,
    StateRecord,
    state_digest,
)

# The weights from which the next step starts, where the model's directory has others: all weights
# next to an average, the trained ones next to merged adapters.
_WEIGHTS_FILE = "weights.safetensors"
_MAX_PROBLEM = 200  # characters of a library's message

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingState:
    """All that a checkpoint stores. Its tensors are those of the training until `copied`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    provenance: Provenance
    published_weights: Tensors  # weights that are evaluated and published
    step_weights: Tensors | None  # where the next step starts from others
    optimizer_tensors: Tensors
    loop: LoopState

    def copied(self) -> TrainingState:
        """Return the state with copies in main memory, which further steps do not change."""
        return replace(
            self,
            published_weights=_copies(self.published_weights),
            step_weights=None if self.step_weights is None else _copies(self.step_weights),
            optimizer_tensors=_copies(self.optimizer_tensors),
        )

    def write(self, out: Path) -> None:
        """Write a checkpoint into an empty directory.

        `state.json`, which has the digests of all other files, is written last.
        """
        save_classifier(
            self.model, self.tokenizer, out / MODEL_DIR, self.provenance, self.published_weights
        )
        if self.step_weights is not None:
            _save(self.step_weights, out / _WEIGHTS_FILE)
        _save(self.optimizer_tensors, out / OPTIMIZER_FILE)
        files = {
            file.relative_to(out).as_posix(): ContentDigest(
                bytes=file.stat().st_size, sha256=sha256_file(file)
            ).model_dump()
            for file in sorted(out.rglob("*"))
            if file.is_file()
        }
        content = {
            **self.loop.model_dump(mode="json"),
            "optimizer_tensors": len(self.optimizer_tensors),
            "files": files,
        }
        write_json(out / STATE_FILE, {**content, "digest": state_digest(content)})


def _copies(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _save(tensors: Tensors, file: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def optimizer_tensors(optimizer: Optimizer) -> Tensors:
    """Return the optimizer's tensors by parameter number and name."""
    return {
        f"{index}.{name}": value.detach()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_training_state(
    path: Path,
    model: PreTrainedModel,
    optimizer: Optimizer,
    average: PreTrainedModel | None = None,
) -> LoopState:
    """Restore model, optimizer and average of the weights in place; return the loop's state.

    Raises:
        InputError: the checkpoint is incomplete, damaged, or has other labels.
    """
    state = StateRecord.read(path / STATE_FILE)
    check_model_dir(path / MODEL_DIR)
    _load_weights(path, model, average)
    with _naming(path / OPTIMIZER_FILE) as file:
        tensors = load_file(file)
        _check_optimizer_tensors(tensors, optimizer, state.optimizer_tensors)
    restored = optimizer.state_dict()
    restored["state"] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        restored["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(restored)
    return state


def _load_weights(path: Path, model: PreTrainedModel, average: PreTrainedModel | None) -> None:
    device, weights_file = str(model.device), path / _WEIGHTS_FILE
    if average is not None or not weights_file.is_file():
        with _naming(path / MODEL_DIR / "model.safetensors") as file:
            load_model(model if average is None else average, file, device=device)
    if weights_file.is_file():
        with _naming(weights_file) as file:
            _, unknown = load_model(model, file, strict=False, device=device)
            if unknown:
                raise RuntimeError(f"has {unknown[0]}, which the model does not have")


def _check_optimizer_tensors(
    tensors: Mapping[str, torch.Tensor], optimizer: Optimizer, expected: int
) -> None:
    """Refuse tensors of another model: `Optimizer.load_state_dict` would accept them."""
    if len(tensors) != expected:
        raise RuntimeError(f"holds {len(tensors)} tensors, not {expected}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        if key != "step" and tensor.shape != parameters[int(index)].shape:
            raise RuntimeError(f"{name} has another shape than its weights")


@contextmanager
def _naming(file: Path) -> Iterator[Path]:
    """Name a checkpoint's file in the errors of the block that reads the file."""
    try:
        yield file
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, OSError, RuntimeError) as error:
        if (unreadable := find_disk_error(error)) is not None:
            raise unreadable.with_path(file) from error
        problem = " ".join(str(error).split())[:_MAX_PROBLEM]
        raise InputError(
            f"checkpoint {str(file)!r}: damaged ({problem}). Train under another run.name."
        ) from None
