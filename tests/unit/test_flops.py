"""Floating-point operations: against PyTorch's own counter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, BertConfig

from benchmarks.flops import matmul_rate, training_flops
from finsent.modeling.random_backbones import BASE_SHAPE


@pytest.mark.parametrize("length", [5, 40])
def test_as_pytorch_counts(tiny: Path, length: int) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny, num_labels=3, attn_implementation="eager"
    ).train()
    ids = torch.ones(6, length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
    expected = counter.get_total_flops() / 6
    assert training_flops(model.config, length, length**2) == pytest.approx(expected, rel=0.01)


def test_rate_of_matrix_products() -> None:
    before = torch.get_num_threads()
    rate = matmul_rate(torch.device("cpu"), torch.float32, 1)
    assert 1e8 < rate < 1e14  # a machine that can run this at all, and none that exists
    assert torch.get_num_threads() == before


def test_random_base_has_bert_bases_shape() -> None:
    default = BertConfig()
    assert {key: getattr(default, key) for key in BASE_SHAPE} == BASE_SHAPE
