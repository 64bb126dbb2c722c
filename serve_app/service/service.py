"""The work of one replica on texts, for any protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from finsent.errors import InputError
from finsent.inference.config import EngineConfig, Truncate
from finsent.inference.encoder import Encoded
from finsent.inference.engine import apply_calibration
from finsent.modeling.calibration import Calibration
from finsent.normalize import is_blank
from finsent.registry.registry import Registry
from finsent.storage import Location
from serve_app.config import ServeConfig
from serve_app.problems import Problem, no_classifier, too_many_characters, too_many_texts
from serve_app.request_log import log_texts
from serve_app.sender import Sender
from serve_app.service.admission import Admission
from serve_app.service.answer import Answer, AnswerListener, Answers
from serve_app.service.cache import AnswerCache
from serve_app.service.coalescer import Batch, Timing
from serve_app.service.encoding import BatchEncoder
from serve_app.service.following import ModelFollower
from serve_app.service.model import LocalLoader, Model, ModelLoader
from serve_app.service.routing import RequestRouter
from serve_app.service.runtime import RuntimeConfig


class QueueStats(TypedDict):
    """Amount of work that waits at a replica."""

    queue_tokens: float
    drain_seconds: float


class Service:
    """One replica's work. All methods but the constructor belong to one event loop."""

    def __init__(
        self,
        registry: Path | Location,
        config: ServeConfig,
        engine: EngineConfig,
        loader: ModelLoader | None = None,
    ) -> None:
        """Load no model yet.

        Args:
            loader: loads model versions; None: into this process.
        """
        self._runtime = RuntimeConfig(config, engine)
        self.cache = AnswerCache(self._runtime)
        self.models = ModelFollower(
            Registry(registry),
            self._runtime,
            self.cache.clear,
            loader or LocalLoader(config.num_gpus or 0),
        )
        self.admission = Admission(self._runtime, self.models)
        self._encoder = BatchEncoder()
        self.refused_config: str | None = None  # why the last `user_config` is not used
        self.answer_listeners: list[AnswerListener] = []
        self.router: RequestRouter | None = None  # None: the followed version answers all requests

    # --- settings and model ---

    @property
    def config(self) -> ServeConfig:
        """The current settings; they change at run time."""
        return self._runtime.serve

    def apply(self, config: ServeConfig, engine: EngineConfig | None = None) -> None:
        """Use other settings from the next request and batch on.

        Args:
            engine: None: as before. Only its token budget can change.
        """
        self._runtime.serve = config
        if engine is not None:
            self._runtime.engine = engine
            if self.models.ready:
                self.model.coalescer.budget = engine.token_budget

    @property
    def registry(self) -> Registry:
        """The registry of the model."""
        return self.models.registry

    @property
    def model(self) -> Model:
        """The version that answers; see `ModelFollower.model`."""
        return self.models.model

    @property
    def batch_listeners(self) -> list[Callable[[Batch, int], None]]:
        """Called with each micro-batch and its padded tokens."""
        return self.models.batch_listeners

    def check_ready(self) -> None:
        """Check that a text would be answered now.

        Raises:
            Problem: no model is loaded, or no classifier runs.
        """
        if not self.model.coalescer.is_ready:
            raise no_classifier()

    def stats(self) -> QueueStats:
        """Return what autoscaling decides by."""
        queues = self.models.queues
        return {
            "queue_tokens": float(
                sum(queue.waiting_tokens + queue.running_tokens for queue in queues)
            ),
            "drain_seconds": float(sum(queue.drain_seconds for queue in queues)),
        }

    # --- answering ---

    async def answer(
        self,
        texts: Sequence[Any],
        truncate: Truncate | None,
        sender: Sender,
        source: str | None = None,
    ) -> tuple[Answers, Timing]:
        """Answer the texts of a request in order; a text that cannot be classified gets a problem.

        Args:
            texts: as the client sent them: an item may be something else than a text.
            source: tag of `serve.calibrations`; None: the model's own calibration is used.

        Raises:
            Problem: there are too many texts, the source is unknown, the replica is overloaded, or
                no model is loaded.
        """
        limits = self.config.limits
        if len(texts) > limits.texts:
            raise too_many_texts("texts", len(texts), limits.texts)
        faults = [_fault(text, limits.characters) for text in texts]
        valid = [text for text, fault in zip(texts, faults, strict=True) if fault is None]
        calibration = self.models.calibration(self.model, source)
        router = self.router
        if router is not None and router.is_active and valid:
            classified, timing = await router.classify(valid, truncate, source, sender)
        else:
            classified, timing = await self.classify(valid, truncate, calibration)
        if self.config.log_texts:
            log_texts(sender, valid)
        remaining = iter(classified)
        answers = [next(remaining) if fault is None else fault for fault in faults]
        for listener in self.answer_listeners:
            listener(sender, texts, answers, timing)
        return answers, timing

    async def classify(
        self,
        texts: Sequence[str],
        truncate: Truncate | None = None,
        calibration: Calibration | None = None,
        model: Model | None = None,
    ) -> tuple[Answers, Timing]:
        """Return an answer or a problem for each text, in order.

        Args:
            calibration: None: the model's own.
            model: None: the followed version.

        Raises:
            Problem: the replica is overloaded, or no model is loaded.
        """
        model = model or self.model
        with model.in_use():
            return await self._classify(
                model,
                texts,
                truncate or model.engine.config.truncate,
                calibration or model.engine.calibration,
            )

    async def _classify(
        self, model: Model, texts: Sequence[str], truncate: Truncate, calibration: Calibration
    ) -> tuple[Answers, Timing]:
        calibration_id = (calibration.fit and calibration.fit.id) or ""
        key = (model.version, calibration_id, truncate)
        answers: list[Answer | Problem | None] = [self.cache.get((*key, text)) for text in texts]
        missing = [i for i, answer in enumerate(answers) if answer is None]
        timing, encode_seconds = Timing(), 0.0
        if missing:
            started = time.perf_counter()
            encoded = await self._encode_admitted(model, [texts[i] for i in missing], truncate)
            encode_seconds = time.perf_counter() - started
            rows: list[tuple[int, Encoded]] = []
            for i, row in zip(missing, encoded, strict=True):
                checked = _checked(row, truncate, model.engine.max_length)
                if isinstance(checked, Problem):
                    answers[i] = checked
                else:
                    rows.append((i, checked))
            if rows:
                computed, timing = await _computed(model, [row for _, row in rows], calibration)
                for (i, _), answer in zip(rows, computed, strict=True):
                    answers[i] = answer
                    self.cache.put((*key, texts[i]), answer)
        timing.encoded = encode_seconds
        return [answer for answer in answers if answer is not None], timing

    async def _encode_admitted(
        self, model: Model, texts: Sequence[str], truncate: Truncate
    ) -> list[Encoded | InputError]:
        """Return the token ids of texts if there is room for them.

        Texts that are being tokenized take up room, because many requests may arrive at once.

        Raises:
            Problem: overloaded.
        """
        admission = self.admission
        tokens = admission.estimated_tokens(texts)
        admission.admit(tokens)
        admission.reserved_tokens += tokens
        try:
            return await self._encoder.encode(model, texts, truncate)
        finally:
            admission.reserved_tokens -= tokens

    async def encode(
        self, model: Model, texts: Sequence[str], truncate: Truncate
    ) -> list[Encoded | InputError]:
        """Return the token ids of texts, and an error for each text that has none."""
        return await self._encoder.encode(model, texts, truncate)


def _fault(text: Any, limit: int) -> Problem | None:
    """Return why the model does not get a text; None: it gets it."""
    if not isinstance(text, str):
        kind = type(text).__name__
        return Problem("invalid_text", f"the text is of type {kind}. Send a string.")
    if len(text) > limit:
        return too_many_characters(len(text), limit)
    if is_blank(text):
        return Problem("invalid_text", "the text is blank. Send a text with words.")
    return None


def _checked(row: Encoded | InputError, truncate: Truncate, limit: int) -> Encoded | Problem:
    """Return the token ids of a text, or why the model does not get them."""
    if isinstance(row, InputError):
        return Problem("invalid_text", str(row))
    if row.truncated and truncate == "error":
        return Problem(
            "text_too_long",
            f"the text has more than {limit} tokens. Shorten it, or set truncate to right or left.",
        )
    return row


async def _computed(
    model: Model, rows: Sequence[Encoded], calibration: Calibration
) -> tuple[list[Answer], Timing]:
    logits, timing = await model.coalescer.run([row.ids for row in rows])
    predictions = model.engine.predictions(logits, calibration)
    calibrated_logits = apply_calibration(logits, calibration).tolist()
    answers = [
        Answer(prediction, row_logits, row.truncated, model.version, len(row.ids), calibration.name)
        for row, prediction, row_logits in zip(rows, predictions, calibrated_logits, strict=True)
    ]
    return answers, timing
