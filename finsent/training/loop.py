"""The per-worker training loop: plain PyTorch DDP, the same under Ray, torchrun, or alone.

It knows nothing of Ray. Whoever starts it initialises the process group (or does not, for one
worker) and passes hooks that carry progress and checkpoints outside.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from finsent.errors import InputError
from finsent.evaluation.metrics import confusion, scores
from finsent.labels import LABELS
from finsent.modeling.classifier import load_tokenizer, new_classifier, save_classifier
from finsent.training.batches import epoch_batches, share, sorted_batches
from finsent.training.checkpoint import MODEL, load_state, save_state
from finsent.training.config import TrainConfig
from finsent.training.optim import build_optimizer, build_schedule
from finsent.training.progress import Progress
from finsent.training.task import Task
from finsent.training.tokens import Batch, TokenRows

_EVALUATION_ROWS = 64
_INFORM_EVERY = 0.5  # seconds between two progress messages


class Hooks(Protocol):
    """The loop's ways out, called on every rank."""

    def inform(self, progress: Progress) -> None:
        """Show progress. Must not block."""

    def epoch_done(self, metrics: dict[str, Any], save: Callable[[Path], None] | None) -> None:
        """Take an epoch's metrics; `save` writes the checkpoint (rank 0 only, else None)."""


@dataclass
class _Sums:
    """What an epoch adds up on one rank; all numbers, so that ranks can be summed."""

    loss: float = 0.0
    rows: int = 0
    tokens: int = 0
    padded: int = 0

    def add(self, batch: Batch, loss: float) -> None:
        self.loss += loss
        self.rows += len(batch.labels)
        self.tokens += batch.tokens
        self.padded += batch.padded_tokens


@dataclass
class _World:
    """This process among the workers."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls, device: torch.device) -> _World:
        if not dist.is_initialized():
            return cls(device=device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def total(self, values: Any) -> torch.Tensor:
        """Sum an array over the ranks, in double precision."""
        tensor = torch.as_tensor(values, dtype=torch.float64, device=self.device)
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor.cpu()


def train(
    task: Task,
    train_rows: TokenRows,
    validation_rows: TokenRows,
    hooks: Hooks,
    device: torch.device,
    resume: Path | None = None,
) -> None:
    """Fine-tune and report each epoch to the hooks.

    One step uses `batch_size` rows over all ranks, so the result does not depend on the number of
    workers (but for the order of floating-point sums and for dropout's random numbers).

    Args:
        train_rows: all rows, on every rank; each rank takes its share of each batch.
        resume: a checkpoint written by this loop; training goes on with the next epoch.
    """
    world = _World.current(device)
    config = task.config
    model = new_classifier(task.backbone, config.seed)
    torch.nn.Module.to(model, device)  # the subclass hides its signature
    limit = getattr(model.config, "max_position_embeddings", task.max_length)
    if task.max_length > limit:
        raise InputError(
            f"model.max_length={task.max_length}: {task.backbone.name} takes at most {limit} "
            "tokens; lower it"
        )
    tokenizer = load_tokenizer(task.backbone.source, task.backbone.revision)
    optimizer = build_optimizer(model, config)
    state: dict[str, Any] = {"epoch": 0, "history": []}
    if resume:
        state = load_state(resume, model, optimizer)
    steps = math.ceil(len(train_rows) / config.batch_size)
    schedule = build_schedule(optimizer, config, config.epochs * steps, state["epoch"] * steps)
    wrapped = _wrap(model, world)
    for epoch in range(state["epoch"], config.epochs):
        began, started = time.time(), time.perf_counter()
        _seed_dropout(config.seed, epoch, world.rank)
        sums = _train_epoch(
            wrapped, optimizer, schedule, train_rows, epoch, config, world, hooks
        )  # fmt: skip
        trained = time.perf_counter()
        metrics = _validate(model, validation_rows, config, world)
        metrics |= {"epoch": epoch + 1, "learning_rate": float(schedule.get_last_lr()[0])}
        metrics |= _throughput(sums, world, trained - started)
        metrics |= {"began": began, "epoch_seconds": time.perf_counter() - started}
        state = {"epoch": epoch + 1, "history": [*state["history"], metrics]}
        save = _saver(task, model, tokenizer, optimizer, state) if world.rank == 0 else None
        hooks.epoch_done(metrics, save)


def _seed_dropout(*parts: int) -> None:
    # Anew for each epoch and rank: a resumed run draws the numbers of an undisturbed one.
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))


def _wrap(model: PreTrainedModel, world: _World) -> torch.nn.Module:
    if world.size == 1:
        return model
    ids = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def _train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    rows: TokenRows,
    epoch: int,
    config: TrainConfig,
    world: _World,
    hooks: Hooks,
) -> _Sums:
    model.train()
    sums, informed, seen = _Sums(), 0.0, epoch * len(rows)
    batches = epoch_batches(
        rows.lengths, config.batch_size, config.bucket_batches, config.seed, epoch
    )
    for indices in batches:
        mine = share(indices, world.rank, world.size)
        # A rank without a row must still take part in the gradient exchange: with weight 0.
        batch = rows.batch(mine if len(mine) else indices[:1])
        with _autocast(config, world.device):
            total = _loss_sum(model, batch, world.device) * (1.0 if len(mine) else 0.0)
        # DDP averages over ranks; with this factor the average is the mean over the batch's rows.
        (total * (world.size / len(indices))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        seen += len(indices)
        if len(mine):
            loss = float(total.detach())
            if not math.isfinite(loss):
                raise InputError(
                    f"train.learning_rate={config.learning_rate}: the loss is {loss} in epoch "
                    f"{epoch + 1}; lower the rate"
                )
            sums.add(batch, loss)
        if time.monotonic() - informed > _INFORM_EVERY or seen == (epoch + 1) * len(rows):
            informed = time.monotonic()
            hooks.inform(
                Progress(
                    rows=seen,
                    total_rows=config.epochs * len(rows),
                    epoch=epoch + 1,
                    loss=sums.loss / max(sums.rows, 1),
                    padding_share=1 - sums.tokens / max(sums.padded, 1),
                )
            )
    return sums


def _loss_sum(model: torch.nn.Module, batch: Batch, device: torch.device) -> torch.Tensor:
    return functional.cross_entropy(
        _logits(model, batch, device), batch.labels.to(device), reduction="sum"
    )


def _logits(model: torch.nn.Module, batch: Batch, device: torch.device) -> torch.Tensor:
    output = model(
        input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device)
    )
    logits: torch.Tensor = output.logits.float()
    return logits


def _autocast(config: TrainConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


@torch.no_grad()
def _validate(
    model: PreTrainedModel, rows: TokenRows, config: TrainConfig, world: _World
) -> dict[str, Any]:
    """Exact metrics over all ranks: each row counts once, however the rows divide."""
    model.eval()
    matrix, loss = np.zeros((len(LABELS), len(LABELS)), np.int64), 0.0
    for indices in sorted_batches(rows.lengths, world.rank, world.size, _EVALUATION_ROWS):
        batch = rows.batch(indices)
        with _autocast(config, world.device):
            logits = _logits(model, batch, world.device)
        labels = batch.labels.to(world.device)
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        matrix += confusion(batch.labels.numpy(), logits.argmax(-1).cpu().numpy())
    counts = world.total(matrix).numpy().astype(np.int64)
    found = scores(counts)
    return {
        "macro_f1": found["macro_f1"],
        "accuracy": found["accuracy"],
        "validation_loss": float(world.total(loss)) / max(len(rows), 1),
        "validation_rows": found["rows"],
        "validation_confusion": found["confusion"],
    }


def _throughput(sums: _Sums, world: _World, seconds: float) -> dict[str, Any]:
    values = asdict(sums)
    totals = dict(zip(values, world.total(list(values.values())).tolist(), strict=True))
    return {
        "train_loss": totals["loss"] / totals["rows"],
        "train_rows": int(totals["rows"]),
        "rows_per_second": totals["rows"] / seconds,
        "tokens_per_second": totals["tokens"] / seconds,  # real ones, without padding
        "padding_share": 1 - totals["tokens"] / totals["padded"],
    }


def _saver(
    task: Task,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> Callable[[Path], None]:
    def save(out: Path) -> None:
        provenance = {**task.provenance, "epoch": state["epoch"]}
        save_classifier(model, tokenizer, out / MODEL, provenance)
        save_state(out, optimizer, state)

    return save


def epoch_lines(history: list[dict[str, Any]]) -> Iterator[str]:
    """A line an epoch, for logs."""
    for m in history:
        yield (
            f"epoch {m['epoch']}: macro-F1 {m['macro_f1']:.3f}, accuracy {m['accuracy']:.3f}, "
            f"loss {m['train_loss']:.3f} / {m['validation_loss']:.3f}, "
            f"{m['rows_per_second']:.1f} rows/s, {m['tokens_per_second']:.0f} tokens/s, "
            f"padding {m['padding_share']:.1%}"
        )
