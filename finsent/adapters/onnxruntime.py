"""Fragile APIs of ONNX Runtime's tools. Imported only where a graph is written."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model


def fuse_bert(raw: Path, out: Path, heads: int, hidden_size: int) -> None:
    """Write a BERT graph with fused layer norm and GELU.

    `onnxruntime.transformers` is a collection of scripts without a stable API: its fusions are
    turned off by attributes, which a new version may rename without an error.

    Args:
        heads: attention heads; 0: not known.
        hidden_size: 0: not known.
    """
    options = FusionOptions("bert")
    # The order of its sums depends on the number of rows, so the same text would get answers that
    # differ by more than 1e-5 from batch to batch.
    options.enable_skip_layer_norm = False
    options.enable_attention = False
    graph = optimize_model(
        str(raw),
        "bert",
        num_heads=heads,
        hidden_size=hidden_size,
        optimization_options=options,
        opt_level=1,
    )
    graph.save_model_to_file(str(out))


def quantize_matrix_products(fp32: Path, out: Path) -> None:
    """Write a graph whose matrix products are int8, with ranges measured at run time.

    Shape inference fails on fused operators, which have types of their own. The undocumented option
    `DefaultTensorType` replaces the missing types.
    """
    quantize_dynamic(
        fp32,
        out,
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Attention"],
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
