"""ONNX Runtime on CPUs: one session, one thread per stream."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from finsent.errors import InputError, one_line
from finsent.inference.backends import Logits, Run
from finsent.inference.backends.padding import unchanged
from finsent.inference.batching import Ids
from finsent.modeling.model_dir import REMEDY

_MAX_ROWS = 16  # more rows gain little and pad more


class OnnxBackend:
    """An exported graph; each stream computes on the thread that calls it.

    Measured with MiniLM on 2 cores: two streams of one thread are faster than one stream of two
    threads by a third to a half, as small matrix products do not split well.
    """

    device = "cpu"
    padded_shape = staticmethod(unchanged)

    def __init__(self, file: Path, precision: str, threads: int) -> None:
        """Load a graph.

        Args:
            file: ends in .onnx.
            precision: fp32 or int8.
            threads: number of streams.

        Raises:
            InputError: the file is damaged.
        """
        self.name = f"onnxruntime-{precision}"
        self.streams = threads
        # Dynamic quantization uses one range per micro-batch, so rows would change each other.
        self.max_rows: int | None = 1 if precision == "int8" else _MAX_ROWS
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
            raise InputError(f"{str(file)!r}: cannot be loaded ({problem}). {REMEDY}") from None
        self._input_names = [tensor.name for tensor in self._session.get_inputs()]

    def runs(self) -> list[Run]:
        """Return the same function for all streams, as sessions are thread-safe."""
        return [self._run] * self.streams

    def warmup_shapes(self, max_length: int) -> list[tuple[int, int]]:
        """Return the largest shape, for which memory is then allocated."""
        return [(self.max_rows or 1, max_length)]

    def _run(self, ids: Ids, mask: Ids) -> Logits:
        inputs = dict(zip(self._input_names, (ids, mask), strict=True))
        logits: Logits = self._session.run(None, inputs)[0]
        return logits
