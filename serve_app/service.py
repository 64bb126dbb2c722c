"""What the service does, whatever protocol asks: check, admit, classify, follow an alias."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.inference.config import EngineConfig, Truncate
from finsent.inference.encoder import Encoded
from finsent.inference.engine import Engine, Prediction, apply_calibration
from finsent.modeling.calibration import Calibration, CalibrationFit
from finsent.normalize import is_blank
from finsent.registry.registry import Registry
from serve_app import logs
from serve_app.coalescer import Batch, Timing
from serve_app.config import ServeConfig
from serve_app.incoming import Asker
from serve_app.model import Model, read_calibrations
from serve_app.problems import Problem, too_late

log = logging.getLogger(__name__)
# A refused version is tried again so late, as loading takes the other one's time. Its files may be
# whole by then.
_AGAIN_SECONDS = 60.0
_PIECE_CHARACTERS = 50_000  # that are encoded in one go: about 12 ms
_CHARACTERS_PER_TOKEN = 5  # of financial English, about
_BYTES_PER_TOKEN = 8  # fewer in nearly all text: so much it will be at least


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one text."""

    prediction: Prediction
    logits: list[float]
    truncated: bool
    model_version: str
    tokens: int  # that the model read, special ones included
    calibration: str | None = None  # name of the one for the request's source; None: the model's


# Told of each request that was answered: its sender, its texts, an answer or problem for each.
Tap = Callable[[Asker, Sequence[Any], Sequence["Answer | Problem"], Timing], None]


@dataclass(slots=True)
class _Arrival:
    model: Model
    texts: Sequence[str]
    truncate: Truncate
    encoded: asyncio.Future[list[Encoded | InputError]]


class Service:
    """One replica's work. All methods but the constructor belong to one event loop."""

    def __init__(self, registry: Path, config: ServeConfig, engine: EngineConfig) -> None:
        self.config, self.registry = config, Registry(registry)
        self._engine_config = engine
        self._model: Model | None = None
        self.wanted = config.model  # alias or version that was asked for last
        self._arrivals: list[_Arrival] = []
        self._cache: OrderedDict[tuple[str, str, str, str], Answer] = OrderedDict()
        self.names: dict[str, str | None] = {}  # of calibrations by tag; `model` has them
        self.requests = 0  # at work now
        self._reserved = 0  # tokens, estimated, of texts that were admitted and are being encoded
        self.cache_hits = 0
        self.refused_version: dict[str, str] | None = None  # the last one that could not be loaded
        self.refused_config: str | None = None  # why the last `user_config` was not used
        self.taps: list[Tap] = []
        self.batch_taps: list[Callable[[Batch, int], None]] = []  # with the padded tokens
        self._again = 0.0  # when it may be tried again
        self._loading = asyncio.Lock()

    # --- the model ---

    @property
    def model(self) -> Model:
        """The version that answers.

        Raises:
            Problem: none is loaded yet.
        """
        if self._model is None:
            raise Problem("not_ready", "the model is being loaded; try again in a few seconds")
        return self._model

    @property
    def ready(self) -> bool:
        """Whether a model is loaded and warm."""
        return self._model is not None

    async def follow(self, reference: str | None = None) -> None:
        """Load what an alias or version names now, if that is not what is loaded.

        Requests go on with the old version meanwhile, and finish with the one they began with.

        Args:
            reference: None: what was asked for last.

        Raises:
            InputError: it can't be used; the old version stays.
        """
        async with self._loading:
            self.wanted = reference or self.wanted
            version = await asyncio.to_thread(self._resolve, self.wanted)
            if self._model is not None and self._model.version == version:
                await self._follow_records(self._model)
                return
            refused = (self.refused_version or {}).get("version")
            if reference is None and version == refused and time.monotonic() < self._again:
                return
            try:
                new = await asyncio.to_thread(self._load, version)
                await self._follow_records(new)
            except Exception as error:
                self.refused_version = {"version": version, "reason": str(error)}
                self._again = time.monotonic() + _AGAIN_SECONDS
                if isinstance(error, InputError):
                    raise
                log.exception("model version %s cannot be loaded", version)
                raise InputError(f"model version {version}: cannot be loaded ({error!r})") from None
            new.coalescer.observer = partial(self._computed, new)
            old, self._model = self._model, new
            self.refused_version = None
            self._cache.clear()
            log.info(
                "model %s is loaded (%s)%s",
                new.version,
                new.engine.backend.name,
                f" in place of {old.version}" if old else "",
            )
            if old is not None:
                asyncio.get_running_loop().create_task(old.retire())

    def _load(self, version: str) -> Model:
        """Load a version that has the calibrations of the config's names.

        Raises:
            InputError: it lacks one, or cannot be loaded.
        """
        if self.registry.is_published(version):  # else `Model.load` says what is missing
            # First, as it costs nothing: one that is missing would let each retry load the model.
            read_calibrations(self.registry, version, self.config.calibrations.values())
        return Model.load(self.registry, version, self._engine_config)

    async def _follow_records(self, model: Model) -> None:
        """Read the gate of the alias, and what calibrations of the config's names are now.

        Raises:
            InputError: a version lacks a calibration, or a record is damaged; the old ones stay.
        """
        model.gate = await asyncio.to_thread(model.read_gate, self.registry, self.wanted)
        names = dict(self.config.calibrations)
        found = await asyncio.to_thread(model.read_domains, self.registry, names.values())
        if found != model.domains:
            model.domains = found
            self._cache.clear()
        self.names = names

    def calibration(self, model: Model, source: str | None) -> Calibration:
        """Return the calibration for a request's source.

        Raises:
            Problem: the source is unknown.
        """
        if source is None:
            return model.engine.calibration
        if source not in self.names:
            known = ", ".join(self.names) or "none"
            raise Problem(
                "unknown_source",
                f"source={source[:100]!r}: no calibration is named for it (known: {known}). Write "
                "one of these, leave source out, or add it to serve.calibrations.",
            )
        name = self.names[source]
        return model.engine.calibration if name is None else model.domains[name]

    def calibrations(self) -> dict[str, Any]:
        """Return the calibration of each tag, JSON-able; None: the model's own."""
        domains = self.model.domains
        return {
            tag: None if name is None else _described(domains[name])
            for tag, name in self.names.items()
        }

    def apply(self, config: ServeConfig, engine: EngineConfig) -> None:
        """Take other limits and another token budget, from the next request and batch on."""
        self.config, self._engine_config = config, engine
        if self._model is not None:
            self._model.coalescer.budget = engine.token_budget

    def _computed(self, model: Model, batch: Batch) -> None:
        rows, length = model.engine.backend.padded_shape(batch.rows, batch.longest)
        for tap in self.batch_taps:
            tap(batch, rows * length)

    def _resolve(self, reference: str) -> str:
        return self.registry.resolve(reference) or reference

    async def watch(self) -> None:
        """Follow the alias for ever; not at all where `serve.watch_seconds` is 0."""
        if not self.config.watch_seconds:
            return
        told = ""
        while True:
            await asyncio.sleep(self.config.watch_seconds)
            try:
                await self.follow()
            except InputError as error:
                if str(error) != told:  # once
                    log.error("model %r is refused: %s", self.wanted, error)
                told = str(error)
            except Exception:  # the registry's disk, say: it may be back the next time
                log.exception("cannot look where %r points", self.wanted)

    # --- admission ---

    def deadline(self, given: str | None, waited: float = 0.0) -> float:
        """Seconds that a request may still take.

        Args:
            given: milliseconds that it asks for.
            waited: seconds that it has waited before it came here.

        Raises:
            Problem: that is no such number, or they have passed.
        """
        most = self.config.limits.timeout_ms
        if given is None:
            whole = most
        elif given.isascii() and given.isdigit() and int(given[:9]) > 0:
            whole = min(int(given[:9]), most)
        else:
            raise Problem(
                "invalid_request", f"x-request-timeout-ms: write milliseconds from 1 to {most}"
            )
        if waited * 1000 >= whole:
            raise too_late(whole / 1000)
        return whole / 1000 - waited

    def admit(self, tokens: int) -> None:
        """Refuse work that would wait too long; a list as a whole.

        Raises:
            Problem: overloaded, with the time after which there is room.
        """
        queue = self.model.coalescer
        limits = self.config.limits
        per_token = 1 / queue.rate if queue.rate else 0.0
        drain = queue.drain_seconds + self._reserved * per_token
        full = drain + tokens * per_token > limits.queue_seconds
        # More than a queue's worth by itself is taken when nothing else waits.
        if self.requests > limits.requests or (full and (queue.waiting_rows or self._reserved)):
            wait = max(1, math.ceil(drain))
            raise Problem(
                "overloaded",
                f"{queue.waiting_rows} texts wait, {drain:.1f} s of work; try again after {wait} s",
                retry_after=wait,
            )

    def admit_body(self, size: int) -> None:
        """Refuse a body that is too much by its bytes alone: reading it would cost what is short.

        Raises:
            Problem: overloaded.
        """
        most = self.config.limits.texts * self.model.engine.max_length
        self.admit(min(size // _BYTES_PER_TOKEN, most))

    # --- classifying ---

    def fault(self, text: Any) -> Problem | None:
        """Why something is not shown to the model; None: it is."""
        most = self.config.limits.characters
        if not isinstance(text, str):
            return Problem("invalid_text", f"not a text but {type(text).__name__}; write a string")
        if len(text) > most:
            return Problem(
                "text_too_long",
                f"{len(text)} characters; at most {most} are taken (serve.limits.characters)",
            )
        if is_blank(text):
            return Problem("invalid_text", "the text is blank; write something")
        return None

    async def answer(
        self,
        texts: Sequence[Any],
        truncate: Truncate | None,
        asker: Asker,
        source: str | None = None,
    ) -> tuple[list[Answer | Problem], Timing]:
        """A request's answers in order; what is no text, or too long a one, gets a problem.

        Args:
            source: tag of `serve.calibrations`; None: the model's own calibration is used.

        Raises:
            Problem: there are too many, the source is unknown, overloaded, or no model is loaded.
        """
        most = self.config.limits.texts
        if len(texts) > most:
            raise Problem(
                "too_many_texts",
                f"{len(texts)} texts; at most {most} are taken in one request (serve.limits.texts)",
            )
        faults = [self.fault(text) for text in texts]
        good = [text for text, fault in zip(texts, faults, strict=True) if fault is None]
        calibration = self.calibration(self.model, source)
        answers, timing = await self.classify(good, truncate, calibration)
        if self.config.log_texts:
            logs.asked(asker, good)
        rest = iter(answers)
        found = [next(rest) if fault is None else fault for fault in faults]
        for tap in self.taps:
            tap(asker, texts, found, timing)
        return found, timing

    async def classify(
        self,
        texts: Sequence[str],
        truncate: Truncate | None = None,
        calibration: Calibration | None = None,
    ) -> tuple[list[Answer | Problem], Timing]:
        """An answer, or what is wrong, for each text, in order.

        Args:
            calibration: None: the model's own.

        Raises:
            Problem: overloaded, or no model is loaded.
        """
        model = self.model
        with model.used():
            used = calibration or model.engine.calibration
            return await self._classify(model, texts, truncate, used)

    async def _classify(
        self,
        model: Model,
        texts: Sequence[str],
        truncate: Truncate | None,
        calibration: Calibration,
    ) -> tuple[list[Answer | Problem], Timing]:
        policy = truncate or model.engine.config.truncate
        kind = (model.version, (calibration.fit and calibration.fit.id) or "", policy)
        found: list[Answer | Problem | None] = [self._cached((*kind, text)) for text in texts]
        todo = [i for i, one in enumerate(found) if one is None]
        timing, took = Timing(), 0.0
        if todo:
            started = time.perf_counter()
            encoded = await self._admitted(model, [texts[i] for i in todo], policy)
            took = time.perf_counter() - started
            good: list[tuple[int, Encoded]] = []
            for i, one in zip(todo, encoded, strict=True):
                if isinstance(one, InputError):
                    found[i] = Problem("invalid_text", str(one))
                elif one.truncated and policy == "error":
                    most = model.engine.max_length
                    found[i] = Problem(
                        "text_too_long",
                        f"the text has more than {most} tokens; shorten it, or set truncate to "
                        "right or left",
                    )
                else:
                    good.append((i, one))
            if good:
                logits, timing = await model.coalescer.run([one.ids for _, one in good])
                predictions = model.engine.predictions(logits, calibration)
                shown = apply_calibration(logits, calibration).tolist()
                for (i, one), prediction, row in zip(good, predictions, shown, strict=True):
                    answer = Answer(
                        prediction,
                        row,
                        one.truncated,
                        model.version,
                        len(one.ids),
                        calibration.name,
                    )
                    found[i] = answer
                    self._keep((*kind, texts[i]), answer)
        timing.encoded = took
        return [one for one in found if one is not None], timing

    async def _admitted(
        self, model: Model, texts: Sequence[str], policy: Truncate
    ) -> list[Encoded | InputError]:
        """Token ids of texts that there is room for.

        By an estimate, as tokenizing what is refused then would cost more than the refusal; what is
        being tokenized counts, for requests come in herds.

        Raises:
            Problem: overloaded.
        """
        most = model.engine.max_length
        tokens = sum(min(len(text) // _CHARACTERS_PER_TOKEN + 2, most) for text in texts)
        self.admit(tokens)
        self._reserved += tokens
        try:
            return await self.encode(model, texts, policy)
        finally:
            self._reserved -= tokens

    def _cached(self, key: tuple[str, str, str, str]) -> Answer | None:
        if not self.config.cache_entries:
            return None
        answer = self._cache.get(key)
        if answer is not None:
            self._cache.move_to_end(key)
            self.cache_hits += 1
        return answer

    def _keep(self, key: tuple[str, str, str, str], answer: Answer) -> None:
        if not self.config.cache_entries:
            return
        self._cache[key] = answer
        if len(self._cache) > self.config.cache_entries:
            self._cache.popitem(last=False)

    async def encode(
        self, model: Model, texts: Sequence[str], policy: Truncate
    ) -> list[Encoded | InputError]:
        """Token ids; texts that arrive in one turn of the loop are encoded together.

        One alone takes 0.19 ms, one of many 0.03 ms.
        """
        loop = asyncio.get_running_loop()
        found: list[Encoded | InputError] = []
        for piece in _pieces(texts):
            if not self._arrivals:
                loop.call_soon(self._encode_arrivals)
            arrival = _Arrival(model, piece, policy, loop.create_future())
            self._arrivals.append(arrival)
            found += await arrival.encoded
        return found

    def _encode_arrivals(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        groups: dict[tuple[Model, Truncate], list[_Arrival]] = {}
        for one in arrivals:
            if not one.encoded.done():  # else the client has left
                groups.setdefault((one.model, one.truncate), []).append(one)
        for (model, policy), group in groups.items():
            engine = model.engine
            texts = [text for one in group for text in one.texts]
            try:
                rows: list[Encoded | InputError] = [*engine.encode(texts, policy)]
            except InputError:  # one of them: find out which
                rows = [_encode_one(engine, text, policy) for text in texts]
            start = 0
            for one in group:
                one.encoded.set_result(rows[start : start + len(one.texts)])
                start += len(one.texts)

    # --- how it is ---

    def stats(self) -> dict[str, float]:
        """What autoscaling goes by."""
        if self._model is None:
            return {"queue_tokens": 0.0, "drain_seconds": 0.0}
        queue = self._model.coalescer
        return {
            "queue_tokens": float(queue.waiting_tokens + queue.running_tokens),
            "drain_seconds": queue.drain_seconds,
        }


def _described(calibration: Calibration) -> dict[str, Any]:
    fit = calibration.fit or CalibrationFit()
    return {
        "name": calibration.name,
        "id": fit.id,
        "threshold": calibration.threshold,
        "sources": fit.sources,
        "rows": fit.rows,
    }


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """A list in parts, after each of which the loop serves others."""
    start = characters = 0
    for end, text in enumerate(texts):
        if end > start and characters + len(text) > _PIECE_CHARACTERS:
            yield texts[start:end]
            start, characters = end, 0
        characters += len(text)
    yield texts[start:]


def _encode_one(engine: Engine, text: str, policy: Truncate) -> Encoded | InputError:
    try:
        return engine.encode([text], policy)[0]
    except InputError as error:
        return error
