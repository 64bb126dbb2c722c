"""The engine: texts in, probabilities out, whatever the texts are batched with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tokenizers import Tokenizer

from finsent.data.normalise import normalise
from finsent.errors import InputError
from finsent.inference.config import EngineConfig
from finsent.labels import LABELS
from finsent.modeling.classifier import load_classifier
from finsent.modeling.layout import REMEDY, read_calibration, read_provenance


@dataclass(frozen=True)
class Prediction:
    """The answer for one text."""

    label: str
    score: float  # probability of `label`
    probabilities: dict[str, float]  # by label; they sum to 1
    abstained: bool = False  # the score is below the model's threshold: better not act on it


def micro_batches(lengths: npt.NDArray[np.int64], token_budget: int) -> list[npt.NDArray[np.int64]]:
    """Group rows by length so that rows x longest row stays within the budget.

    A row longer than the budget goes alone.
    """
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    batches, start = [], 0
    for end in range(1, len(order) + 1):
        full = end < len(order) and (end + 1 - start) * lengths[order[end]] > token_budget
        if full or end == len(order):
            batches.append(order[start:end])
            start = end
    return batches


def softmax(logits: npt.NDArray[np.float32], temperature: float) -> npt.NDArray[np.float32]:
    """Probabilities of logits that are divided by a temperature first, shape (rows, labels)."""
    scaled = torch.from_numpy(logits).double() / temperature
    probabilities: npt.NDArray[np.float32] = scaled.softmax(-1).float().numpy()
    return probabilities


class Engine:
    """Tokeniser, model and calibration of one model directory."""

    def __init__(self, model_dir: Path, config: EngineConfig) -> None:
        """Load a model.

        Args:
            model_dir: a trained classifier's directory.

        Raises:
            InputError: it is incomplete or damaged, or has other labels.
        """
        self.model_dir = model_dir
        self.calibration = read_calibration(model_dir)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
        self._model = load_classifier(model_dir)
        torch.nn.Module.to(self._model, self.device)  # the subclass hides its signature
        self.provenance = read_provenance(model_dir)
        self._budget = config.token_budget
        try:
            self._tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing more special
            raise InputError(
                f"{str(model_dir)!r}: tokenizer.json cannot be read ({error}); {REMEDY}"
            ) from None
        self._tokenizer.enable_truncation(int(self.provenance["max_length"]))
        self._tokenizer.no_padding()
        self._pad_id = int(self._model.config.pad_token_id or 0)

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 for a model that was never calibrated."""
        return self.calibration.temperature

    @property
    def threshold(self) -> float | None:
        """The confidence below which the model abstains; None: it never does."""
        return self.calibration.threshold

    def logits(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> npt.NDArray[np.float32]:
        """The model's raw answers, shape (texts, labels), in the order given; see `probabilities`.

        Raises:
            InputError: a text is not valid Unicode.
        """
        result = np.zeros((len(texts), len(LABELS)), np.float32)
        if not len(texts):
            return result
        try:
            cleaned = normalise(pa.array(texts, pa.string())).text.to_pylist()
        except UnicodeEncodeError as error:
            raise InputError(f"text is not valid Unicode ({error.reason}); mend it") from None
        encoded = self._tokenizer.encode_batch_fast(cleaned)
        lengths = np.array([len(row) for row in encoded], np.int64)
        for rows in micro_batches(lengths, self._budget):
            result[rows] = self._run([encoded[i].ids for i in rows])
            if progress is not None:
                progress(len(rows))
        return result

    def probabilities(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> npt.NDArray[np.float32]:
        """Calibrated probabilities of `LABELS`, shape (texts, labels), in the order given.

        Args:
            progress: called with the number of texts of each finished micro-batch.

        Raises:
            InputError: a text is not valid Unicode.
        """
        return softmax(self.logits(texts, progress), self.temperature)

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Label each text."""
        return [
            Prediction(
                label=LABELS[int(row.argmax())],
                score=float(row.max()),
                probabilities=dict(zip(LABELS, map(float, row), strict=True)),
                abstained=self.threshold is not None and float(row.max()) < self.threshold,
            )
            for row in self.probabilities(texts)
        ]

    @torch.inference_mode()
    def _run(self, ids: list[list[int]]) -> npt.NDArray[np.float32]:
        longest = max(map(len, ids))
        padded = torch.full((len(ids), longest), self._pad_id, dtype=torch.int64)
        mask = torch.zeros_like(padded)
        for i, row in enumerate(ids):
            padded[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        output = self._model(input_ids=padded.to(self.device), attention_mask=mask.to(self.device))
        logits: npt.NDArray[np.float32] = output.logits.float().cpu().numpy()
        return logits
