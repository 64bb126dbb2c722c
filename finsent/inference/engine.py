"""The engine: texts in, probabilities out, whatever the texts are batched with.

Used alike by evaluation, batch scoring and serving. Imports no torch: a backend brings what it
needs.
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
from finsent.inference.batching import Ids, micro_batches, padded
from finsent.inference.choose import Choice, choose
from finsent.inference.config import EngineConfig, Truncate
from finsent.inference.encode import Encoded, Encoder
from finsent.labels import LABELS
from finsent.modeling.domain import DomainCalibration
from finsent.modeling.label_map import ABSENT_LOGIT
from finsent.modeling.layout import (
    Calibration,
    check_model_dir,
    folded_temperature,
    read_calibration,
    read_provenance,
)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one text."""

    label: str
    score: float  # probability of `label`
    probabilities: dict[str, float]  # by label; they sum to 1
    abstained: bool = False  # the score is below the model's threshold: better not act on it

    @property
    def polarity(self) -> float:
        """P(positive) - P(negative), from -1 to 1: one number to rank and average texts by."""
        return self.probabilities["positive"] - self.probabilities["negative"]


def softmax(
    logits: npt.NDArray[np.floating[Any]], temperature: float, biases: Sequence[float] | None = None
) -> npt.NDArray[np.float32]:
    """Return probabilities of logits, shape (rows, labels).

    Args:
        temperature: divides the logits.
        biases: added to the divided logits, one per label; None: none are.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    if biases is not None:
        scaled += np.asarray(biases)
    scaled -= scaled.max(-1, keepdims=True)
    exp = np.exp(scaled)
    probabilities: npt.NDArray[np.float32] = (exp / exp.sum(-1, keepdims=True)).astype(np.float32)
    return probabilities


def shown_logits(logits: Logits, calibration: Calibration) -> Logits:
    """Return logits for people and programs, whose softmax is the calibrated probabilities.

    Whatever the calibration is: of the weights, of an older version that keeps its temperature
    outside them, or of a domain.
    """
    shown = logits / calibration.temperature
    if calibration.biases is not None:
        shown = shown + np.asarray(calibration.biases)
    return np.asarray(shown, np.float32)


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
            backend: in place of what the config names: one that is not beside the model (yet).
            domain: a calibration that is applied after the model's own one.

        Raises:
            InputError: it is incomplete or damaged, has other labels, or was not exported for the
                backend that the config asks for.
        """
        self._label_map = check_model_dir(model_dir)
        self.model_dir = model_dir
        self.config = config
        self.own_calibration = read_calibration(model_dir)
        self.calibration = self.own_calibration
        if domain is not None:
            self.calibration = domain.on(self.own_calibration)
        self.provenance = read_provenance(model_dir)
        self.max_length = int(self.provenance["max_length"])
        self.encoder = Encoder(model_dir, self.max_length)
        self._pad_id = int(read_json(model_dir / "config.json").get("pad_token_id") or 0)
        choice = Choice(backend) if backend else choose(model_dir, config)
        self.backend, self.rates, self._watch = choice.backend, choice.rates, choice.watch
        self.streams = self.backend.streams
        self._free: queue.SimpleQueue[Run] = queue.SimpleQueue()
        for run in self.backend.streams_of():
            self._free.put(run)
        self._pool = ThreadPoolExecutor(self.streams, "engine")

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 where the weights answer calibrated logits themselves, and
        for a model that was never calibrated."""
        return self.calibration.temperature

    @cached_property
    def folded(self) -> float:
        """The temperature that the weights are divided by already; see `raw`."""
        return folded_temperature(self.model_dir)

    @property
    def threshold(self) -> float | None:
        """The confidence below which the model abstains; None: it never does."""
        return self.calibration.threshold

    def warm(self) -> None:
        """Run each usual shape once, so that the first text does not pay for it.

        Raises:
            InputError: the model's answers are no numbers.
        """
        for shape in self.backend.shapes(self.max_length):
            rows, length = shape
            found = self.compute([[self._pad_id] * length] * rows)
            if not np.isfinite(found).all():
                raise InputError(
                    f"{str(self.model_dir)!r}: its answers are not numbers; the weights are "
                    "damaged: use another model"
                )

    # --- steps ---

    def encode(self, texts: Sequence[str], truncate: Truncate | None = None) -> list[Encoded]:
        """Token ids of texts, at most `max_length` each.

        Args:
            truncate: None: as the config says.

        Raises:
            InputError: a text is not valid Unicode.
        """
        return self.encoder(texts, truncate or self.config.truncate) if len(texts) else []

    def groups(self, lengths: Sequence[int]) -> list[Ids]:
        """Row numbers by micro-batch, short rows first."""
        return micro_batches(
            np.asarray(lengths, np.int64), self.config.token_budget, self.backend.most_rows
        )

    def compute(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Return logits of one micro-batch of token ids, shape (rows, labels).

        Waits for a free stream.
        """
        return self.ours(self._compute(rows))

    def ours(self, logits: Logits) -> Logits:
        """Turn the model's own logits into those of `LABELS`, shape (rows, labels).

        Backends and exports compute the model's own labels; those of a model from elsewhere become
        ours here, so that every backend gives the same.
        """
        return logits if self._label_map is None else self._label_map.fold(logits)

    def raw(self, logits: Logits) -> Logits:
        """Turn the model's own logits into those that it gave before it was calibrated."""
        absent = logits <= ABSENT_LOGIT / 2  # of no label of the source: at every temperature
        return np.where(absent, logits, logits * np.float32(self.folded))

    def _compute(self, rows: Sequence[Sequence[int]]) -> Logits:
        shape = self.backend.shape(len(rows), max(map(len, rows)))
        ids, mask = padded(rows, shape, self._pad_id)
        run = self._free.get()
        started = time.perf_counter()
        try:
            logits = run(ids, mask)[: len(rows)]
        finally:
            self._free.put(run)
        if self._watch is not None:
            self._watch.note(*shape, time.perf_counter() - started)
        return logits

    def logits_of(
        self, rows: Sequence[Sequence[int]], progress: Callable[[int], object] | None = None
    ) -> Logits:
        """Logits of token ids, shape (rows, labels), in the order given, on all streams."""
        return self.ours(self.own_logits_of(rows, progress))

    def own_logits_of(
        self, rows: Sequence[Sequence[int]], progress: Callable[[int], object] | None = None
    ) -> Logits:
        """Logits of the model's own labels, shape (rows, its labels), as `logits_of`."""
        labels = LABELS if self._label_map is None else self._label_map.sources
        result = np.zeros((len(rows), len(labels)), np.float32)
        # Long ones first: the last ones to end are then short.
        groups = self.groups([len(row) for row in rows])[::-1]
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
            calibration: None: the engine's own.
        """
        used = calibration or self.calibration
        return softmax(logits, used.temperature, used.biases)

    def predictions(
        self, logits: Logits, calibration: Calibration | None = None
    ) -> list[Prediction]:
        """Labels, calibrated probabilities and abstentions of logits, shape (rows, labels).

        The label is the one of the highest calibrated probability.

        Args:
            calibration: None: the engine's own.
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

    # --- all in one ---

    def read(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts as the config says.

        Raises:
            InputError: a text is not valid Unicode, or too long where `truncate` is `error`.
        """
        encoded = self.encode(texts)
        if self.config.truncate == "error":
            long = next((i for i, one in enumerate(encoded) if one.truncated), None)
            if long is not None:
                raise InputError(
                    f"text {long + 1} has more than {self.max_length} tokens; shorten it, or set "
                    "engine.truncate to right or left"
                )
        return encoded

    def logits(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> Logits:
        """The model's answers, shape (texts, labels), in the order given; see `probabilities`.

        Raises:
            InputError: a text is not valid Unicode, or too long where `truncate` is `error`.
        """
        return self.ours(self.own_logits(texts, progress))

    def own_logits(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> Logits:
        """Logits of the model's own labels, shape (texts, its labels); see `ours` and `raw`.

        Raises:
            InputError: as of `logits`.
        """
        return self.own_logits_of([one.ids for one in self.read(texts)], progress)

    def probabilities(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> npt.NDArray[np.float32]:
        """Calibrated probabilities of `LABELS`, shape (texts, labels), in the order given.

        Args:
            progress: called with the number of texts of each finished micro-batch.

        Raises:
            InputError: a text is not valid Unicode, or too long where `truncate` is `error`.
        """
        return self.calibrated(self.logits(texts, progress))

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Label each text."""
        return self.predictions(self.logits(texts))
