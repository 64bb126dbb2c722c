"""What a reader of a training's figures must know about its splits, before the training starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finsent.data.versions.dataset import DatasetVersion
from finsent.inference.encoder import encode_texts
from finsent.inference.truncation import Truncation, truncation_line
from finsent.labels import LABELS
from finsent.training.task import Task
from finsent.training.tokens import cutting_tokenizer

MAX_COUNTED = 20_000  # rows of a split, which take about a second to tokenize


@dataclass(frozen=True)
class Splits:
    """What `model.max_length` cuts off the training split, and the labels of both splits."""

    truncation: Truncation  # of the first MAX_COUNTED rows
    absent: dict[str, list[str]]  # labels without rows, by split

    @property
    def macro_over(self) -> list[str]:
        """The labels over which macro-F1 on the validation split is the mean."""
        absent = self.absent["validation"]
        return [label for label in LABELS if label not in absent] or [*LABELS]

    def remarks(self) -> Iterator[str]:
        """Yield a sentence for each thing to know."""
        max_length = self.truncation.max_length
        remedy = "Raise model.max_length (at most 512), or split long texts."
        if max_length >= 512:
            remedy = "Split long texts."
        if line := truncation_line(self.truncation.record(), remedy):
            yield f"training split: {line}"
        if absent := self.absent["train"]:
            yield (
                f"No training row is {' or '.join(absent)}: the model does not learn to answer so. "
                "Add such rows."
            )
        if absent := self.absent["validation"]:
            yield (
                f"No validation row is {' or '.join(absent)}: macro-F1 is the mean over "
                f"{' and '.join(self.macro_over)}, and the best epoch is chosen by it."
            )


def look_at_splits(version: DatasetVersion, task: Task) -> Splits:
    """Count what is cut, and the labels that have no rows."""
    texts = version.read("train", ["text"])["text"].slice(0, MAX_COUNTED).to_pylist()
    encoded = encode_texts(cutting_tokenizer(**task.tokenizing), texts)
    absent = {
        split: [label for label, rows in version.manifest.splits[split].labels.items() if not rows]
        for split in ("train", "validation")
    }
    return Splits(Truncation.of(encoded, task.max_length), absent)
