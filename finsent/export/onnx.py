"""Write a trained model as ONNX graphs. Needs torch; the graphs do not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from finsent.adapters.torch import trace_to_onnx
from finsent.disk import find_disk_error
from finsent.errors import one_line
from finsent.export.quiet import quiet_libraries
from finsent.inference.export_record import ExportError
from finsent.modeling.classifier import load_classifier
from finsent.modeling.model_dir import INPUTS

log = logging.getLogger(__name__)

OPSET = 17  # the newest version that both the tracing exporter and the fusions support well
# Architectures that ONNX Runtime's BERT fusions were made for.
_FUSED_TYPES = ("bert", "roberta", "distilbert", "camembert", "xlm-roberta", "electra")


class _LogitsOnly(torch.nn.Module):
    """A classifier with positional inputs and a tensor as output, as graphs have them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits


def write_onnx(model_dir: Path, out: Path) -> None:
    """Trace a classifier into an ONNX graph for any number of rows and any length.

    Raises:
        ExportError: an operator has no ONNX form.
    """
    model = load_classifier(model_dir)
    model.set_attn_implementation("eager")  # plain operators, which the fusions recognize
    ids = torch.full((2, 7), 5)
    axes = {0: "rows", 1: "length"}
    try:
        with quiet_libraries(), torch.inference_mode():
            trace_to_onnx(
                _LogitsOnly(model).eval(),
                dict(zip(INPUTS, (ids, torch.ones_like(ids)), strict=True)),
                {INPUTS[0]: axes, INPUTS[1]: axes, "logits": {0: "rows"}},
                "logits",
                out,
                OPSET,
            )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of the tracer, or of the model's own code under it
        if find_disk_error(error, writes=True):
            raise
        problem, kind = one_line(error), model.config.model_type
        raise ExportError(
            f"{str(model_dir)!r}: {kind} cannot be exported to ONNX ({problem}). Use "
            "engine.backend=torch, which needs no export."
        ) from error


def write_fused_onnx(raw: Path, config: Mapping[str, Any], out: Path) -> None:
    """Write a graph with those operators of a BERT fused that compute faster fused.

    Measured with MiniLM on 2 cores: fusing layer norm and GELU is faster; fusing attention is not
    (fp32 335 rows/s with and without, int8 530 with and 600 without).

    Args:
        raw: from `write_onnx`.
        config: the model's config.json.
    """
    # Serving never writes graphs; onnx costs 0.3 s to import.
    import onnx

    from finsent.adapters.onnxruntime import fuse_bert

    if config.get("model_type") not in _FUSED_TYPES:
        onnx.save(onnx.load(str(raw)), str(out))
        return
    heads = config.get("num_attention_heads") or config.get("n_heads") or 0
    hidden_size = config.get("hidden_size") or config.get("dim") or 0
    try:
        with quiet_libraries():
            fuse_bert(raw, out, heads, hidden_size)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of a graph that the fusions do not expect
        if find_disk_error(error, writes=True):
            raise
        problem = one_line(error)
        log.warning("export: operators are not fused (%s: %s)", type(error).__name__, problem)
        onnx.save(onnx.load(str(raw)), str(out))


def write_int8_onnx(fp32: Path, out: Path) -> None:
    """Write a graph whose matrix products are int8, with ranges measured at run time."""
    # Serving never writes graphs; onnxruntime's tools cost 0.3 s to import.
    from finsent.adapters.onnxruntime import quantize_matrix_products

    with quiet_libraries():
        quantize_matrix_products(fp32, out)
