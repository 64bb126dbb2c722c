"""What a training step has to compute, and how fast a machine can multiply matrices."""

from __future__ import annotations

import time
from typing import Any

import torch

_BACKWARD = 2  # a product's backward pass has two products of the same size
_SIZE = {"cpu": 1024, "cuda": 8192}
_SECONDS = 0.5


def training_flops(config: Any, length: float, length_squared: float) -> float:
    """Floating-point operations of a row's forward and backward pass in a BERT-like classifier.

    Counts matrix products alone, two operations a multiply-add (as Kaplan et al., arXiv:2001.08361,
    with attention): the rest is a few percent. Embeddings are looked up, not multiplied.

    Args:
        config: of the backbone, with `hidden_size`, `intermediate_size`, `num_hidden_layers`.
        length: tokens of a row, or their mean.
        length_squared: their square, or its mean.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    projections = 2 * length * (4 * hidden * hidden + 2 * hidden * inner)
    attention = 2 * 2 * length_squared * hidden
    head = 2 * (hidden * hidden + hidden * config.num_labels)
    forward: float = config.num_hidden_layers * (projections + attention) + head
    return (1 + _BACKWARD) * forward


def matmul_rate(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """Floating-point operations a second of a large square matrix product, the best of many.

    Args:
        threads: compute threads on a CPU.
    """
    size = _SIZE[device.type]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        best, end = float("inf"), time.perf_counter() + _SECONDS
        while time.perf_counter() < end or best == float("inf"):
            started = time.perf_counter()
            torch.mm(a, b)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / best
