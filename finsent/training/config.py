"""Settings of training."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from finsent.config import Section, setting

# Settings that say where a run runs, not what it makes: free to change when it goes on.
OPERATIONAL = frozenset(
    {"num_workers", "use_gpu", "cpus_per_worker", "max_failures", "start_timeout"}
)


class TrainConfig(Section):
    """The recipe and the workers that run it."""

    dataset: str = setting(
        "latest", "dataset version to train on: its id, its directory, or `latest` of data.name"
    )
    epochs: int = setting(4, "passes over the training split", ge=1, le=1000)
    batch_size: int = setting(
        32, "rows in one optimiser step, over all workers together", unit="rows", ge=1
    )
    learning_rate: float | None = setting(
        None,
        "peak learning rate of AdamW; null: what suits the backbone (demo 2e-4, tiny 1e-3, others "
        "5e-5)",
        gt=0,
        lt=1,
    )
    weight_decay: float = setting(
        0.01, "AdamW's decay; biases and LayerNorm weights are left out", ge=0, lt=1
    )
    warmup_fraction: float = setting(
        0.1, "share of the steps in which the rate climbs linearly from 0", unit="fraction",
        ge=0, lt=1,
    )  # fmt: skip
    max_grad_norm: float = setting(1.0, "gradients are clipped to this global norm", gt=0)
    bucket_batches: int = setting(
        50, "batches whose rows are sorted by length together, to save padding", ge=1
    )
    seed: int = setting(42, "seed of initial weights, order of rows, and dropout", ge=0, lt=2**63)
    num_workers: int = setting(2, "data-parallel (DDP) processes", ge=1, le=1024)
    use_gpu: Literal["auto", "yes", "no"] = setting(
        "auto", "one GPU a worker; auto: where the cluster has enough of them"
    )
    cpus_per_worker: int = setting(
        1, "CPUs that each worker reserves; also its number of compute threads", unit="CPUs", ge=1
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "number format of matrix products; auto: bf16 autocast on a GPU, fp32 on a CPU"
    )
    max_failures: int = setting(
        1, "how often a lost worker group starts again from the last checkpoint", ge=0
    )
    start_timeout: int = setting(
        120, "give up when the workers' CPUs or GPUs do not come free in time", unit="seconds", ge=1
    )

    @field_validator("use_gpu", mode="before")
    @classmethod
    def _yaml_yes(cls, value: object) -> object:
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _a_row_each(self) -> TrainConfig:
        if self.batch_size < self.num_workers:
            raise ValueError(
                f"batch_size={self.batch_size} is less than num_workers={self.num_workers}; a step "
                "needs a row for each worker: raise batch_size or lower num_workers"
            )
        return self
