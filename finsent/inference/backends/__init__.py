"""What computes logits from token ids; one module a library, imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from finsent.inference.batching import Ids

Logits = npt.NDArray[np.float32]
Run = Callable[[Ids, Ids], Logits]  # ids and mask, shape (rows, length), to (rows, labels)


class Backend(Protocol):
    """A loaded model."""

    name: str  # library and precision, e.g. onnxruntime-int8
    device: str  # cpu or cuda
    streams: int  # micro-batches that are computed side by side
    most_rows: int | None  # of a micro-batch; None: as many as the token budget allows

    def streams_of(self) -> list[Run]:
        """One function a stream; each is called by one thread at a time."""

    def shape(self, rows: int, length: int) -> tuple[int, int]:
        """The shape that a micro-batch is padded to, no smaller."""

    def shapes(self, longest: int) -> list[tuple[int, int]]:
        """Shapes to run once before the first text comes; for texts of up to `longest` tokens."""
