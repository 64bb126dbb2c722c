"""PyTorch: exact, and the one that runs on GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from finsent.inference.backends import Logits, Run
from finsent.inference.batching import Ids
from finsent.modeling.classifier import load_classifier


class TorchBackend:
    """The model as it was trained, in fp32 or bf16."""

    streams = 1  # torch spreads one micro-batch over its threads

    def __init__(self, model_dir: Path, precision: str, threads: int, compiled: bool) -> None:
        """Load the weights.

        Args:
            precision: fp32 or bf16.
            compiled: by torch.compile, with dynamic shapes.
        """
        self.name = f"torch-{precision}"
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.most_rows: int | None = None
        torch.set_num_threads(threads)
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        model = load_classifier(model_dir)
        # The subclass hides the method's signature.
        torch.nn.Module.to(model, torch.device(self.device), self._dtype)
        self._model: Any = torch.compile(model, dynamic=True) if compiled else model

    def streams_of(self) -> list[Run]:
        """See `Backend`."""
        return [self._run]

    def shape(self, rows: int, length: int) -> tuple[int, int]:
        """No padding beyond the longest row."""
        return rows, length

    def shapes(self, longest: int) -> list[tuple[int, int]]:
        """Two: a first call allocates, and a compiler sees that shapes change."""
        return [(1, min(16, longest)), (8, longest)]

    @torch.inference_mode()
    def _run(self, ids: Ids, mask: Ids) -> Logits:
        output = self._model(
            input_ids=torch.from_numpy(ids).to(self.device),
            attention_mask=torch.from_numpy(mask).to(self.device),
        )
        logits: Logits = output.logits.float().cpu().numpy()
        return logits
