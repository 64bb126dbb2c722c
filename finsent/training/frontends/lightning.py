"""Lightning computes the steps (https://lightning.ai/docs/pytorch/stable/)."""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from finsent.training.frontends.steps import step_loader, step_loss
from finsent.training.training_run import TrainingRun


def compute_steps(run: TrainingRun) -> None:
    """Compute all steps of a run whose epoch has started."""
    # Lightning logs the hardware and advice on settings that the run has chosen.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:  # required, and not written to
        trainer = lightning.Trainer(
            max_epochs=1,
            gradient_clip_val=run.config.max_grad_norm,
            accelerator="gpu" if run.context.device.type == "cuda" else "cpu",
            devices=1,
            strategy=_ddp_strategy(run) if run.context.world_size > 1 else "auto",
            use_distributed_sampler=False,
            deterministic=None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(_RunModule(run), step_loader(run))


class _RunModule(lightning.LightningModule):
    """Uses loss, optimizer and schedule of the run."""

    def __init__(self, run: TrainingRun) -> None:
        super().__init__()
        self._run, self.model = run, run.model

    def configure_optimizers(self) -> Any:
        """Return the run's optimizer, and its schedule, which counts steps."""
        schedule = {"scheduler": self._run.schedule, "interval": "step"}
        return {"optimizer": self._run.optimizer, "lr_scheduler": schedule}

    def training_step(self, *_: Any) -> torch.Tensor:
        """Compute the forward pass; Lightning computes the backward pass."""
        return step_loss(self._run, self.model)

    def on_train_batch_end(self, *_: Any) -> None:
        """End the step, and stop Lightning's loop with the run."""
        if self._run.after_step():
            self.trainer.should_stop = True


def _ddp_strategy(run: TrainingRun) -> DDPStrategy:
    return DDPStrategy(
        parallel_devices=[run.context.device],
        cluster_environment=_ExistingGroup(),
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )


class _ExistingGroup(ClusterEnvironment):
    """The process group that Ray Train or torchrun has started."""

    @property
    def creates_processes_externally(self) -> bool:
        """Return True: Lightning starts no process."""
        return True

    @property
    def main_address(self) -> str:
        """Return a placeholder: the group exists, so Lightning does not connect."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Return a placeholder, as `main_address`."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Return False: `_ddp_strategy` passes the environment, and Lightning need not find it."""
        return False

    def world_size(self) -> int:
        """Return the group's size."""
        return dist.get_world_size()

    def set_world_size(self, size: int) -> None:
        """Ignore the size, which Lightning computes from its own devices."""

    def global_rank(self) -> int:
        """Return the rank in the group."""
        return dist.get_rank()

    def set_global_rank(self, rank: int) -> None:
        """Ignore the rank, which Lightning computes from its own devices."""

    def local_rank(self) -> int:
        """Return the index of the one device that Lightning gets."""
        return 0

    def node_rank(self) -> int:
        """Return the rank, as if each process had its own machine."""
        return dist.get_rank()
