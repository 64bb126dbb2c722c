"""The model version that an alias names, loaded, and replaced while requests run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

from finsent.errors import InputError
from finsent.modeling.calibration import Calibration, CalibrationFit
from finsent.registry.registry import Registry
from serve_app.problems import Problem, not_ready
from serve_app.service.coalescer import Batch, Coalescer
from serve_app.service.model import Model, ModelLoader, read_calibrations
from serve_app.service.runtime import RuntimeConfig

log = logging.getLogger(__name__)
# Loading a refused version again takes time from the version that answers. Files of a refused
# version may be complete by then.
_RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class RefusedVersion:
    """A version that could not be loaded."""

    version: str
    reason: str


class CalibrationInfo(TypedDict):
    """A calibration as /info describes it."""

    name: str
    id: str | None
    threshold: float | None
    sources: list[str]
    rows: int | None


class ModelFollower:
    """Holds the model that answers, and follows the alias in the registry."""

    def __init__(
        self,
        registry: Registry,
        runtime: RuntimeConfig,
        on_change: Callable[[], None],
        loader: ModelLoader,
    ) -> None:
        """Load nothing yet.

        Args:
            on_change: called when the model or its calibrations have changed.
            loader: loads versions.
        """
        self.registry, self._loader = registry, loader
        self._runtime, self._on_change = runtime, on_change
        self._model: Model | None = None
        self.reference = runtime.serve.model  # alias or version that was requested last
        self.calibration_names: dict[str, str | None] = {}  # by tag; the model has them
        self.refused_version: RefusedVersion | None = None  # the last one
        self._retry_at = 0.0  # time of the next attempt at the refused version
        self.standby: Model | None = None  # a loaded version that may be the next
        # Called with each micro-batch and its padded tokens.
        self.batch_listeners: list[Callable[[Batch, int], None]] = []
        self._loading = asyncio.Lock()

    @property
    def model(self) -> Model:
        """The version that answers.

        Raises:
            Problem: none is loaded yet.
        """
        if self._model is None:
            raise not_ready()
        return self._model

    @property
    def ready(self) -> bool:
        """Whether a model is loaded and warm."""
        return self._model is not None

    @property
    def queues(self) -> list[Coalescer]:
        """The queues of the loaded versions."""
        models = (self._model, self.standby)
        return [model.coalescer for model in models if model is not None]

    async def follow(self, reference: str | None = None) -> None:
        """Load the version that an alias or version names, unless that version is loaded.

        Requests continue with the old version meanwhile. Each request ends with the version that
        it began with.

        Args:
            reference: None: the one that was requested last.

        Raises:
            InputError: the version cannot be used; the old version stays.
        """
        async with self._loading:
            self.reference = reference or self.reference
            version = await asyncio.to_thread(self._resolve, self.reference)
            if self._model is not None and self._model.version == version:
                await self._follow_records(self._model)
                return
            if reference is None and self._is_refused(version):
                return
            self._replace(await self._loaded(version))

    def _resolve(self, reference: str) -> str:
        return self.registry.resolve(reference) or reference

    def _is_refused(self, version: str) -> bool:
        """Return whether loading the version failed so lately that it is not tried again."""
        refused = self.refused_version
        return (
            refused is not None and refused.version == version and time.monotonic() < self._retry_at
        )

    async def _loaded(self, version: str) -> Model:
        model: Model | None = None
        try:
            # First, because it is cheap: each retry would load the model to find one missing.
            await asyncio.to_thread(self._check_calibrations, version)
            model = self._taken_standby(version)
            if model is None:
                model = await self._loader.load(self.registry, version, self._runtime.engine)
            await self._follow_records(model)
        except Exception as error:
            if model is not None:
                asyncio.get_running_loop().create_task(model.retire())
            self.refused_version = RefusedVersion(version, str(error))
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            if isinstance(error, InputError):
                raise
            log.exception("model version %s cannot be loaded", version)
            raise _unloadable(version, error) from None
        return model

    def _taken_standby(self, version: str) -> Model | None:
        """Return the standby if it is the version; from then on, no caller can release it."""
        model = self.standby
        if model is None or model.version != version:
            return None
        self.standby = None
        return model

    async def load_standby(self, version: str) -> Model:
        """Load a version next to the followed one, with the calibrations of the followed one.

        Raises:
            InputError: the version cannot be used.
        """
        if self.standby is None or self.standby.version != version:
            self.release_standby()
            await asyncio.to_thread(self._check_calibrations, version)
            try:
                model = await self._loader.load(self.registry, version, self._runtime.engine)
            except InputError:
                raise
            except Exception as error:
                log.exception("model version %s cannot be loaded", version)
                raise _unloadable(version, error) from None
            model.coalescer.observer = partial(self._computed, model)
            self.standby = model
        await self._read_domains(self.standby)
        return self.standby

    def release_standby(self) -> None:
        """Release the version next to the followed one, when its requests are answered."""
        model, self.standby = self.standby, None
        if model is not None:
            asyncio.get_running_loop().create_task(model.retire())

    def _check_calibrations(self, version: str) -> None:
        """Check that a version has the calibrations of the config's names.

        Raises:
            InputError: it lacks one.
        """
        if self.registry.is_published(version):  # else the loader reports what is missing
            read_calibrations(self.registry, version, self._runtime.serve.calibrations.values())

    def _replace(self, model: Model) -> None:
        model.coalescer.observer = partial(self._computed, model)
        old, self._model = self._model, model
        self.refused_version = None
        self._on_change()
        log.info(
            "model %s is loaded (%s)%s",
            model.version,
            model.engine.backend.name,
            f" in place of {old.version}" if old else "",
        )
        if old is not None:
            asyncio.get_running_loop().create_task(old.retire())

    async def _follow_records(self, model: Model) -> None:
        """Read the gate of the alias, and the current calibrations of the config's names.

        Raises:
            InputError: a version lacks a calibration, or a record is damaged; the old ones stay.
        """
        model.gate = await asyncio.to_thread(model.read_gate, self.registry, self.reference)
        names = dict(self._runtime.serve.calibrations)
        await self._read_domains(model)
        self.calibration_names = names

    async def _read_domains(self, model: Model) -> None:
        names = self._runtime.serve.calibrations.values()
        domains = await asyncio.to_thread(model.read_domains, self.registry, names)
        if domains != model.domains:
            model.domains = domains
            self._on_change()

    async def watch(self) -> None:
        """Follow the alias forever; return at once if `serve.watch_seconds` is 0."""
        if not self._runtime.serve.watch_seconds:
            return
        logged = ""
        while True:
            await asyncio.sleep(self._runtime.serve.watch_seconds)
            try:
                await self.follow()
            except InputError as error:
                if str(error) != logged:  # once per reason
                    log.error("model %r is refused: %s", self.reference, error)
                logged = str(error)
            except Exception:  # e.g. the registry's disk, which may be back at the next attempt
                log.exception("cannot read which version %r names", self.reference)

    def _computed(self, model: Model, batch: Batch) -> None:
        rows, length = model.engine.backend.padded_shape(batch.rows, batch.longest)
        for listener in self.batch_listeners:
            listener(batch, rows * length)

    # --- calibrations ---

    def calibration(self, model: Model, source: str | None) -> Calibration:
        """Return the calibration for a request's source.

        Raises:
            Problem: the source is unknown.
        """
        if source is None:
            return model.engine.calibration
        if source not in self.calibration_names:
            known = ", ".join(self.calibration_names) or "none"
            raise Problem(
                "unknown_source",
                f"source={source[:100]!r}: no calibration is named for it (known: {known}). Write "
                "one of these, leave source out, or add it to serve.calibrations.",
            )
        name = self.calibration_names[source]
        return model.engine.calibration if name is None else model.domains[name]

    def calibrations(self) -> dict[str, CalibrationInfo | None]:
        """Return the calibration of each tag; None: the model's own."""
        domains = self.model.domains
        return {
            tag: None if name is None else _described(name, domains[name])
            for tag, name in self.calibration_names.items()
        }


def _unloadable(version: str, error: Exception) -> InputError:
    return InputError(f"model version {version}: cannot be loaded ({error!r})")


def _described(name: str, calibration: Calibration) -> CalibrationInfo:
    fit = calibration.fit or CalibrationFit()
    return {
        "name": name,
        "id": fit.id,
        "threshold": calibration.threshold,
        "sources": list(fit.sources or ()),
        "rows": fit.rows,
    }
