"""Write a trained model as an OpenVINO graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from finsent.adapters.openvino import forbid_telemetry, quiet_nncf
from finsent.export.quiet import quiet_libraries
from finsent.modeling.model_dir import INPUTS


def write_int8_openvino(raw: Path, rows: Sequence[Sequence[int]], out: Path) -> None:
    """Write an OpenVINO graph in int8 with calibrated ranges (NNCF post-training quantization).

    Args:
        raw: from `finsent.export.onnx.write_onnx`.
        rows: token ids to calibrate the ranges on.
        out: ends in .xml; OpenVINO stores the weights next to it in a .bin.
    """
    forbid_telemetry()
    with quiet_libraries():
        # Optional packages, which cost 3 s to import.
        import nncf
        import openvino

        quiet_nncf()
        examples = [
            {INPUTS[0]: np.array([row], np.int64), INPUTS[1]: np.ones((1, len(row)), np.int64)}
            for row in rows
        ]
        quantized = nncf.quantize(
            openvino.convert_model(str(raw)),
            nncf.Dataset(examples),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(examples),
        )
        openvino.save_model(quantized, str(out), compress_to_fp16=False)
