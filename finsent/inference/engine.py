"""The engine computes calibrated label probabilities of texts.

Evaluation, batch scoring and serving share it. The probabilities of a text do not depend on the
other texts of its batch. Imports no torch: a backend imports its own library.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finsent.errors import InputError
from finsent.files import read_json
from finsent.inference.backends import Backend, Logits, Run
from finsent.inference.batching import Ids, Row, micro_batches, padded
from finsent.inference.config import EngineConfig, Truncate
from finsent.inference.encoder import Encoded, Encoder
from finsent.inference.selection.select import Selection, select_backend
from finsent.labels import LABELS
from finsent.modeling.calibration import Calibration, folded_temperature, read_calibration
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.modeling.label_map import ABSENT_LOGIT
from finsent.modeling.model_dir import check_model_dir
from finsent.modeling.provenance import read_provenance


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one text."""

    label: str
    score: float  # probability of `label`
    probabilities: dict[str, float]  # by label; they sum to 1
    abstained: bool = False  # the score is below the model's threshold

    @property
    def polarity(self) -> float:
        """P(positive) - P(negative), from -1 to 1, to rank and average texts by."""
        return self.probabilities["positive"] - self.probabilities["negative"]


def softmax(
    logits: npt.NDArray[np.floating[Any]], temperature: float, biases: Sequence[float] | None = None
) -> npt.NDArray[np.float32]:
    """Return probabilities of logits, shape (rows, labels).

    Args:
        temperature: divides the logits.
        biases: added to the divided logits, one per label; None: no biases.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    if biases is not None:
        scaled += np.asarray(biases)
    scaled -= scaled.max(-1, keepdims=True)
    exp = np.exp(scaled)
    probabilities: npt.NDArray[np.float32] = (exp / exp.sum(-1, keepdims=True)).astype(np.float32)
    return probabilities


def apply_calibration(logits: Logits, calibration: Calibration) -> Logits:
    """Return logits whose softmax is the calibrated probabilities, for any calibration."""
    scaled = logits / calibration.temperature
    if calibration.biases is not None:
        scaled = scaled + np.asarray(calibration.biases)
    return np.asarray(scaled, np.float32)


class Engine:
    """Tokenizer, model and calibration of one model directory."""

    def __init__(
        self,
        model_dir: Path,
        config: EngineConfig,
        backend: Backend | None = None,
        domain: DomainCalibration | None = None,
    ) -> None:
        """Load a model.

        Args:
            model_dir: a trained classifier's directory.
            backend: replaces the backend of the config; None: select it by the config.
            domain: a calibration that follows the model's own calibration.

        Raises:
            InputError: the directory is incomplete or damaged, has other labels, or was not
                exported for the configured backend.
        """
        self._label_map = check_model_dir(model_dir)
        self.model_dir = model_dir
        self.config = config
        self.own_calibration = read_calibration(model_dir)
        self.calibration = self.own_calibration
        if domain is not None:
            self.calibration = domain.on(self.own_calibration)
        self.provenance = read_provenance(model_dir)
        self.max_length = self.provenance.max_length
        self.encoder = Encoder(model_dir, self.max_length)
        self._pad_id = int(read_json(model_dir / "config.json").get("pad_token_id") or 0)
        selection = Selection(backend) if backend else select_backend(model_dir, config)
        self.backend, self.rates = selection.backend, selection.rates
        self._rate_monitor = selection.monitor
        self.streams = self.backend.streams
        self._free_runs: queue.SimpleQueue[Run] = queue.SimpleQueue()
        for run in self.backend.runs():
            self._free_runs.put(run)
        self._pool = ThreadPoolExecutor(self.streams, "engine")

    @property
    def temperature(self) -> float:
        """Divisor of the logits; 1 for folded weights, and for a model without calibration."""
        return self.calibration.temperature

    @cached_property
    def folded(self) -> float:
        """The temperature that the weights are divided by; see `uncalibrated`."""
        return folded_temperature(self.model_dir)

    @property
    def threshold(self) -> float | None:
        """The confidence below which the model abstains; None: it never does."""
        return self.calibration.threshold

    def warm_up(self) -> None:
        """Compute each usual shape once, so that the first request is not slower than others.

        Raises:
            InputError: the model's answers are not numbers.
        """
        for rows, length in self.backend.warmup_shapes(self.max_length):
            self.check_numbers(self.compute([[self._pad_id] * length] * rows))

    def check_numbers(self, answers: npt.NDArray[np.floating[Any]], name: str = "") -> None:
        """Refuse answers that are not numbers.

        Args:
            answers: logits or probabilities.
            name: the setting and its value that name the model; empty: the model's directory.

        Raises:
            InputError: an answer is not a finite number.
        """
        if not np.isfinite(answers).all():
            raise InputError(
                f"{name or repr(str(self.model_dir))}: the model's answers are not numbers: its "
                "weights are damaged. Use another model."
            )

    # --- steps ---

    def encode(self, texts: Sequence[str], truncate: Truncate | None = None) -> list[Encoded]:
        """Return token ids of texts, at most `max_length` per text.

        Args:
            truncate: side on which long texts are cut; None: `engine.truncate`.

        Raises:
            InputError: a text is not valid Unicode.
        """
        return self.encoder(texts, truncate or self.config.truncate) if len(texts) else []

    def group_rows(self, lengths: Sequence[int]) -> list[Ids]:
        """Return row numbers per micro-batch, short rows first."""
        return micro_batches(
            np.asarray(lengths, np.int64), self.config.token_budget, self.backend.max_rows
        )

    def compute(self, rows: Sequence[Row]) -> Logits:
        """Return logits of one micro-batch of token ids, shape (rows, labels).

        Waits for a free stream.
        """
        return self.fold_labels(self._compute(rows))

    def fold_labels(self, logits: Logits) -> Logits:
        """Return logits of `LABELS`, shape (rows, labels), from logits of the model's own labels.

        Backends and exports compute the labels of the model. An adopted model may have other labels
        than `LABELS`; folding them here gives the same answers with every backend.
        """
        return logits if self._label_map is None else self._label_map.fold(logits)

    def uncalibrated(self, logits: Logits) -> Logits:
        """Return logits of the weights as trained, from logits of the folded weights."""
        is_absent = logits <= ABSENT_LOGIT / 2  # folding leaves these logits unchanged
        return np.where(is_absent, logits, logits * np.float32(self.folded))

    def _compute(self, rows: Sequence[Row]) -> Logits:
        shape = self.backend.padded_shape(len(rows), max(map(len, rows)))
        ids, mask = padded(rows, shape, self._pad_id)
        run = self._free_runs.get()
        started = time.perf_counter()
        try:
            logits = run(ids, mask)[: len(rows)]
        finally:
            self._free_runs.put(run)
        if self._rate_monitor is not None:
            self._rate_monitor.record(*shape, time.perf_counter() - started)
        return logits

    def logits_of_rows(
        self, rows: Sequence[Sequence[int]], progress: Callable[[int], object] | None = None
    ) -> Logits:
        """Return logits of rows of token ids, shape (rows, labels), computed on all streams.

        Args:
            progress: called with the number of rows of each finished micro-batch.
        """
        return self.fold_labels(self.model_logits_of_rows(rows, progress))

    def model_logits_of_rows(
        self, rows: Sequence[Sequence[int]], progress: Callable[[int], object] | None = None
    ) -> Logits:
        """Return logits of the model's own labels, shape (rows, its labels), on all streams."""
        labels = LABELS if self._label_map is None else self._label_map.sources
        result = np.zeros((len(rows), len(labels)), np.float32)
        # Long rows first: the streams then finish at about the same time.
        groups = self.group_rows([len(row) for row in rows])[::-1]
        if self.streams == 1 or len(groups) == 1:
            for group in groups:
                result[group] = self._compute([rows[i] for i in group])
                if progress is not None:
                    progress(len(group))
            return result
        futures = {self._pool.submit(self._compute, [rows[i] for i in g]): g for g in groups}
        try:
            for future in as_completed(futures):
                group = futures[future]
                result[group] = future.result()
                if progress is not None:
                    progress(len(group))
        finally:
            for future in futures:
                future.cancel()
        return result

    def calibrated(
        self, logits: Logits, calibration: Calibration | None = None
    ) -> npt.NDArray[np.float32]:
        """Return calibrated probabilities of logits, shape (rows, labels).

        Args:
            calibration: None: the calibration of the engine.
        """
        applied = calibration or self.calibration
        return softmax(logits, applied.temperature, applied.biases)

    def predictions(
        self, logits: Logits, calibration: Calibration | None = None
    ) -> list[Prediction]:
        """Return labels, calibrated probabilities and abstentions of logits, shape (rows, labels).

        The label has the highest calibrated probability.

        Args:
            calibration: None: the calibration of the engine.
        """
        threshold = (calibration or self.calibration).threshold
        return [
            Prediction(
                label=LABELS[max(range(len(row)), key=row.__getitem__)],
                score=max(row),
                probabilities=dict(zip(LABELS, row, strict=True)),
                abstained=threshold is not None and max(row) < threshold,
            )
            for row in self.calibrated(logits, calibration).tolist()
        ]

    # --- from texts to answers ---

    def encode_checked(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts, and refuse long texts where `engine.truncate` is `error`.

        Raises:
            InputError: a text is not valid Unicode, or too long where `truncate` is `error`.
        """
        encoded = self.encode(texts)
        if self.config.truncate == "error":
            position = next((i for i, text in enumerate(encoded) if text.truncated), None)
            if position is not None:
                raise InputError(
                    f"text {position + 1} has more than {self.max_length} tokens. Shorten it, or "
                    "set engine.truncate to right or left."
                )
        return encoded

    def logits(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> Logits:
        """Return logits of `LABELS`, shape (texts, labels); see `probabilities`.

        Raises:
            InputError: a text is not valid Unicode, or too long where `truncate` is `error`.
        """
        return self.fold_labels(self.model_logits(texts, progress))

    def model_logits(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> Logits:
        """Return logits of the model's own labels, shape (texts, its labels).

        See `fold_labels` and `uncalibrated`.

        Raises:
            InputError: a text is not valid Unicode, or too long where `truncate` is `error`.
        """
        rows = [text.ids for text in self.encode_checked(texts)]
        return self.model_logits_of_rows(rows, progress)

    def probabilities(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return calibrated probabilities of `LABELS`, shape (texts, labels), in the texts' order.

        Args:
            progress: called with the number of texts of each finished micro-batch.

        Raises:
            InputError: a text is not valid Unicode, or too long where `truncate` is `error`.
        """
        return self.calibrated(self.logits(texts, progress))

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Label each text."""
        return self.predictions(self.logits(texts))
