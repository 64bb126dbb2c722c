"""A loaded model version with its queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

from finsent.errors import InputError
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.memory import release_unused
from finsent.modeling.calibration import Calibration
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.records import JsonObject
from finsent.registry.calibrations import Calibrations
from finsent.registry.gate import GateBrief
from finsent.registry.model_version import ModelVersion
from finsent.registry.registry import Registry
from finsent.registry.version_manifest import CARD
from serve_app.service.coalescer import Coalescer
from serve_app.service.streams import Streams, ThreadStreams

# Figures on the test split that `/info` reports.
_METRICS = ("rows", "macro_f1", "accuracy", "ece")


def read_calibrations(
    registry: Registry, version: str, names: Iterable[str | None]
) -> dict[str, DomainCalibration]:
    """Read calibrations of a version for domains, by name.

    Args:
        names: None stands for the version's own calibration, which the result leaves out.

    Raises:
        InputError: the version has no calibration of a name, or the calibration is damaged.
    """
    store = Calibrations(registry.location, version)
    unique_names = sorted({name for name in names if name is not None})
    return {name: store.get(name, "serve.calibrations") for name in unique_names}


class ModelDetails(TypedDict):
    """Details of a version's manifest and the engine's settings, for `/info`."""

    created: str | None
    backbone: str | None
    dataset: JsonObject | None
    metrics: dict[str, float | None]
    truncate: str


@dataclass(eq=False)
class Model:
    """A loaded model version with its queue."""

    version: str
    engine: Engine
    coalescer: Coalescer
    loaded: float  # Unix time
    card: str  # Markdown
    details: ModelDetails
    domains: dict[str, Calibration] = field(default_factory=dict)  # calibrations by name
    gate: GateBrief | None = None  # that the version passed to get the followed alias
    users: int = 0  # requests that began with this version and are not answered

    @classmethod
    def load(cls, registry: Registry, reference: str, config: EngineConfig) -> Model:
        """Verify, load and warm up a version.

        Raises:
            InputError: there is no such version, it is damaged, or its logits are not numbers.
        """
        version = registry.get(reference)
        engine = Engine(version.path, config)
        engine.warm_up()
        release_unused()  # memory of the backends that were not chosen
        return cls.of(version, engine, ThreadStreams(engine.compute, engine.streams))

    @classmethod
    def of(cls, version: ModelVersion, engine: Engine, streams: Streams) -> Model:
        """Return a version whose micro-batches the streams compute.

        Args:
            engine: tokenizes texts and calibrates logits.
        """
        manifest, config = version.manifest, engine.config
        coalescer = Coalescer(
            streams,
            config.token_budget,
            engine.backend.max_rows,
            lambda rows, longest: math.prod(engine.backend.padded_shape(rows, longest)),
        )
        details: ModelDetails = {
            "created": manifest.created,
            "backbone": manifest.backbone,
            "dataset": manifest.dataset.model_dump(mode="json") if manifest.dataset else None,
            "metrics": {name: getattr(manifest.metrics, name) for name in _METRICS},
            "truncate": config.truncate,
        }
        card = (version.path / CARD).read_text(encoding="utf-8")
        return cls(version.version, engine, coalescer, time.time(), card, details)

    def read_domains(
        self, registry: Registry, names: Iterable[str | None]
    ) -> dict[str, Calibration]:
        """Return calibrations of this version for domains; see `read_calibrations`."""
        calibrations = read_calibrations(registry, self.version, names)
        own = self.engine.calibration
        return {name: calibration.on(own) for name, calibration in calibrations.items()}

    def read_gate(self, registry: Registry, reference: str) -> GateBrief | None:
        """Read the record of the gate that this version passed.

        Args:
            reference: that the service follows.

        Raises:
            InputError: the alias is damaged.
        """
        version = ModelVersion(registry.version_dir(self.version))
        gate = registry.gate_of(reference, version)
        return gate.brief() if gate else None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model from retiring: between its steps a request has no rows in the queue."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    async def retire(self) -> None:
        """Release the model when all requests that began with it are answered."""
        while self.users or self.coalescer.waiting_rows or self.coalescer.running_tokens:
            await asyncio.sleep(0.05)
        self.coalescer.close()
        # The observer refers to this model, which refers to the observer. The garbage collector
        # does not free such a cycle after `gc.freeze`.
        self.coalescer.observer = None


class ModelLoader(Protocol):
    """Loads model versions for a service."""

    async def load(self, registry: Registry, reference: str, config: EngineConfig) -> Model:
        """Verify, load and warm up a version.

        Raises:
            InputError: there is no such version, it is damaged, or its logits are not numbers.
        """


@dataclass(frozen=True)
class LocalLoader:
    """Loads model versions into this process."""

    num_gpus: float = 0  # that Ray has reserved for this process

    async def load(self, registry: Registry, reference: str, config: EngineConfig) -> Model:
        """See `Model.load`."""
        model = await asyncio.to_thread(Model.load, registry, reference, config)
        check_device(model.engine, self.num_gpus)
        return model


def check_device(engine: Engine, num_gpus: float) -> None:
    """Check that an engine uses the GPUs that Ray has reserved for this process.

    Raises:
        InputError: it computes on a CPU.
    """
    if num_gpus and engine.backend.device == "cpu":
        raise InputError(
            f"serve.num_gpus={num_gpus:g}: {engine.backend.name} computes on the CPU. Install a "
            "torch with CUDA on the nodes with GPUs and set engine.backend=torch, or set "
            "serve.num_gpus=0."
        )
