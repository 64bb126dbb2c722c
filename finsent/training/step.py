"""One optimizer step over a global batch: shares, micro-batches, exact weights, too little memory.

The loss of a step is the weighted mean over the batch's rows on all ranks, whatever the number of
ranks and micro-batches: every part adds its weighted sum over the weight of the whole batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from finsent.errors import MemoryShortageError
from finsent.training.batches import Indices, share
from finsent.training.config import TrainConfig
from finsent.training.loss import Weights, autocast, forward, half_type, loss_sum
from finsent.training.meter import Meter
from finsent.training.optim import Thaw
from finsent.training.tokens import Batch, TokenRows
from finsent.training.world import World

LossOf = Callable[[Batch, Weights], torch.Tensor]


class Gradients:
    """Computes the gradients of a step, in as many micro-batches as memory asks for.

    When memory does not suffice, the micro-batches are halved for the rest of the run. The ranks
    have to agree on that, and cannot while they wait for each other in DDP's gradient exchange. So
    a step with a micro-batch that is larger than any that has fitted yet is computed without the
    exchange; the ranks then tell each other whether it fitted, and exchange gradients by hand.

    Args:
        loss_of: weighted sum of the losses of a micro-batch; the default computes it by the model.
        guard: whether memory can run out; by default on a GPU.
        note: told what is changed.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        config: TrainConfig,
        world: World,
        note: Callable[[str], None],
        scaler: torch.amp.GradScaler | None = None,
        loss_of: LossOf | None = None,
        guard: bool | None = None,
    ) -> None:
        self._model, self._config, self._world, self._note = model, config, world, note
        self._scaler = scaler
        self._loss_of = loss_of or self._model_loss
        self._guard = world.device.type == "cuda" if guard is None else guard
        self._fitted: list[tuple[int, int]] = []  # (rows, longest) of micro-batches
        self.parts = config.parts(world.size)

    def compute(self, rows: TokenRows, weights: Weights, batch: Indices, meter: Meter) -> None:
        """Leave the step's gradients in the parameters, the same on all ranks, and count the rows.

        Raises:
            InputError: memory does not suffice for a single row.
        """
        while True:
            careful = self._guard and self._world.size > 1 and not self._has_fitted(rows, batch)
            shortage = None
            try:
                loss = self._accumulate(rows, weights, batch, exchange=not careful)
            except torch.OutOfMemoryError as error:
                if self._world.size > 1 and not careful:
                    raise  # the others wait in the exchange: only a restart helps
                shortage = str(error)  # not the error: it would keep the tensors alive
            if not (self._world.any(shortage is not None) if careful else shortage):
                if careful:
                    self._exchange()
                self._remember(rows, batch)
                mine = share(batch, self._world.rank, self._world.size)
                meter.add(loss, weights[mine], rows.lengths[mine], self._padded(rows, mine))
                return
            self._model.zero_grad(set_to_none=True)
            if self._world.device.type == "cuda":
                torch.cuda.empty_cache()
            self._halve(rows, batch, shortage)

    def _parts(self, mine: Indices) -> list[Indices]:
        return np.array_split(mine, min(len(mine), self.parts)) if len(mine) else []

    def _padded(self, rows: TokenRows, mine: Indices) -> int:
        return sum(len(part) * int(rows.lengths[part].max()) for part in self._parts(mine))

    def _accumulate(
        self, rows: TokenRows, weights: Weights, batch: Indices, *, exchange: bool
    ) -> torch.Tensor:
        world = self._world
        whole = float(weights[batch].sum())
        parts = self._parts(share(batch, world.rank, world.size))
        # A rank without a row must still take part in the gradient exchange: with weight 0.
        counts = 1.0 if parts else 0.0
        parts = parts or [batch[:1]]
        total = torch.zeros((), dtype=torch.float64, device=world.device)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with self._exchanging(exchange and last):
                loss = self._loss_of(rows.batch(part), weights[part] * counts)
                # DDP averages over ranks; with this factor the average is the batch's mean.
                mean = loss * (world.size / max(whole, 1e-12))
                (self._scaler.scale(mean) if self._scaler else mean).backward()
            total += loss.detach()
        return total

    def _model_loss(self, batch: Batch, weights: Weights) -> torch.Tensor:
        with autocast(self._config, self._world.device):
            logits = forward(self._model, batch, self._world.device)
        return loss_sum(logits, batch.targets, weights, self._config.label_smoothing)

    def _exchanging(self, wanted: bool) -> contextlib.AbstractContextManager[Any]:
        ddp = getattr(self._model, "_orig_mod", self._model)  # inside what torch.compile made
        if wanted or not isinstance(ddp, DistributedDataParallel):
            return contextlib.nullcontext()
        return ddp.no_sync()

    def _exchange(self) -> None:
        """What DDP does in its backward pass: the mean of each gradient over the ranks."""
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(self._world.size)
                dist.all_reduce(parameter.grad)

    # --- memory -----------------------------------------------------------------------------------

    def _shapes(self, rows: TokenRows, batch: Indices) -> set[tuple[int, int]]:
        """Rows and longest row of all ranks' micro-batches: every rank knows them all."""
        size = self._world.size
        parts = (part for rank in range(size) for part in self._parts(share(batch, rank, size)))
        return {(len(part), int(rows.lengths[part].max())) for part in parts}

    def _has_fitted(self, rows: TokenRows, batch: Indices) -> bool:
        return all(
            any(count <= most and longest <= limit for most, limit in self._fitted)
            for count, longest in self._shapes(rows, batch)
        )

    def _remember(self, rows: TokenRows, batch: Indices) -> None:
        if self._guard and self._world.size > 1 and not self._has_fitted(rows, batch):
            self._fitted.extend(self._shapes(rows, batch))

    def _halve(self, rows: TokenRows, batch: Indices, shortage: str | None) -> None:
        shapes = self._shapes(rows, batch)
        most, longest = max(shapes)
        free = ""
        if self._world.device.type == "cuda":
            left, whole = torch.cuda.mem_get_info(self._world.device)
            free = f", {left / 2**30:.1f} of {whole / 2**30:.1f} GiB free"
        if most <= 1:
            raise MemoryShortageError(
                f"model.max_length: memory does not suffice for one row of {longest} tokens "
                f"({_brief(shortage)}{free}); lower model.max_length, set "
                "train.gradient_checkpointing=true, or use a smaller backbone"
            )
        # More parts than rows would change nothing.
        biggest = -(-len(batch) // self._world.size)
        self.parts = 2 * min(self.parts, biggest)
        self._note(
            f"out of memory with micro-batches of {most} rows of up to {longest} tokens{free}: "
            f"halved; each worker now computes a step in {self.parts} parts "
            f"(train.accumulation_steps={self.parts})"
        )


def _brief(shortage: str | None) -> str:
    return "on another worker" if shortage is None else " ".join(shortage.split())[:160]


class Stepper:
    """Gradients, clipping, optimizer and schedule, without waiting for the device."""

    def __init__(
        self,
        model: PreTrainedModel,
        gradients: Gradients,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        thaw: Thaw,
        scaler: torch.amp.GradScaler | None,
        max_norm: float,
    ) -> None:
        self._parameters = [*model.parameters()]
        self.gradients, self._optimizer, self._schedule = gradients, optimizer, schedule
        self._thaw, self._scaler, self._max_norm = thaw, scaler, max_norm

    def step(
        self,
        rows: TokenRows,
        weights: Weights,
        batch: Indices,
        meter: Meter,
        number: int,
    ) -> None:
        """Make a step, `number` of the run counted from 0, and count it in `meter`."""
        self.gradients.compute(rows, weights, batch, meter)
        if self._scaler:
            self._scaler.unscale_(self._optimizer)
        self._thaw.drop(number)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_norm)
        if self._scaler:
            self._scaler.step(self._optimizer)  # skips it when a gradient is infinite
            self._scaler.update()
        else:
            meter.check(norm)
            self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)


def new_scaler(config: TrainConfig, device: torch.device) -> torch.amp.GradScaler | None:
    """A gradient scaler (Micikevicius et al., arXiv:1710.03740) where fp16 needs one."""
    if half_type(config, device) != torch.float16:
        return None
    return torch.amp.GradScaler(device.type)
