"""The calibration's temperature inside the weights, so that every reader of them is calibrated.

Logits divided by a temperature are those of an output layer whose weights and bias are divided by
it. Needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from finsent.files import staged_file
from finsent.modeling.classifier import load_classifier
from finsent.modeling.head import output_layer
from finsent.modeling.label_map import ABSENT_LOGIT
from finsent.modeling.layout import FOLDED, WEIGHTS, folded_temperature

_TOLERANCE = 1e-5  # relative, of a logit


def scaling_tensors(model_dir: Path, rows: Sequence[Sequence[int]]) -> list[str]:
    """Return the tensors of the weights' file that scale the logits; none: no layer does.

    Whether they do is tried: half their size must halve the logits, which a function behind the
    output layer, or a second use of its weights, would prevent.

    Args:
        rows: token ids to try, some.
    """
    model = load_classifier(model_dir).float().cpu()
    layer = output_layer(model)
    if layer is None:
        return []
    own = [*layer.parameters()]
    names = [name for name, p in model.named_parameters() if any(p is one for one in own)]
    with safe_open(model_dir / WEIGHTS, "pt") as file:
        stored = {*file.keys()}
        if len(names) != len(own) or not stored.issuperset(names):
            return []
        same = [
            torch.equal(file.get_tensor(name).float(), model.get_parameter(name)) for name in names
        ]
    return names if all(same) and _scales(model, own, rows) else []


@torch.inference_mode()
def _scales(
    model: PreTrainedModel, own: Sequence[torch.Tensor], rows: Sequence[Sequence[int]]
) -> bool:
    before = _logits(model, rows)
    for tensor in own:
        tensor.copy_(_divided(tensor, 2.0))
    after = _logits(model, rows)
    expected = torch.where(before <= ABSENT_LOGIT / 2, before, before / 2)
    return bool(torch.allclose(after, expected, rtol=_TOLERANCE, atol=1e-6))


def _logits(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    found = [
        model(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row)).long())
        for row in rows
    ]
    return torch.cat([one.logits for one in found])


def fold(model_dir: Path, names: Sequence[str], temperature: float) -> None:
    """Divide the output layer, as it was trained, by a temperature.

    The file is replaced, as a published version may share it.

    Args:
        names: of `scaling_tensors`.
    """
    ratio = temperature / folded_temperature(model_dir)
    file = model_dir / WEIGHTS
    with safe_open(file, "pt") as opened:
        metadata = {**(opened.metadata() or {}), FOLDED: repr(temperature)}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for name in names:
        tensors[name] = _divided(tensors[name], ratio)
    with staged_file(file) as temporary:
        save_file(tensors, temporary, metadata)


def _divided(tensor: torch.Tensor, ratio: float) -> torch.Tensor:
    """Divide weights, but for the bias of a label that is never answered."""
    divided = (tensor.double() / ratio).to(tensor.dtype)
    return torch.where(tensor <= ABSENT_LOGIT / 2, tensor, divided)
