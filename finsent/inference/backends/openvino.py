"""OpenVINO on CPUs: the fastest backend where shapes recur."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from finsent.adapters.openvino import forbid_telemetry
from finsent.errors import InputError, one_line
from finsent.inference.backends import Logits, Run
from finsent.inference.backends.padding import LENGTHS, LONG_ROWS, ROWS, rounded
from finsent.inference.batching import Ids
from finsent.modeling.model_dir import REMEDY

forbid_telemetry()

import openvino  # noqa: E402


@cache
def core() -> Any:
    """Return the runtime of the process; a second one would start threads again."""
    return openvino.Core()


class OpenvinoBackend:
    """A calibrated int8 graph. Each new shape is compiled, so few shapes are used."""

    device = "cpu"
    padded_shape = staticmethod(rounded)

    def __init__(self, file: Path, precision: str, threads: int) -> None:
        """Load and compile a graph.

        Args:
            file: ends in .xml.
            precision: int8.
            threads: number of streams.

        Raises:
            InputError: the file is damaged.
        """
        self.name = f"openvino-{precision}"
        self.streams = threads
        self.max_rows: int | None = ROWS[-1]
        compiled = _compiled(file, threads)
        self._requests = [compiled.create_infer_request() for _ in range(threads)]

    def runs(self) -> list[Run]:
        """Return one function per stream, each with its own inference request."""
        return [_runner(request) for request in self._requests]

    def warmup_shapes(self, max_length: int) -> list[tuple[int, int]]:
        """Return all shapes of texts of usual length, and those of the longest texts."""
        lengths = sorted({self.padded_shape(1, min(n, max_length))[1] for n in LENGTHS})
        longest = self.padded_shape(1, max_length)[1]
        shapes = [(rows, length) for length in lengths for rows in ROWS]
        if longest not in lengths:
            shapes += [(rows, longest) for rows in LONG_ROWS]
        return shapes


def _compiled(file: Path, streams: int) -> Any:
    hints = {
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(streams),
        "INFERENCE_PRECISION_HINT": "f32",  # bf16 would change answers
        "CPU_RUNTIME_CACHE_CAPACITY": "5000",
    }
    try:
        return core().compile_model(str(file), "CPU", hints)
    except RuntimeError as error:
        problem = one_line(error)
        raise InputError(f"{str(file)!r}: cannot be loaded ({problem}). {REMEDY}") from None


def _runner(request: Any) -> Run:
    def run(ids: Ids, mask: Ids) -> Logits:
        # Inputs are shared, as the arrays outlive the call. The output is copied, as the request
        # reuses its memory.
        outputs = request.infer([ids, mask], share_inputs=True)
        logits: Logits = outputs[0].copy()
        return logits

    return run
