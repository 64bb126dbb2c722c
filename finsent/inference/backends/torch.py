"""PyTorch: exact, and the only backend for GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from finsent.inference.backends import Logits, Run
from finsent.inference.backends.padding import unchanged
from finsent.inference.batching import Ids
from finsent.modeling.classifier import load_classifier


class TorchBackend:
    """The model as it was trained, in fp32 or bf16."""

    streams = 1  # torch splits a micro-batch over its threads
    padded_shape = staticmethod(unchanged)

    def __init__(self, model_dir: Path, precision: str, threads: int, is_compiled: bool) -> None:
        """Load the weights.

        Args:
            model_dir: a trained classifier's directory.
            precision: fp32 or bf16.
            threads: of torch, on a CPU.
            is_compiled: whether torch.compile compiles the model, with dynamic shapes.
        """
        self.name = f"torch-{precision}"
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.max_rows: int | None = None
        torch.set_num_threads(threads)
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        model = load_classifier(model_dir)
        # transformers' own `to` has no typed signature.
        torch.nn.Module.to(model, torch.device(self.device), self._dtype)
        self._model: Any = torch.compile(model, dynamic=True) if is_compiled else model

    def runs(self) -> list[Run]:
        """Return the function of the only stream."""
        return [self._run]

    def warmup_shapes(self, max_length: int) -> list[tuple[int, int]]:
        """Return two shapes: with one, torch.compile would assume that all are equal."""
        return [(1, min(16, max_length)), (8, max_length)]

    @torch.inference_mode()
    def _run(self, ids: Ids, mask: Ids) -> Logits:
        output = self._model(
            input_ids=torch.from_numpy(ids).to(self.device),
            attention_mask=torch.from_numpy(mask).to(self.device),
        )
        logits: Logits = output.logits.float().cpu().numpy()
        return logits
