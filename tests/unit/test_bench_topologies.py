"""The ratios of the benchmark of topologies. The benchmark itself takes too long for a test."""

from __future__ import annotations

from benchmarks.settings import BenchSettings
from benchmarks.topologies import Round, ratios, variants


def measured(rate: float, gateway: float) -> Round:
    return Round(rate, 10.0, 20.0, 0, {"gateway": gateway, "classifier": 1.0}, 0.9)


def test_ratios_compare_medians_of_the_rounds() -> None:
    result = ratios(
        {
            "fused": [measured(100, 3), measured(200, 3), measured(900, 3)],
            "split": [measured(150, 2), measured(180, 2), measured(160, 2)],
            "stub, 1 gateway": [measured(400, 2.0)],
            "stub, 2 gateways": [measured(600, 2.5)],
        }
    )
    assert result["split_over_fused"] == 0.8
    assert result["two_gateways_over_one"] == 1.5
    assert result["two_gateways_over_one_per_core"] == 1.6  # 0.8 of a gateway's rate per core
    assert result["variants"]["split"]["cpu_ms_per_request"] == {"classifier": 1.0, "gateway": 2}


def test_each_variant_has_its_own_number_of_gateways() -> None:
    loads = {variant.server.name: variant.connections for variant in variants(BenchSettings())}
    assert loads["stub, 2 gateways"] == 2 * loads["stub, 1 gateway"]
    commands = {
        candidate.server.name: candidate.server.command for candidate in variants(BenchSettings())
    }
    assert "serve.topology=fused" in commands["fused"]
    for name in ("split", "stub, 1 gateway"):
        assert "serve.gateways.max_replicas=1" in commands[name]
    assert "serve.gateways.min_replicas=2" in commands["stub, 2 gateways"]
    assert commands["stub, 2 gateways"][2] == "benchmarks.stub_service"
