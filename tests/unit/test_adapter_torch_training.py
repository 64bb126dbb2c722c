"""The private and global APIs of PyTorch that `finsent.adapters.torch_training` uses are there."""

from __future__ import annotations

import os

import pytest
import torch

from finsent.adapters import torch_training

CHANGED = "PyTorch has changed; adapt finsent/adapters/torch_training.py: "


def test_a_compiled_module_leads_back_to_the_module() -> None:
    model = torch.nn.Linear(2, 2)
    compiled = torch.compile(model, backend="eager")
    assert isinstance(compiled, torch.nn.Module)
    assert torch_training.without_compile(compiled) is model, CHANGED + "_orig_mod"
    assert torch_training.without_compile(model) is model


def test_deterministic_algorithms_are_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "set")  # undone afterwards
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    memory = torch.utils.deterministic
    assert hasattr(memory, "fill_uninitialized_memory"), CHANGED + "fill_uninitialized_memory"
    fills_memory = memory.fill_uninitialized_memory
    with torch_training.deterministic_algorithms(enabled=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not memory.fill_uninitialized_memory
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert memory.fill_uninitialized_memory == fills_memory
    with torch_training.deterministic_algorithms(enabled=False):
        assert not torch.are_deterministic_algorithms_enabled()
