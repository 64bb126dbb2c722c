"""OpenVINO on CPUs: the fastest where shapes recur."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import openvino

from finsent.errors import InputError
from finsent.inference.backends import Logits, Run
from finsent.inference.batching import Ids
from finsent.modeling.layout import REMEDY

_ROWS = (1, 2, 4, 8, 16)
# Lengths are padded to a multiple of it. Steps of 4 are no faster (MiniLM, 2 cores) and take 120 MB
# more for what is compiled.
_STEP = 8
_WARM = 64  # tokens; longer texts are rare, and pay for their shape once, about 20 ms


@cache
def core() -> Any:
    """The process's one runtime: a second would start its threads again."""
    return openvino.Core()


class OpenvinoBackend:
    """A calibrated int8 graph. Each new shape is compiled, so there are few of them."""

    device = "cpu"

    def __init__(self, file: Path, precision: str, threads: int) -> None:
        """Load and compile a graph.

        Raises:
            InputError: the file is damaged.
        """
        self.name = f"openvino-{precision}"
        self.streams = threads
        self.most_rows: int | None = _ROWS[-1]
        hints = {
            "NUM_STREAMS": str(threads),
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "f32",  # what is not int8; bf16 would change answers
            "CPU_RUNTIME_CACHE_CAPACITY": "5000",
        }
        try:
            compiled = core().compile_model(str(file), "CPU", hints)
        except RuntimeError as error:
            problem = str(error).strip().splitlines()[0][:200]
            raise InputError(f"{str(file)!r}: cannot be loaded ({problem}); {REMEDY}") from None
        self._requests = [compiled.create_infer_request() for _ in range(threads)]

    def streams_of(self) -> list[Run]:
        """One request a stream."""
        return [_runner(request) for request in self._requests]

    def shape(self, rows: int, length: int) -> tuple[int, int]:
        """Rows to the next power of two, lengths to the next multiple of eight."""
        fitting = next((size for size in _ROWS if size >= rows), rows)
        return fitting, -(-length // _STEP) * _STEP

    def shapes(self, longest: int) -> list[tuple[int, int]]:
        """All that texts of usual length come in."""
        last = min(longest, _WARM)
        lengths = sorted({self.shape(1, n)[1] for n in range(_STEP, last + 1)})
        return [(rows, length) for length in lengths for rows in _ROWS]


def _runner(request: Any) -> Run:
    def run(ids: Ids, mask: Ids) -> Logits:
        # Shared: the arrays live until the answer is there; the answer is copied.
        found = request.infer([ids, mask], share_inputs=True)
        logits: Logits = found[0].copy()
        return logits

    return run
