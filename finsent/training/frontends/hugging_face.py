"""Hugging Face `Trainer` computes the steps (https://huggingface.co/docs/transformers/trainer)."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finsent.training.frontends.steps import StepItem, step_loader, step_loss
from finsent.training.training_run import TrainingRun


def compute_steps(run: TrainingRun) -> None:
    """Compute all steps of a run whose epoch has started."""
    with tempfile.TemporaryDirectory() as folder:  # required, and not written to
        _RunTrainer(run, folder).train()


class _RunTrainer(Trainer):
    """Uses batches, loss, optimizer and schedule of the run; writes no log and no checkpoint."""

    def __init__(self, run: TrainingRun, folder: str) -> None:
        self._run = run
        super().__init__(
            model=run.model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                max_grad_norm=run.config.max_grad_norm,
                use_cpu=run.context.device.type == "cpu",
                # With the values of several processes, the library expects a process group.
                ddp_backend=_backend(run) if run.context.world_size > 1 else None,
                ddp_broadcast_buffers=False if run.context.world_size > 1 else None,
                seed=run.config.seed,
                logging_strategy="no",
                save_strategy="no",
                eval_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=step_loader(run).dataset,
            optimizers=(run.optimizer, run.schedule),
            callbacks=[_RunCallback(run)],
        )

    def get_train_dataloader(self) -> DataLoader[StepItem]:
        """Return the run's loader: the library's would divide the steps among the ranks."""
        return step_loader(self._run)

    def training_step(self, model: torch.nn.Module, *_: Any, **__: Any) -> torch.Tensor:
        """Compute the forward and the backward pass."""
        loss = step_loss(self._run, model)
        self.accelerator.backward(loss)
        return loss.detach()


class _RunCallback(TrainerCallback):
    """Ends each step of the run after the optimizer's step."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - passed by position
        state: TrainerState,  # noqa: ARG002 - passed by position
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """End the step, and stop the library's loop with the run."""
        if self._run.after_step():
            control.should_training_stop = True


def _backend(run: TrainingRun) -> str:
    return "gloo" if run.context.device.type == "cpu" else "nccl"
