"""torch's and ONNX Runtime's tools still write the graphs that the adapters ask for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.transformers.fusion_options import FusionOptions

from finsent.adapters.onnxruntime import fuse_bert, quantize_matrix_products
from finsent.export.onnx import OPSET, write_onnx
from finsent.modeling.model_dir import INPUTS
from tests.unit.models import saved_model

pytestmark = pytest.mark.cost(3, "writes graphs")


@pytest.fixture(scope="module")
def raw(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    write_onnx(saved_model(tiny, folder / "model"), folder / "raw.onnx")
    return folder / "raw.onnx"


def operators(file: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(file)).graph.node]


def logits(file: Path, rows: int, length: int) -> Any:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    ids = np.arange(rows * length, dtype=np.int64).reshape(rows, length) % 100 + 5
    return session.run(None, dict(zip(INPUTS, (ids, np.ones_like(ids)), strict=True)))[0]


def test_traced_graph_has_any_number_of_rows_and_any_length(raw: Path) -> None:
    parameters = inspect.signature(torch.onnx.export).parameters.keys()
    assert "dynamo" in parameters, "torch.onnx.export no longer has the tracing exporter"
    graph = onnx.load(str(raw))
    assert [tensor.name for tensor in graph.graph.input] == [*INPUTS]
    assert {opset.version for opset in graph.opset_import if not opset.domain} == {OPSET}
    for shape in ((1, 3), (5, 40)):
        assert logits(raw, *shape).shape == (shape[0], 3)


def test_only_layer_norm_and_gelu_are_fused(raw: Path, tmp_path: Path) -> None:
    for option in ("enable_skip_layer_norm", "enable_attention"):
        assert hasattr(FusionOptions("bert"), option), f"FusionOptions no longer has {option}"
    fuse_bert(raw, tmp_path / "fused.onnx", heads=2, hidden_size=32)
    fused = operators(tmp_path / "fused.onnx")
    assert "LayerNormalization" in fused
    assert len(fused) < len(operators(raw))
    assert not {"SkipLayerNormalization", "EmbedLayerNormalization", "Attention"} & {*fused}
    assert logits(tmp_path / "fused.onnx", 3, 9) == pytest.approx(logits(raw, 3, 9), abs=1e-5)


def test_matrix_products_of_a_fused_graph_are_quantized(raw: Path, tmp_path: Path) -> None:
    fuse_bert(raw, tmp_path / "fused.onnx", heads=2, hidden_size=32)
    quantize_matrix_products(tmp_path / "fused.onnx", tmp_path / "int8.onnx")
    kinds = operators(tmp_path / "int8.onnx")
    assert "MatMulInteger" in kinds, "quantize_dynamic no longer quantizes matrix products"
    assert np.isfinite(logits(tmp_path / "int8.onnx", 1, 9)).all()
