"""Facts about the splits that a reader of the metrics needs, before the training starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finsent.data.versions.dataset import DatasetVersion
from finsent.inference.encoder import encode_texts
from finsent.inference.truncation import count_truncation
from finsent.inference.truncation_record import TruncationRecord, truncation_line
from finsent.labels import LABELS
from finsent.training.task import Task
from finsent.training.tokens import truncating_tokenizer

MAX_COUNTED = 20_000  # rows of a split, which take about a second to tokenize
_LONGEST_INPUT = 512  # largest `model.max_length`


@dataclass(frozen=True)
class SplitSummary:
    """Truncated texts of the training split, and labels without rows."""

    truncation: TruncationRecord  # of the first MAX_COUNTED rows
    absent: dict[str, list[str]]  # labels without rows, by split

    @property
    def macro_over(self) -> list[str]:
        """The labels over which macro-F1 on the validation split is the mean."""
        absent = self.absent["validation"]
        return [label for label in LABELS if label not in absent] or [*LABELS]

    def remarks(self) -> Iterator[str]:
        """Yield a warning for each problem."""
        remedy = f"Raise model.max_length (at most {_LONGEST_INPUT}), or split long texts."
        if self.truncation.max_length >= _LONGEST_INPUT:
            remedy = "Split long texts."
        if line := truncation_line(self.truncation, remedy):
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


def summarize_splits(version: DatasetVersion, task: Task) -> SplitSummary:
    """Count truncated texts, and find labels without rows."""
    texts = version.read("train", ["text"])["text"].slice(0, MAX_COUNTED).to_pylist()
    encoded = encode_texts(truncating_tokenizer(**task.tokenizer_arguments), texts)
    absent = {
        split: [label for label, rows in version.manifest.splits[split].labels.items() if not rows]
        for split in ("train", "validation")
    }
    return SplitSummary(count_truncation(encoded, task.max_length), absent)
