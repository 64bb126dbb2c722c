"""Compute threads of PyTorch in the process of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def compute_threads(count: int | None = None) -> Iterator[None]:
    """Set the number of compute threads, if given, and restore the earlier number at the end."""
    import torch

    threads = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    yield
    torch.set_num_threads(threads)
