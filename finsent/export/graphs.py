"""Write a trained model in forms that compute faster. Needs torch; what comes out does not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finsent.disk import find_disk_error
from finsent.errors import one_line
from finsent.inference.backends.quiet import forbid_telemetry
from finsent.inference.exports import ExportError
from finsent.modeling.classifier import load_classifier
from finsent.modeling.layout import INPUTS

log = logging.getLogger(__name__)

OPSET = 17  # the newest that the tracing exporter and the fusions both know well
# Architectures whose graphs ONNX Runtime's BERT fusions were made for.
_FUSED = ("bert", "roberta", "distilbert", "camembert", "xlm-roberta", "electra")


class _Graph(torch.nn.Module):
    """Two inputs, one output: what a graph can say."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits


def export_onnx(model_dir: Path, out: Path) -> None:
    """Trace a classifier into an ONNX file with any number of rows and any length.

    Raises:
        ExportError: an operator has no ONNX form.
    """
    model = load_classifier(model_dir)
    model.set_attn_implementation("eager")  # plain operators, which the fusions recognize
    graph = _Graph(model).eval()
    ids = torch.full((2, 7), 5)
    shape = {0: "rows", 1: "length"}
    try:
        with _quiet(), torch.inference_mode():
            torch.onnx.export(
                graph,
                (ids, torch.ones_like(ids)),
                str(out),
                opset_version=OPSET,
                input_names=[*INPUTS],
                output_names=["logits"],
                dynamic_axes={INPUTS[0]: shape, INPUTS[1]: shape, "logits": {0: "rows"}},
                # The other exporter needs onnxscript, and fixes shapes that vary here.
                dynamo=False,
            )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of the tracer, and of each model's own code under it
        if find_disk_error(error, writes=True):
            raise
        problem, kind = one_line(error), model.config.model_type
        raise ExportError(
            f"{str(model_dir)!r}: {kind} cannot be exported to ONNX ({problem}). Use "
            "engine.backend=torch, which needs no export."
        ) from error


def fuse(raw: Path, config: dict[str, Any], out: Path) -> None:
    """Write a graph with a BERT's operators fused, as far as that pays.

    Measured with MiniLM on 2 cores: layer norm and GELU do; attention does not (fp32 335 rows/s
    with and without, int8 530 with and 600 without).

    Args:
        raw: from `export_onnx`.
        config: the model's config.json.
    """
    import onnx
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    if config.get("model_type") not in _FUSED:
        onnx.save(onnx.load(str(raw)), str(out))
        return
    options = FusionOptions("bert")
    # Its sums go in another order with other numbers of rows: 1e-5 would not hold across batches.
    options.enable_skip_layer_norm = False
    options.enable_attention = False
    heads = config.get("num_attention_heads") or config.get("n_heads") or 0
    size = config.get("hidden_size") or config.get("dim") or 0
    try:
        with _quiet():
            found = optimize_model(
                str(raw),
                "bert",
                num_heads=heads,
                hidden_size=size,
                optimization_options=options,
                opt_level=1,
            )
            found.save_model_to_file(str(out))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a graph does that the fusions do not expect
        if find_disk_error(error, writes=True):
            raise
        problem = one_line(error)
        log.warning("export: operators are not fused (%s: %s)", type(error).__name__, problem)
        onnx.save(onnx.load(str(raw)), str(out))


def quantize_onnx(fp32: Path, out: Path) -> None:
    """Write a graph whose matrix products take int8, with ranges found at run time."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            fp32,
            out,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Attention"],
            # Fused operators hide their types from shape inference.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def quantize_openvino(raw: Path, rows: Sequence[Sequence[int]], out: Path) -> None:
    """Write an OpenVINO graph in int8 whose ranges are calibrated (NNCF post-training).

    Args:
        raw: from `export_onnx`.
        rows: token ids to calibrate on.
        out: ends in .xml; the weights lie beside it in a .bin.
    """
    forbid_telemetry()
    with _quiet():
        import nncf
        import openvino

        # Not `nncf.set_log_level`: it sets the level of handlers, too, which others may share.
        logging.getLogger("nncf").setLevel(logging.ERROR)
        items = [
            {INPUTS[0]: np.array([row], np.int64), INPUTS[1]: np.ones((1, len(row)), np.int64)}
            for row in rows
        ]
        quantized = nncf.quantize(
            openvino.convert_model(str(raw)),
            nncf.Dataset(items),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(items),
        )
        openvino.save_model(quantized, str(out), compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what these libraries say to developers of exporters from our users."""
    loggers = [logging.getLogger(name) for name in ("onnxruntime", "nncf", "torch.onnx", "")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
