"""A training by Hugging Face `Trainer`, a peer of `benchmarks.train`.

Rows, recipe and number of processes are finsent's. Loader, collator, optimizer and schedule are
those of `Trainer`. Batches are drawn at random, or by its length-grouped sampler, and padded to
their longest row. torchrun runs `-m benchmarks.peers.hugging_face SPEC.json
random|group_by_length`, which writes seconds and rows of each epoch's steps next to the spec.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

HISTORY = "peer.json"


def main(arguments: list[str]) -> None:
    """Train without evaluations, checkpoints and logs."""
    spec_path, sampling = Path(arguments[0]), arguments[1]
    import pyarrow.parquet as pq
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    from finsent.modeling.backbone import Backbone
    from finsent.modeling.classifier import load_tokenizer, new_classifier
    from finsent.training.config import TrainConfig

    spec = json.loads(spec_path.read_text(encoding="utf-8"))
    config, backbone = TrainConfig(**spec["config"]), Backbone(**spec["backbone"])
    table = pq.read_table(spec_path.parent / "train.parquet", columns=["input_ids", "label"])
    rows = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
        for ids, label in zip(*(column.to_pylist() for column in table.columns), strict=True)
    ]
    uses_gpu = torch.cuda.is_available() and config.use_gpu != "no"
    torch.set_num_threads(config.cpus_per_worker)
    epochs: list[dict[str, Any]] = []

    class EpochTimer(TrainerCallback):
        """Records the seconds of each epoch's steps."""

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            if uses_gpu:
                torch.cuda.synchronize()
            epochs.append({"seconds": time.perf_counter() - self.start, "rows": len(rows)})

    trainer = Trainer(
        model=new_classifier(backbone, config.seed, config.dropout),
        args=TrainingArguments(
            output_dir=str(spec_path.parent / "peer"),
            per_device_train_batch_size=config.batch_size // config.max_workers,
            num_train_epochs=config.epochs,
            learning_rate=config.learning_rate or 5e-5,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            warmup_steps=config.warmup_fraction,
            train_sampling_strategy=sampling,
            bf16=uses_gpu,
            use_cpu=not uses_gpu,
            seed=config.seed,
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(load_tokenizer(backbone.source, backbone.revision)),
        callbacks=[EpochTimer()],
    )
    trainer.train()
    if trainer.is_world_process_zero():
        (spec_path.parent / HISTORY).write_text(json.dumps(epochs), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
