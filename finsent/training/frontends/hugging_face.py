"""Hugging Face `Trainer` computes the steps (https://huggingface.co/docs/transformers/trainer)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from finsent.training.determinism import deterministic
from finsent.training.frontends.steps import Step, after, loader, loss_of
from finsent.training.hooks import Hooks
from finsent.training.loop import Run
from finsent.training.task import Task
from finsent.training.tokens import TokenRows


def train(
    task: Task,
    train_rows: TokenRows,
    validation_rows: TokenRows,
    hooks: Hooks,
    device: torch.device,
    resume: Path | None = None,
) -> None:
    """As `finsent.training.loop.train`.

    Raises:
        InputError: as there.
    """
    with deterministic(task.config.deterministic):
        run = Run(task, train_rows, validation_rows, hooks, device, resume)
        if run.over:
            return
        run.start_epoch()
        with tempfile.TemporaryDirectory() as unused:
            _Trainer(run, unused).train()


class _Trainer(Trainer):
    """Takes batches, loss, optimizer and schedule from the run; no log or checkpoint of its own."""

    def __init__(self, run: Run, folder: str) -> None:
        self._run = run
        super().__init__(
            model=run.model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                max_grad_norm=run.config.max_grad_norm,
                use_cpu=run.world.device.type == "cpu",
                **_distributed(run),
                seed=run.config.seed,
                logging_strategy="no",
                save_strategy="no",
                eval_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=loader(run).dataset,
            optimizers=(run.optimizer, run.schedule),
            callbacks=[_After(run)],
        )

    def get_train_dataloader(self) -> DataLoader[Step]:
        """Not the library's, which would deal the rows again."""
        return loader(self._run)

    def training_step(self, model: torch.nn.Module, *_: Any, **__: Any) -> torch.Tensor:
        """Forward and backward."""
        loss = loss_of(self._run, model)
        self.accelerator.backward(loss)
        return loss.detach()


class _After(TrainerCallback):
    """The rest of a step, and of an epoch."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_step_end(self, *given: Any, **_: Any) -> None:
        """The optimizer has made its step."""
        if after(self._run):
            control = given[2]  # after arguments and state
            control.should_training_stop = True


def _distributed(run: Run) -> dict[str, Any]:
    if run.world.size == 1:  # then it would look for a process group
        return {}
    backend = "gloo" if run.world.device.type == "cpu" else "nccl"
    return {"ddp_backend": backend, "ddp_broadcast_buffers": False}
