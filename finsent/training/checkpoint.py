"""A resumable training state on disk: safetensors and JSON, no pickle."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from finsent.disk import find_disk_error
from finsent.errors import InputError, one_line
from finsent.files import digest, read_json, sha256_file, write_json
from finsent.modeling.model_dir import check_model_dir
from finsent.modeling.provenance import Provenance

if TYPE_CHECKING:  # take seconds to import, which choosing a checkpoint can do without
    import torch
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

log = logging.getLogger(__name__)

MODEL = "model"
PREFIX = "checkpoint_"
_OPTIMIZER = "optimizer.safetensors"
# What the next step starts from, where the model's directory has something else: all weights beside
# an average, those that are trained beside merged ones.
_WEIGHTS = "weights.safetensors"
_STATE = "state.json"
_SEAL = ("optimizer_tensors", "files", "digest")  # what a written state has besides
_KEPT_EVERY = 4  # of `train.keep_every_epochs`
_NEWEST = 2  # kept beside the best: should one be damaged, there is another


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a run."""

    folder: Path
    history: list[dict[str, Any]]  # metrics of every finished epoch
    epoch: int  # finished ones
    step: int  # steps into the next epoch; 0: written at the end of one

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the last finished epoch."""
        return self.history[-1]


def epoch_name(epoch: int) -> str:
    """The directory of the checkpoint at the end of an epoch, counted from 1."""
    return f"{PREFIX}epoch_{epoch:04d}"


def step_name(step: int) -> str:
    """The directory of the checkpoint after a step of the run, in the middle of an epoch."""
    return f"{PREFIX}step_{step:08d}"


def saved_checkpoints(run_dir: Path, warn: Callable[[str], None] = log.warning) -> list[Saved]:
    """The run's checkpoints, the newest last; without those that obviously are not whole.

    Args:
        warn: told about those.
    """
    found = []
    needed = (_OPTIMIZER, f"{MODEL}/config.json", f"{MODEL}/model.safetensors")
    for folder in run_dir.glob(f"{PREFIX}[es]*_[0-9]*"):
        try:
            state = read_json(folder / _STATE)
            lacking = [name for name in needed if not (folder / name).is_file()]
            if lacking:
                raise InputError(f"{folder / lacking[0]}: no such file")
            if not isinstance(state, dict) or state.get("digest") != _own_digest(state):
                raise InputError(f"{folder / _STATE}: not as it was written")
            found.append(Saved(folder, state["history"], state["epoch"], state["step"]))
        except InputError as error:
            warn(f"checkpoint {str(folder)!r} is not whole and is not used ({error})")
    return sorted(found, key=lambda saved: (saved.epoch, saved.step))


def best_checkpoint(saved: list[Saved]) -> Saved:
    """The one with the highest macro-F1 on the validation split, of those that were written at the
    end of an epoch; of equals the newest."""
    ends = [one for one in saved if one.step == 0 and one.history]
    return max(ends, key=lambda one: (float(one.metrics["macro_f1"]), one.epoch))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files by size and SHA-256, or None."""
    for name, wanted in read_json(folder / _STATE)["files"].items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != wanted["bytes"]:
            return f"{name} has {size} bytes, not {wanted['bytes']}"
        if sha256_file(file) != wanted["sha256"]:
            return f"{name} has another SHA-256 than when it was written"
    return None


def newest_whole(run_dir: Path, warn: Callable[[str], None] = log.warning) -> Saved | None:
    """The newest checkpoint whose files are all as they were written, or None if there is none.

    Raises:
        InputError: there are some, and all are damaged.
    """
    damaged = []
    for saved in reversed(saved_checkpoints(run_dir, warn)):
        problem = damage(saved.folder)
        if problem is None:
            return saved
        damaged.append(f"{saved.folder.name}: {problem}")
        warn(f"checkpoint {str(saved.folder)!r} is damaged ({problem}); the one before is used")
    if damaged:
        raise InputError(
            f"run.name={run_dir.name!r}: every checkpoint is damaged ({damaged[0]}); begin anew "
            "under another run.name"
        )
    return None


def retain(run_dir: Path, every: int | None = None) -> None:
    """Delete all checkpoints but the best and the two newest.

    Args:
        every: and the last few of those at the end of every so many epochs.
    """
    saved = saved_checkpoints(run_dir)
    kept = {one.folder for one in saved[-_NEWEST:]}
    if every is not None:
        those = [one for one in saved if one.step == 0 and one.epoch % every == 0]
        kept |= {one.folder for one in those[-_KEPT_EVERY:]}
    if any(one.step == 0 for one in saved):
        kept.add(best_checkpoint(saved).folder)
    for folder in run_dir.glob(f"{PREFIX}[es]*_[0-9]*"):
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, as tensors that training may or may not go on to change."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    provenance: dict[str, Any]
    shown: dict[str, torch.Tensor]  # weights that are evaluated and published
    weights: dict[str, torch.Tensor] | None  # what the next step starts from, where it is not those
    moments: dict[str, torch.Tensor]
    state: dict[str, Any]

    def copied(self) -> Snapshot:
        """In main memory, safe from further steps."""
        return replace(
            self,
            shown=_copies(self.shown),
            weights=None if self.weights is None else _copies(self.weights),
            moments=_copies(self.moments),
        )

    def write(self, out: Path) -> None:
        """Write it to an empty directory."""
        from safetensors.torch import save_file

        from finsent.modeling.classifier import save_classifier

        provenance = Provenance.model_validate(self.provenance)
        save_classifier(self.model, self.tokenizer, out / MODEL, provenance, self.shown)
        if self.weights is not None:
            save_file({k: v.contiguous() for k, v in self.weights.items()}, out / _WEIGHTS)
        _save_moments(out, self.moments, self.state)


def _copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def moments(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's tensors by parameter number and name."""
    return {
        f"{index}.{name}": value.detach()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def save_state(out: Path, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Write the optimizer's tensors and a JSON-able state beside the model's directory.

    The state, which is written last, has the digests of all files.
    """
    _save_moments(out, moments(optimizer), state)


def _save_moments(out: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in tensors.items()}, out / _OPTIMIZER)
    files = {
        file.relative_to(out).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": sha256_file(file),
        }
        for file in sorted(out.rglob("*"))
        if file.is_file()
    }
    whole = {**state, "optimizer_tensors": len(tensors), "files": files}
    write_json(out / _STATE, {**whole, "digest": _own_digest(whole)})


def _own_digest(state: dict[str, Any]) -> str:
    return digest({name: value for name, value in state.items() if name != "digest"})


def load_state(
    path: Path,
    model: PreTrainedModel,
    optimizer: Optimizer,
    average: PreTrainedModel | None = None,
) -> dict[str, Any]:
    """Restore model, optimizer and the weights' average in place; returns the JSON state.

    Raises:
        InputError: the checkpoint is incomplete or has other labels.
    """
    from safetensors.torch import load_file, load_model

    state: dict[str, Any] = read_json(path / _STATE)
    check_model_dir(path / MODEL)
    device, own = str(model.device), path / _WEIGHTS
    if average is not None or not own.is_file():
        with _named(path / MODEL / "model.safetensors") as file:
            load_model(model if average is None else average, file, device=device)
    if own.is_file():
        with _named(own) as file:
            _, unknown = load_model(model, file, strict=False, device=device)
            if unknown:
                raise RuntimeError(f"has {unknown[0]}, which the model has not")
    with _named(path / _OPTIMIZER) as file:
        tensors = load_file(file)
        _check_moments(tensors, optimizer, state.get("optimizer_tensors"))
    restored = optimizer.state_dict()
    restored["state"] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        restored["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(restored)
    return {name: value for name, value in state.items() if name not in _SEAL}


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
    import torch

    try:
        yield file
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, OSError, RuntimeError) as error:
        if (unreadable := find_disk_error(error)) is not None:
            raise unreadable.with_path(file) from error
        problem = one_line(error)
        raise InputError(
            f"checkpoint {str(file)!r}: damaged ({problem}); begin anew under another run.name"
        ) from None
