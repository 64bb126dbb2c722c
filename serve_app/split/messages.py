"""Messages between gateways and classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finsent.inference.backends import Logits
from finsent.inference.batching import Row
from finsent.inference.engine import Engine


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Token ids of a micro-batch, as two arrays: Ray copies no array of over 100 kB on a node."""

    number: int  # unique in the gateway
    gateway: str
    version: str
    ids: npt.NDArray[np.int32]  # of all rows, one row after another
    lengths: npt.NDArray[np.int32]  # tokens of each row
    waiting_tokens: float  # this classifier's share of the tokens that wait at the gateway

    @property
    def rows(self) -> Sequence[Row]:
        """The token ids of each row."""
        return np.split(self.ids, np.cumsum(self.lengths)[:-1])

    @property
    def tokens(self) -> int:
        """Tokens of all rows, without padding."""
        return len(self.ids)


def pack(rows: Sequence[Row]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the token ids of all rows, and the length of each row."""
    ids = np.concatenate([np.asarray(row, np.int32) for row in rows])
    return ids, np.array([len(row) for row in rows], np.int32)


@dataclass(frozen=True, slots=True)
class ComputedBatch:
    """The answer to a micro-batch."""

    classifier: str
    logits: Logits  # shape (rows, labels)
    seconds: float  # that the model took
    # Tokens of other gateways: those at the classifier, and its share of those that still wait.
    other_tokens: float


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """The answer of a classifier that has begun to load the version of a micro-batch."""

    classifier: str


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a gateway knows of the engine in the classifiers."""

    backend: str  # library and precision
    device: str
    streams: int
    max_rows: int | None
    rates: dict[str, float]  # rows/s by backend; empty: not measured
    padded_shape: Callable[[int, int], tuple[int, int]]  # of `finsent.inference.backends.padding`

    @classmethod
    def of(cls, engine: Engine) -> EngineInfo:
        """Return the description of a loaded engine."""
        backend = engine.backend
        return cls(
            backend.name,
            backend.device,
            backend.streams,
            backend.max_rows,
            engine.rates,
            backend.padded_shape,
        )


@dataclass(frozen=True, slots=True)
class RefusedLoad:
    """The answer of a classifier that cannot load a version."""

    reason: str
