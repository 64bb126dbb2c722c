"""ONNX Runtime on CPUs: one session, one thread a stream."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from finsent.errors import InputError, one_line
from finsent.inference.backends import Logits, Run
from finsent.inference.batching import Ids
from finsent.modeling.layout import REMEDY

_ROWS = 16  # more rows share little and pad more


class OnnxBackend:
    """An exported graph; each stream computes on the thread that calls it.

    Measured with MiniLM on 2 cores: streams of one thread each beat one of two threads by a third
    to a half, as small matrix products do not split well.
    """

    device = "cpu"

    def __init__(self, file: Path, precision: str, threads: int) -> None:
        """Load a graph.

        Args:
            precision: fp32 or int8.

        Raises:
            InputError: the file is damaged.
        """
        self.name = f"onnxruntime-{precision}"
        self.streams = threads
        # Dynamic quantization takes the range of a whole micro-batch: rows would change each other.
        self.most_rows: int | None = 1 if precision == "int8" else _ROWS
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # shapes change with each call
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own types share no base
            problem = one_line(error)
            raise InputError(f"{str(file)!r}: cannot be loaded ({problem}); {REMEDY}") from None
        self._names = [one.name for one in self._session.get_inputs()]

    def streams_of(self) -> list[Run]:
        """The same function for all: a session may be run by several threads."""
        return [self._run] * self.streams

    def shape(self, rows: int, length: int) -> tuple[int, int]:
        """No padding beyond the longest row."""
        return rows, length

    def shapes(self, longest: int) -> list[tuple[int, int]]:
        """The largest: its memory is then there."""
        return [(self.most_rows or 1, longest)]

    def _run(self, ids: Ids, mask: Ids) -> Logits:
        found: Logits = self._session.run(None, dict(zip(self._names, (ids, mask), strict=True)))[0]
        return found
