"""Settings of training."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from finsent.config import Section, setting

# Settings that say where and how a run is computed, not what it makes (but for the order of sums
# and dropout's random numbers): free to change when it goes on.
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


_MOST_WORKERS = 1024


class ClassWeights(Section):
    """What a row's loss counts, by its label."""

    negative: float = setting(1.0, "of a negative row", gt=0, le=1000)
    neutral: float = setting(1.0, "of a neutral row", gt=0, le=1000)
    positive: float = setting(1.0, "of a positive row", gt=0, le=1000)


class TrainConfig(Section):
    """The recipe and the workers that run it."""

    dataset: str = setting(
        "latest",
        "dataset version to train on: `version:ID`, a directory, `latest` of data.name, or an id",
    )
    trainer: Literal["native", "transformers", "lightning"] = setting(
        "native",
        "who computes the steps: this project's loop, Hugging Face `Trainer` (extra transformers) "
        "or Lightning (extra lightning); the same seed and recipe give the same model",
    )
    epochs: int = setting(4, "passes over the training split", ge=1, le=1000)
    batch_size: int = setting(
        32, "rows in one optimizer step, over all workers together", unit="rows", ge=1
    )
    batch_tokens: int | None = setting(
        None,
        "padded tokens in one optimizer step, over all workers together: many short rows or few "
        "long ones; null: batch_size rows, whatever their length",
        unit="tokens",
        ge=8,
    )
    accumulation_steps: int = setting(
        1,
        "parts in which each worker computes its rows of a step, one after another, to save "
        "memory; the step has as many rows as before",
        ge=1,
        le=4096,
    )
    learning_rate: float | None = setting(
        None,
        "peak learning rate of AdamW; null: what suits the backbone (demo 2e-4, tiny 1e-3, others "
        "5e-5)",
        gt=0,
        lt=1,
    )
    schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear", "how the rate goes after the warm-up: to 0 in a line, in half a cosine, or stays"
    )
    warmup_fraction: float = setting(
        0.1,
        "share of the steps in which the rate climbs linearly from 0",
        unit="fraction",
        ge=0,
        lt=1,
    )
    warmup_steps: int | None = setting(
        None, "steps of that climb; null: warmup_fraction decides", unit="steps", ge=0
    )
    layer_decay: float = setting(
        1.0,
        "each encoder layer's rate as a share of that of the layer above it, the head's being "
        "learning_rate; FinBERT has 0.85",
        unit="fraction",
        gt=0,
        le=1,
    )
    unfreeze_epochs: float = setting(
        0.0,
        "at first only the head is trained; over this many epochs the layers join, the top one "
        "first, the embeddings last. 0: all from the start; FinBERT has about 4",
        unit="epochs",
        ge=0,
        le=1000,
    )
    weight_decay: float = setting(
        0.01, "AdamW's decay; biases and LayerNorm weights are left out", ge=0, lt=1
    )
    max_grad_norm: float = setting(1.0, "gradients are clipped to this global norm", gt=0)
    dropout: float | None = setting(
        None,
        "dropout of the backbone's hidden states and attention, and before the head; null: as "
        "the backbone has it",
        unit="fraction",
        ge=0,
        lt=1,
    )
    label_smoothing: float = setting(
        0.0,
        "share of the target that is spread evenly over the labels",
        unit="fraction",
        ge=0,
        lt=1,
    )
    class_weights: Literal["none", "balanced"] | ClassWeights = setting(
        "none",
        "what a row's loss counts by its label: all the same; as much as its label is rare (all "
        "labels together count the same); or {negative: 2.0, neutral: 1.0, positive: 1.0}",
    )
    agreement_weight: Literal["none", "linear"] = setting(
        "none",
        "what a row's loss counts by the column `agreement`: nothing, or that share of annotators; "
        "rows without one count 1",
    )
    distill_folds: int | None = setting(
        None,
        "self-distillation: first train this many models, each without one part of the rows, let "
        "each label its part, and mix that into the rows' targets. Softens wrong and doubtful "
        "labels; costs about distill_folds trainings more. null: off",
        ge=2,
        le=100,
    )
    distill_share: float = setting(
        0.5,
        "share of those models' labels in a row's target, the rest being its own label",
        unit="fraction",
        gt=0,
        le=1,
    )
    distill_epochs: int | None = setting(
        None, "epochs of those models; null: as many as epochs", ge=1, le=1000
    )
    lora_rank: int | None = setting(
        None,
        "train low-rank adapters of this rank in the encoder's layers, and the head, in place of "
        "all weights: less memory for large backbones; wants a higher learning_rate; needs the "
        "extra lora. null: all weights",
        ge=1,
        le=1024,
    )
    lora_alpha: float = setting(16.0, "adapters count lora_alpha / lora_rank", gt=0)
    lora_dropout: float = setting(0.0, "dropout before the adapters", unit="fraction", ge=0, lt=1)
    ema_decay: float | None = setting(
        None,
        "keep a moving average of the weights with this decay, and evaluate and save it in place "
        "of the weights of the last step; null: no average",
        unit="fraction",
        gt=0,
        lt=1,
    )
    patience: int | None = setting(
        None,
        "stop after this many epochs without a better macro-F1 on the validation split; null: "
        "never",
        unit="epochs",
        ge=1,
    )
    bucket_batches: int = setting(
        50, "batches whose rows are sorted by length together, to save padding", ge=1
    )
    seed: int = setting(42, "seed of initial weights, order of rows, and dropout", ge=0, lt=2**63)
    deterministic: bool = setting(
        False,
        "take only algorithms that give the same bits for the same seed, machine and num_workers; "
        "on a CPU that is so anyway and costs nothing, on a GPU attention's and the embeddings' "
        "gradients get slower",
    )
    num_workers: int | tuple[int, int] = setting(
        2,
        "data-parallel (DDP) processes; [1, 4]: an elastic run, which goes on with fewer when "
        "nodes are lost and with more when they come, from the last checkpoint, with the same "
        "batches",
    )
    resize_every: int = setting(
        60,
        "how often an elastic run looks whether the cluster has room for more workers; growing "
        "starts them anew from the last checkpoint (checkpoint_every_steps)",
        unit="seconds",
        ge=1,
    )
    use_gpu: Literal["auto", "yes", "no"] = setting(
        "auto", "one GPU a worker; auto: where the cluster has enough of them"
    )
    gpus_per_worker: float = setting(
        1.0,
        "share of a GPU that each worker reserves where GPUs are used; below 1 several runs, "
        "such as a sweep's trials, share one",
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
        "scales the loss so that small gradients survive",
    )
    gradient_checkpointing: bool = setting(
        False, "compute activations again in the backward pass: less memory, about a third slower"
    )
    compile: bool = setting(
        False,
        "compile the model by torch.compile: faster steps after minutes of compiling; needs a C++ "
        "compiler on a CPU",
    )
    checkpoint_every_steps: int | None = setting(
        None,
        "write a checkpoint after every so many steps, too, while training goes on; null: only "
        "at the end of an epoch",
        unit="steps",
        ge=1,
    )
    keep_every_epochs: int | None = setting(
        None,
        "keep the last four checkpoints of every so many epochs, too; null: only the best and the "
        "two newest",
        unit="epochs",
        ge=1,
    )
    keep_checkpoints: bool = setting(
        False,
        "keep a run's checkpoints after `ray_jobs.pipeline` has published its model; "
        "`ray_jobs.train` always keeps them",
    )
    log_every_steps: int = setting(
        10,
        "write the loss to metrics.jsonl, and check that it is a number, every so many steps",
        unit="steps",
        ge=1,
    )
    max_loss: float = setting(
        25.0, "a mean loss above this over log_every_steps is a diverged run, which stops", gt=0
    )
    max_failures: int = setting(
        1,
        "how often the workers start again from the last checkpoint when one of them, or its node, "
        "is lost",
        ge=0,
    )
    start_timeout: int = setting(
        120, "give up when the workers' CPUs or GPUs do not come free in time", unit="seconds", ge=1
    )

    @field_validator("use_gpu", mode="before")
    @classmethod
    def _yaml_yes(cls, value: object) -> object:
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

    @property
    def min_workers(self) -> int:
        """With fewer an elastic run waits; else all of them."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """As many as there may be."""
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
    def _some_workers(cls, value: object) -> object:
        given = [*value] if isinstance(value, list | tuple) else [value, value]
        numbers = [number for number in given if type(number) is int]
        whole = len(given) == len(numbers) == 2
        if not (whole and 1 <= numbers[0] <= numbers[1] <= _MOST_WORKERS):
            raise ValueError(f"write 1 to {_MOST_WORKERS}, or least and most, such as [1, 4]")
        return value

    @model_validator(mode="after")
    def _a_row_each(self) -> TrainConfig:
        if self.batch_size < self.max_workers:
            raise ValueError(
                f"batch_size={self.batch_size} is less than num_workers={self.max_workers}; a step "
                "needs a row for each worker: raise batch_size or lower num_workers"
            )
        if self.gpus_per_worker < 1 and self.max_workers > 1:
            raise ValueError(
                f"gpus_per_worker={self.gpus_per_worker:g}: NCCL wants a whole GPU for each of "
                f"num_workers={self.max_workers}; set one of them to 1"
            )
        return self
