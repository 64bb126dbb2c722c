"""OpenVINO on CPUs: the fastest backend where shapes recur."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from finsent.adapters.openvino import forbid_telemetry
from finsent.errors import InputError, one_line
from finsent.inference.backends import Logits, Run
from finsent.inference.batching import Ids
from finsent.modeling.model_dir import REMEDY

forbid_telemetry()

import openvino  # noqa: E402

_ROWS = (1, 2, 4, 8, 16)
# Lengths to pad to. Each new pair of rows and length is compiled and keeps 4 MB; all pairs of these
# lists keep 120 MB (MiniLM, two streams).
_LENGTHS = (8, 16, 24, 32, 40, 48, 64)
# Longer texts are rare. They have fewer shapes, so that memory does not grow as the service runs.
_LONG_STEP = 64
_LONG_ROWS = (1, 4, 8)


@cache
def core() -> Any:
    """Return the runtime of the process; a second one would start threads again."""
    return openvino.Core()


class OpenvinoBackend:
    """A calibrated int8 graph. Each new shape is compiled, so few shapes are used."""

    device = "cpu"

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
        self.max_rows: int | None = _ROWS[-1]
        compiled = _compiled(file, threads)
        self._requests = [compiled.create_infer_request() for _ in range(threads)]

    def runs(self) -> list[Run]:
        """Return one function per stream, each with its own inference request."""
        return [_runner(request) for request in self._requests]

    def padded_shape(self, rows: int, length: int) -> tuple[int, int]:
        """Return the smallest shape of the lists above that holds the micro-batch."""
        is_long = length > _LENGTHS[-1]
        sizes = _LONG_ROWS if is_long else _ROWS
        padded_rows = next((size for size in sizes if size >= rows), rows)
        if is_long:
            return padded_rows, -(-length // _LONG_STEP) * _LONG_STEP
        return padded_rows, next(size for size in _LENGTHS if size >= length)

    def warmup_shapes(self, max_length: int) -> list[tuple[int, int]]:
        """Return all shapes of texts of usual length, and those of the longest texts."""
        lengths = sorted({self.padded_shape(1, min(n, max_length))[1] for n in _LENGTHS})
        longest = self.padded_shape(1, max_length)[1]
        shapes = [(rows, length) for length in lengths for rows in _ROWS]
        if longest not in lengths:
            shapes += [(rows, longest) for rows in _LONG_ROWS]
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
