"""APIs of PyTorch for training that are private, global, or read from the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# cuBLAS reads this variable at the process's first matrix product on a GPU, and is deterministic
# only with one of the two values that
# https://docs.pytorch.org/docs/stable/notes/randomness.html names.
_CUBLAS_VARIABLE, _CUBLAS_VALUE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def deterministic_algorithms(*, enabled: bool) -> Iterator[None]:
    """Use only deterministic algorithms inside the block, and fail where PyTorch has none."""
    if not enabled:
        yield
        return
    was_enabled = torch.are_deterministic_algorithms_enabled()
    was_benchmarking = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic  # assigned at import, so PyTorch's types lack it
    fills_memory = memory.fill_uninitialized_memory
    os.environ.setdefault(_CUBLAS_VARIABLE, _CUBLAS_VALUE)
    try:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        memory.fill_uninitialized_memory = False  # costs time, and training reads no such memory
        yield
    finally:
        torch.use_deterministic_algorithms(was_enabled)
        torch.backends.cudnn.benchmark = was_benchmarking
        memory.fill_uninitialized_memory = fills_memory


def without_compile(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module that `torch.compile` has wrapped, or the model itself.

    `torch.compile` has no public way back to the module: the wrapper stores it in `_orig_mod`.
    """
    original = getattr(model, "_orig_mod", model)
    return original if isinstance(original, torch.nn.Module) else model
