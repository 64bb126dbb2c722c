"""OpenVINO on CPUs: the fastest where shapes recur."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from finsent.errors import InputError, one_line
from finsent.inference.backends import Logits, Run
from finsent.inference.backends.quiet import forbid_telemetry
from finsent.inference.batching import Ids
from finsent.modeling.layout import REMEDY

forbid_telemetry()

import openvino  # noqa: E402

_ROWS = (1, 2, 4, 8, 16)
# What lengths are padded to. Each pair of rows and length that occurs is compiled and takes 4 MB
# for good; all that stand here take 120 MB (MiniLM, two streams).
_LENGTHS = (8, 16, 24, 32, 40, 48, 64)
# Longer texts are rare: fewer shapes, so that memory does not grow while the service runs.
_FAR = 64
_FAR_ROWS = (1, 4, 8)


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
        compiled = _compiled(file, threads)
        self._requests = [compiled.create_infer_request() for _ in range(threads)]

    def streams_of(self) -> list[Run]:
        """One request a stream."""
        return [_runner(request) for request in self._requests]

    def shape(self, rows: int, length: int) -> tuple[int, int]:
        """To the next rows and length of the lists above."""
        far = length > _LENGTHS[-1]
        fitting = next((size for size in (_FAR_ROWS if far else _ROWS) if size >= rows), rows)
        return fitting, next((n for n in _LENGTHS if n >= length), -(-length // _FAR) * _FAR)

    def shapes(self, longest: int) -> list[tuple[int, int]]:
        """All that texts of usual length come in, and those of the model's longest ones."""
        near = sorted({self.shape(1, min(length, longest))[1] for length in _LENGTHS})
        far = self.shape(1, longest)[1]
        return [(rows, length) for length in near for rows in _ROWS] + [
            (rows, far) for rows in _FAR_ROWS if far not in near
        ]


def _compiled(file: Path, streams: int) -> Any:
    hints = {
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(streams),
        "INFERENCE_PRECISION_HINT": "f32",  # what is not int8; bf16 would change answers
        "CPU_RUNTIME_CACHE_CAPACITY": "5000",
    }
    try:
        return core().compile_model(str(file), "CPU", hints)
    except RuntimeError as error:
        problem = one_line(error)
        raise InputError(f"{str(file)!r}: cannot be loaded ({problem}); {REMEDY}") from None


def _runner(request: Any) -> Run:
    def run(ids: Ids, mask: Ids) -> Logits:
        # Shared: the arrays live until the answer is there; the answer is copied.
        found = request.infer([ids, mask], share_inputs=True)
        logits: Logits = found[0].copy()
        return logits

    return run
