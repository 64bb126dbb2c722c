"""Gradients of one step over a global batch, in as many micro-batches as memory allows.

The loss of a step is the weighted mean over the batch's rows on all ranks, whatever the number of
ranks and micro-batches: each micro-batch adds its weighted sum over the weight of the whole batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from finsent.adapters.torch_training import without_compile
from finsent.errors import MemoryShortageError
from finsent.training.batches import Indices, rank_rows
from finsent.training.config import TrainConfig
from finsent.training.distributed import DistributedContext
from finsent.training.epoch_meter import EpochMeter
from finsent.training.loss import Weights, autocast, forward, loss_sum
from finsent.training.metrics import MIN_WEIGHT
from finsent.training.tokens import Batch, TokenizedRows

BatchLoss = Callable[[Batch, Weights], torch.Tensor]
_MAX_SHORTAGE = 160  # characters of PyTorch's message


class GradientAccumulator:
    """Computes the gradients of a step in micro-batches.

    When memory runs out, the micro-batches are halved for the rest of the run. The ranks have to
    agree on that, and cannot while they wait for each other in DDP's gradient exchange. So a step
    with a micro-batch that is larger than any that has fitted yet is computed without the exchange.
    Then the ranks report whether it fitted, and exchange gradients by `all_reduce`.

    Args:
        on_note: receives a message when the micro-batches are halved.
        batch_loss: weighted sum of the losses of a micro-batch; None: by the model.
        checks_memory: whether memory can run out; None: on a GPU only.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        config: TrainConfig,
        context: DistributedContext,
        on_note: Callable[[str], None],
        scaler: torch.amp.GradScaler | None = None,
        batch_loss: BatchLoss | None = None,
        checks_memory: bool | None = None,
    ) -> None:
        self._model, self._config, self._context = model, config, context
        self._on_note, self._scaler = on_note, scaler
        self._batch_loss = batch_loss or self._model_loss
        on_gpu = context.device.type == "cuda"
        self._checks_memory = on_gpu if checks_memory is None else checks_memory
        self._fitted: list[tuple[int, int]] = []  # (rows, longest row in tokens) of micro-batches
        self.micro_batches = config.micro_batches(context.world_size)

    def compute(
        self, rows: TokenizedRows, weights: Weights, batch: Indices, meter: EpochMeter
    ) -> None:
        """Set the step's gradients, the same on all ranks, and count the rows in the meter.

        Raises:
            MemoryShortageError: a single row does not fit in memory.
        """
        while True:
            is_distributed = self._context.world_size > 1
            careful = self._checks_memory and is_distributed and not self._has_fitted(rows, batch)
            shortage = None
            try:
                loss = self._accumulate(rows, weights, batch, exchange=not careful)
            except torch.OutOfMemoryError as error:
                if is_distributed and not careful:
                    raise  # the other ranks wait in the exchange: only a restart helps
                shortage = str(error)  # the exception would keep the tensors alive
            if not (self._context.any(shortage is not None) if careful else shortage):
                if careful:
                    self._exchange()
                self._remember(rows, batch)
                own_rows = rank_rows(batch, self._context.rank, self._context.world_size)
                padded = self._padded_tokens(rows, own_rows)
                meter.add(loss, weights[own_rows], rows.lengths[own_rows], padded)
                return
            self._model.zero_grad(set_to_none=True)
            if self._context.device.type == "cuda":
                torch.cuda.empty_cache()
            self._halve(rows, batch, shortage)

    def _split(self, own_rows: Indices) -> list[Indices]:
        if not len(own_rows):
            return []
        return np.array_split(own_rows, min(len(own_rows), self.micro_batches))

    def _padded_tokens(self, rows: TokenizedRows, own_rows: Indices) -> int:
        return sum(
            len(micro_rows) * int(rows.lengths[micro_rows].max())
            for micro_rows in self._split(own_rows)
        )

    def _accumulate(
        self, rows: TokenizedRows, weights: Weights, batch: Indices, *, exchange: bool
    ) -> torch.Tensor:
        context = self._context
        batch_weight = float(weights[batch].sum())
        parts = self._split(rank_rows(batch, context.rank, context.world_size))
        # A rank without rows still takes part in the gradient exchange: with a row of weight 0.
        factor = 1.0 if parts else 0.0
        parts = parts or [batch[:1]]
        total = torch.zeros((), dtype=torch.float64, device=context.device)
        for number, micro_rows in enumerate(parts):
            is_last = number == len(parts) - 1
            with self._exchanging(exchange and is_last):
                loss = self._batch_loss(rows.batch(micro_rows), weights[micro_rows] * factor)
                # DDP averages over ranks; with this factor the average is the batch's mean.
                mean = loss * (context.world_size / max(batch_weight, MIN_WEIGHT))
                (self._scaler.scale(mean) if self._scaler else mean).backward()
            total += loss.detach()
        return total

    def _model_loss(self, batch: Batch, weights: Weights) -> torch.Tensor:
        with autocast(self._config, self._context.device):
            logits = forward(self._model, batch, self._context.device)
        return loss_sum(logits, batch.targets, weights, self._config.label_smoothing)

    def _exchanging(self, exchange: bool) -> contextlib.AbstractContextManager[None]:
        ddp = without_compile(self._model)
        if exchange or not isinstance(ddp, DistributedDataParallel):
            return contextlib.nullcontext()
        return ddp.no_sync()

    def _exchange(self) -> None:
        """Average each gradient over the ranks, as DDP's backward pass does."""
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(self._context.world_size)
                dist.all_reduce(parameter.grad)

    # --- memory -----------------------------------------------------------------------------------

    def _shapes(self, rows: TokenizedRows, batch: Indices) -> set[tuple[int, int]]:
        """Return (rows, longest row) of all ranks' micro-batches, which every rank can compute."""
        size = self._context.world_size
        parts = (
            micro_rows
            for rank in range(size)
            for micro_rows in self._split(rank_rows(batch, rank, size))
        )
        return {(len(micro_rows), int(rows.lengths[micro_rows].max())) for micro_rows in parts}

    def _has_fitted(self, rows: TokenizedRows, batch: Indices) -> bool:
        return all(
            any(count <= max_count and longest <= limit for max_count, limit in self._fitted)
            for count, longest in self._shapes(rows, batch)
        )

    def _remember(self, rows: TokenizedRows, batch: Indices) -> None:
        is_checked = self._checks_memory and self._context.world_size > 1
        if is_checked and not self._has_fitted(rows, batch):
            self._fitted.extend(self._shapes(rows, batch))

    def _halve(self, rows: TokenizedRows, batch: Indices, shortage: str | None) -> None:
        max_count, longest = max(self._shapes(rows, batch))
        free = ""
        if self._context.device.type == "cuda":
            free_bytes, total_bytes = torch.cuda.mem_get_info(self._context.device)
            free = f", {free_bytes / 2**30:.1f} of {total_bytes / 2**30:.1f} GiB free"
        if max_count <= 1:
            raise MemoryShortageError(
                f"model.max_length: a row of {longest} tokens does not fit in memory "
                f"({_brief(shortage)}{free}). Lower model.max_length, set "
                "train.gradient_checkpointing=true, or use a smaller backbone."
            )
        # More micro-batches than rows would change nothing.
        most_rows = -(-len(batch) // self._context.world_size)
        self.micro_batches = 2 * min(self.micro_batches, most_rows)
        self._on_note(
            f"out of memory with micro-batches of {max_count} rows of up to {longest} tokens"
            f"{free}: halved. Each worker now computes a step in {self.micro_batches} "
            f"micro-batches (train.accumulation_steps={self.micro_batches})"
        )


def _brief(shortage: str | None) -> str:
    return "on another worker" if shortage is None else " ".join(shortage.split())[:_MAX_SHORTAGE]
