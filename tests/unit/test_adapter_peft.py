"""The names that `finsent.adapters.peft` relies on are those that the package `peft` gives."""

from __future__ import annotations

import torch

from finsent.adapters import peft

CHANGED = "peft has changed; adapt finsent/adapters/peft.py: "


def test_names_of_weights_and_merge() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    names = [*model.state_dict()]
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    peft.inject_adapters(model, ["0"], rank=2, alpha=4.0, dropout=0.0)
    inside = [*model.state_dict()]
    assert "0.base_layer.weight" in inside, CHANGED + "BASE_LAYER"
    assert any(name.startswith(f"0{peft.ADAPTER_WEIGHTS}") for name in inside), (
        CHANGED + "ADAPTER_WEIGHTS"
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if peft.ADAPTER_WEIGHTS in name:
                parameter.fill_(0.1)
    merged = peft.merged_weights(model)
    assert [*merged] == names, CHANGED + "names of merged weights"
    plain = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    plain.load_state_dict(merged)
    torch.testing.assert_close(plain(inputs), model(inputs), msg=CHANGED + "get_delta_weight")
