"""Settings of training."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from finsent.config import Section, setting

# Settings that decide where and how a run is computed, but not its model (except for the order of
# sums and dropout's random numbers). They may change when a run resumes.
OPERATIONAL = frozenset(
    {
        "num_workers",
        "resize_every",
        "use_gpu",
        "gpus_per_worker",
        "cpus_per_worker",
        "max_failures",
        "start_timeout",
        "accumulation_steps",
        "gradient_checkpointing",
        "checkpoint_every_steps",
        "keep_every_epochs",
        "keep_checkpoints",
        "log_every_steps",
        "max_loss",
    }
)

_MAX_WORKERS = 1024


class ClassWeights(Section):
    """The weight of a row's loss by label."""

    negative: float = setting(1.0, "weight of a negative row", gt=0, le=1000)
    neutral: float = setting(1.0, "weight of a neutral row", gt=0, le=1000)
    positive: float = setting(1.0, "weight of a positive row", gt=0, le=1000)


class TrainConfig(Section):
    """The recipe and the workers that run it."""

    dataset: str = setting(
        "latest",
        "dataset version to train on: `version:ID`, a directory, `latest` of data.name, or an id",
    )
    trainer: Literal["native", "transformers", "lightning"] = setting(
        "native",
        "front end that computes the steps: this project's loop (native), Hugging Face `Trainer` "
        "(extra transformers) or Lightning (extra lightning); the same seed and recipe give the "
        "same model",
    )
    epochs: int = setting(4, "passes over the training split", ge=1, le=1000)
    batch_size: int = setting(32, "rows in one optimizer step over all workers", unit="rows", ge=1)
    batch_tokens: int | None = setting(
        None,
        "padded tokens in one optimizer step over all workers: many short rows or few long rows; "
        "null: batch_size rows, whatever their length",
        unit="tokens",
        ge=8,
    )
    accumulation_steps: int = setting(
        1,
        "micro-batches per step and worker; more need less memory, and the step has the same rows",
        ge=1,
        le=4096,
    )
    learning_rate: float | None = setting(
        None,
        "peak learning rate of AdamW; null: a default by backbone (demo 2e-4, tiny 1e-3, others "
        "5e-5)",
        gt=0,
        lt=1,
    )
    schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear",
        "learning rate after the warm-up: falls to 0 linearly, falls to 0 as half a cosine, or "
        "stays",
    )
    warmup_fraction: float = setting(
        0.1,
        "share of the steps in which the learning rate rises linearly from 0",
        unit="fraction",
        ge=0,
        lt=1,
    )
    warmup_steps: int | None = setting(
        None, "steps of the warm-up; null: by warmup_fraction", unit="steps", ge=0
    )
    layer_decay: float = setting(
        1.0,
        "learning rate of each encoder layer as a share of that of the layer above; the head has "
        "learning_rate; FinBERT uses 0.85",
        unit="fraction",
        gt=0,
        le=1,
    )
    unfreeze_epochs: float = setting(
        0.0,
        "epochs over which layers are unfrozen, from the top layer down to the embeddings; at "
        "first only the head is trained. 0: train all from the start; FinBERT uses about 4",
        unit="epochs",
        ge=0,
        le=1000,
    )
    weight_decay: float = setting(
        0.01, "weight decay of AdamW, except for biases and LayerNorm weights", ge=0, lt=1
    )
    max_grad_norm: float = setting(1.0, "global norm to which gradients are clipped", gt=0)
    dropout: float | None = setting(
        None,
        "dropout of hidden states and attention, and before the head; null: the backbone's own",
        unit="fraction",
        ge=0,
        lt=1,
    )
    label_smoothing: float = setting(
        0.0,
        "share of the target that is divided equally among the labels",
        unit="fraction",
        ge=0,
        lt=1,
    )
    class_weights: Literal["none", "balanced"] | ClassWeights = setting(
        "none",
        "weight of a row's loss by label; none: 1; balanced: inverse to the label's number of "
        "rows; or a weight per label: {negative: 2.0, neutral: 1.0, positive: 1.0}",
    )
    agreement_weight: Literal["none", "linear"] = setting(
        "none",
        "weight of a row's loss by the column `agreement`; none: 1; linear: the share of "
        "annotators, and 1 for rows without it",
    )
    distill_folds: int | None = setting(
        None,
        "self-distillation: train this many models first, each without one fold of the rows; mix "
        "each model's probabilities for its fold into the targets. Softens wrong and doubtful "
        "labels; costs about distill_folds more trainings. null: off",
        ge=2,
        le=100,
    )
    distill_share: float = setting(
        0.5,
        "share of the fold models' probabilities in a row's target; the remainder is its label",
        unit="fraction",
        gt=0,
        le=1,
    )
    distill_epochs: int | None = setting(
        None, "epochs of the fold models; null: epochs", ge=1, le=1000
    )
    lora_rank: int | None = setting(
        None,
        "rank of low-rank adapters in the encoder's layers; only these and the head are trained: "
        "less memory for large backbones, but a higher learning_rate is needed; needs the extra "
        "lora. null: train all weights",
        ge=1,
        le=1024,
    )
    lora_alpha: float = setting(
        16.0, "scale of the adapters, which are multiplied by lora_alpha / lora_rank", gt=0
    )
    lora_dropout: float = setting(0.0, "dropout before the adapters", unit="fraction", ge=0, lt=1)
    ema_decay: float | None = setting(
        None,
        "decay of an exponential moving average of the weights, which is evaluated and saved "
        "instead of the weights of the last step; null: no average",
        unit="fraction",
        gt=0,
        lt=1,
    )
    patience: int | None = setting(
        None,
        "epochs without a better macro-F1 on the validation split after which training stops; "
        "null: never",
        unit="epochs",
        ge=1,
    )
    bucket_batches: int = setting(
        50, "batches in a window whose rows are sorted by length, to save padding", ge=1
    )
    seed: int = setting(42, "seed of initial weights, order of rows, and dropout", ge=0, lt=2**63)
    deterministic: bool = setting(
        False,
        "use only algorithms that give the same bits for the same seed, machine and num_workers; "
        "on a CPU all do, on a GPU the gradients of attention and embeddings become slower",
    )
    num_workers: int | tuple[int, int] = setting(
        2,
        "data-parallel (DDP) processes; [1, 4]: an elastic run, which resumes from the last "
        "checkpoint with fewer workers when nodes are lost and with more when nodes are added; the "
        "batches stay the same",
    )
    resize_every: int = setting(
        60,
        "time between two checks whether the cluster has room for more workers of an elastic run; "
        "more workers restart from the last checkpoint (checkpoint_every_steps)",
        unit="seconds",
        ge=1,
    )
    use_gpu: Literal["auto", "yes", "no"] = setting(
        "auto", "one GPU per worker; auto: where the cluster has enough GPUs"
    )
    gpus_per_worker: float = setting(
        1.0,
        "share of a GPU that each worker reserves, where GPUs are used; below 1, several runs, "
        "such as the trials of a sweep, share a GPU",
        unit="GPUs",
        gt=0,
        le=1,
    )
    cpus_per_worker: int = setting(
        1, "CPUs that each worker reserves; also its number of compute threads", unit="CPUs", ge=1
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "number format of matrix products; auto: bf16 autocast on a GPU, fp32 on a CPU; fp16 "
        "scales the loss so that small gradients do not become 0",
    )
    gradient_checkpointing: bool = setting(
        False, "compute activations again in the backward pass: less memory, about a third slower"
    )
    compile: bool = setting(
        False,
        "compile the model with torch.compile: faster steps after minutes of compilation; needs a "
        "C++ compiler on a CPU",
    )
    checkpoint_every_steps: int | None = setting(
        None,
        "steps between two checkpoints in an epoch, which are written while training continues; "
        "null: only at the end of an epoch",
        unit="steps",
        ge=1,
    )
    keep_every_epochs: int | None = setting(
        None,
        "interval of further checkpoints to keep, at most the newest four; null: keep only the "
        "best checkpoint and the two newest",
        unit="epochs",
        ge=1,
    )
    keep_checkpoints: bool = setting(
        False,
        "keep the checkpoints of a run after `ray_jobs.pipeline` has published the model; "
        "`ray_jobs.train` always keeps them",
    )
    log_every_steps: int = setting(
        10,
        "steps between two lines in metrics.jsonl, and between two checks of the loss",
        unit="steps",
        ge=1,
    )
    max_loss: float = setting(
        25.0, "mean loss over log_every_steps above which the run has diverged and stops", gt=0
    )
    max_failures: int = setting(
        1,
        "restarts of the workers from the last checkpoint after a worker or its node is lost",
        ge=0,
    )
    start_timeout: int = setting(
        120, "time to wait for the workers' CPUs or GPUs", unit="seconds", ge=1
    )

    @field_validator("use_gpu", mode="before")
    @classmethod
    def _yaml_boolean(cls, value: object) -> object:
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

    @property
    def min_workers(self) -> int:
        """The number of workers with which a run can start."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """The largest number of workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    def micro_batches(self, workers: int) -> int:
        """Return the number of micro-batches per step and worker.

        With fewer workers than the maximum, each has more rows, which must not need more memory.
        """
        if isinstance(self.num_workers, int):
            return self.accumulation_steps
        return -(-self.accumulation_steps * self.max_workers // workers)

    @field_validator("num_workers", mode="before")
    @classmethod
    def _check_workers(cls, value: object) -> object:
        pair = [*value] if isinstance(value, list | tuple) else [value, value]
        numbers = [number for number in pair if type(number) is int]
        is_pair = len(pair) == len(numbers) == 2
        if not (is_pair and 1 <= numbers[0] <= numbers[1] <= _MAX_WORKERS):
            raise ValueError(
                f"{value!r} is not a number of workers. Write 1 to {_MAX_WORKERS}, or minimum and "
                "maximum, e.g. [1, 4]."
            )
        return value

    @model_validator(mode="after")
    def _check_together(self) -> TrainConfig:
        if self.batch_size < self.max_workers:
            raise ValueError(
                f"batch_size={self.batch_size} is less than num_workers={self.max_workers}, and a "
                "step needs a row for each worker. Raise batch_size or lower num_workers."
            )
        if self.gpus_per_worker < 1 and self.max_workers > 1:
            raise ValueError(
                f"gpus_per_worker={self.gpus_per_worker:g}: NCCL needs one GPU for each of "
                f"num_workers={self.max_workers}. Set one of the two settings to 1."
            )
        return self
