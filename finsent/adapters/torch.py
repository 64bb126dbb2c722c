"""Fragile APIs of torch. Imported only where torch is loaded anyway."""

from __future__ import annotations

from pathlib import Path

import torch


def trace_to_onnx(
    module: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    dynamic_axes: dict[str, dict[int, str]],
    output: str,
    out: Path,
    opset: int,
) -> None:
    """Write a module as an ONNX graph by torch's older, tracing exporter.

    The tracing exporter is deprecated. Its successor (`dynamo=True`) needs the package onnxscript,
    and fixes the number of rows where a model computes with it.

    Args:
        inputs: examples by the name of the input, in the order of the module's arguments.
        dynamic_axes: name of each axis of any size, by input or output.
        output: name of the only output.
        opset: version of ONNX's operators.
    """
    torch.onnx.export(
        module,
        tuple(inputs.values()),
        str(out),
        opset_version=opset,
        input_names=[*inputs],
        output_names=[output],
        dynamic_axes=dynamic_axes,
        dynamo=False,
    )
