"""Backends compute logits from token ids. One module per library, imported when it is used."""

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
    streams: int  # micro-batches that are computed in parallel
    max_rows: int | None  # per micro-batch; None: as many as the token budget allows

    def runs(self) -> list[Run]:
        """Return one function per stream; one thread at a time calls each."""

    def padded_shape(self, rows: int, length: int) -> tuple[int, int]:
        """Return the shape to pad a micro-batch to."""

    def warmup_shapes(self, max_length: int) -> list[tuple[int, int]]:
        """Return the shapes to compute before the first request.

        Args:
            max_length: of a text, in tokens.
        """
