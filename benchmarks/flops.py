"""Floating-point operations of a training step, and of matrix products per second."""

from __future__ import annotations

import time
from typing import Any

import torch

_BACKWARD_PRODUCTS = 2  # the backward pass of a product has two products of its size
_MATRIX_SIZES = {"cpu": 1024, "cuda": 8192}
_MEASURED_SECONDS = 0.5


def training_flops(config: Any, length: float, length_squared: float) -> float:
    """Return the operations of a row's forward and backward pass in a BERT-like classifier.

    Only matrix products count, with two operations per multiply-add (Kaplan et al.,
    arXiv:2001.08361, and attention). All other operations are a few percent. Embeddings are looked
    up, not multiplied.

    Args:
        config: the backbone's, with `hidden_size`, `intermediate_size`, `num_hidden_layers`.
        length: tokens of a row, or the mean over rows.
        length_squared: square of the tokens of a row, or the mean over rows.
    """
    hidden, intermediate = config.hidden_size, config.intermediate_size
    projections = 2 * length * (4 * hidden * hidden + 2 * hidden * intermediate)
    attention = 2 * 2 * length_squared * hidden
    head = 2 * (hidden * hidden + hidden * config.num_labels)
    forward: float = config.num_hidden_layers * (projections + attention) + head
    return (1 + _BACKWARD_PRODUCTS) * forward


def matmul_rate(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """Return the floating-point operations per second of the fastest of many matrix products.

    Args:
        threads: compute threads on a CPU.
    """
    size = _MATRIX_SIZES[device.type]
    previous_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        shortest, end = float("inf"), time.perf_counter() + _MEASURED_SECONDS
        while time.perf_counter() < end or shortest == float("inf"):
            started = time.perf_counter()
            torch.mm(left, right)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            shortest = min(shortest, time.perf_counter() - started)
    finally:
        torch.set_num_threads(previous_threads)
    return 2 * size**3 / shortest
