"""Lightning computes the steps (https://lightning.ai/docs/pytorch/stable/)."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from finsent.training.determinism import deterministic
from finsent.training.frontends.steps import after, loader, loss_of
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
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # what hardware it has found
    with deterministic(task.config.deterministic):
        run = Run(task, train_rows, validation_rows, hooks, device, resume)
        if run.over:
            return
        run.start_epoch()
        with tempfile.TemporaryDirectory() as unused:
            trainer = lightning.Trainer(
                max_epochs=1,
                gradient_clip_val=run.config.max_grad_norm,
                accelerator="gpu" if device.type == "cuda" else "cpu",
                devices=1,
                strategy=_strategy(run) if run.world.size > 1 else "auto",
                use_distributed_sampler=False,
                deterministic=None,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=unused,
            )
            trainer.fit(_Module(run), loader(run))


class _Module(lightning.LightningModule):
    """Takes loss, optimizer and schedule from the run."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run, self.model = run, run.model

    def configure_optimizers(self) -> Any:
        """The run's; its schedule goes by steps."""
        schedule = {"scheduler": self._run.schedule, "interval": "step"}
        return {"optimizer": self._run.optimizer, "lr_scheduler": schedule}

    def training_step(self, *_: Any) -> torch.Tensor:
        """Forward; the backward pass is Lightning's."""
        return loss_of(self._run, self.model)

    def on_train_batch_end(self, *_: Any) -> None:
        """The optimizer has made its step."""
        if after(self._run):
            self.trainer.should_stop = True


def _strategy(run: Run) -> DDPStrategy:
    return DDPStrategy(
        parallel_devices=[run.world.device],
        cluster_environment=_Group(),
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )


class _Group(ClusterEnvironment):
    """The process group that is there already, whoever has started it (Ray Train, torchrun)."""

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Not asked for: the group is there."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Not asked for: the group is there."""
        return 0

    @staticmethod
    def detect() -> bool:
        """It is given, never looked for."""
        return False

    def world_size(self) -> int:
        """Of the group."""
        return dist.get_world_size()

    def set_world_size(self, size: int) -> None:
        """Lightning would count its own devices."""

    def global_rank(self) -> int:
        """Of the group."""
        return dist.get_rank()

    def set_global_rank(self, rank: int) -> None:
        """Lightning would count its own devices."""

    def local_rank(self) -> int:
        """The one device that Lightning is given."""
        return 0

    def node_rank(self) -> int:
        """As if each process had a machine of its own."""
        return dist.get_rank()
