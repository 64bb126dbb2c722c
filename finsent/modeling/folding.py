"""Fold the temperature of a calibration into the weights, for all readers of the weights.

Dividing the weights and the bias of the output layer by a temperature divides the logits by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from finsent.files import staged_file
from finsent.modeling.calibration import FOLDED_KEY, folded_temperature
from finsent.modeling.classification_head import output_layer
from finsent.modeling.classifier import load_classifier
from finsent.modeling.label_map import ABSENT_LOGIT
from finsent.modeling.model_dir import WEIGHTS

_TOLERANCE = 1e-5  # relative, of a logit


def scaling_tensors(model_dir: Path, rows: Sequence[Sequence[int]]) -> list[str]:
    """Return the names of the tensors that scale the logits; empty: no single layer does.

    Half the tensors must give half the logits. They do not where a function follows the output
    layer, or where another layer shares its weights.

    Args:
        rows: token ids to compute, at least one row.
    """
    model = load_classifier(model_dir).float().cpu()
    layer = output_layer(model)
    if layer is None:
        return []
    parameters = [*layer.parameters()]
    ids = {id(parameter) for parameter in parameters}
    names = [name for name, parameter in model.named_parameters() if id(parameter) in ids]
    with safe_open(model_dir / WEIGHTS, "pt") as file:
        stored_names = {*file.keys()}
        if len(names) != len(parameters) or not stored_names.issuperset(names):
            return []
        are_equal = [
            torch.equal(file.get_tensor(name).float(), model.get_parameter(name)) for name in names
        ]
    return names if all(are_equal) and _scales_logits(model, parameters, rows) else []


@torch.inference_mode()
def _scales_logits(
    model: PreTrainedModel, parameters: Sequence[torch.Tensor], rows: Sequence[Sequence[int]]
) -> bool:
    before = _logits(model, rows)
    for tensor in parameters:
        tensor.copy_(_divided(tensor, 2.0))
    after = _logits(model, rows)
    expected = torch.where(before <= ABSENT_LOGIT / 2, before, before / 2)
    return bool(torch.allclose(after, expected, rtol=_TOLERANCE, atol=1e-6))


def _logits(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    outputs = [
        model(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row)).long())
        for row in rows
    ]
    return torch.cat([output.logits for output in outputs])


def fold(model_dir: Path, names: Sequence[str], temperature: float) -> None:
    """Divide the output layer, as it was trained, by a temperature.

    The weights' file is replaced by a new file, as a published version may link to it.

    Args:
        names: tensors, from `scaling_tensors`.
    """
    ratio = temperature / folded_temperature(model_dir)
    file = model_dir / WEIGHTS
    with safe_open(file, "pt") as opened:
        metadata = {**(opened.metadata() or {}), FOLDED_KEY: repr(temperature)}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for name in names:
        tensors[name] = _divided(tensors[name], ratio)
    with staged_file(file) as temporary:
        save_file(tensors, temporary, metadata)


def _divided(tensor: torch.Tensor, ratio: float) -> torch.Tensor:
    """Divide weights, except the bias of a label that the model never answers."""
    divided = (tensor.double() / ratio).to(tensor.dtype)
    return torch.where(tensor <= ABSENT_LOGIT / 2, tensor, divided)
