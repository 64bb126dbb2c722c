"""The ratios of the service's benchmarks. The benchmarks themselves take too long for a test."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.probes import Probes
from benchmarks.serve import (
    CONNECTIONS,
    LIST_LENGTH,
    Load,
    Loads,
    Measurements,
    _ratios,
    write_bodies,
)


def loads(rate: float, p50: float, p99: float, failed: int = 0) -> Loads:
    return dict.fromkeys(CONNECTIONS, Load(rate, p50, p99, failed))


def test_ratios_compare_medians_of_the_rounds() -> None:
    fast_at_one = {1: Load(100, 9, 12, 0)}
    measured = {
        "finsent": [
            loads(300, 50, 90) | fast_at_one,
            loads(1, 999, 999, failed=7) | fast_at_one,
            loads(330, 60, 100) | fast_at_one,
        ],
        "uvicorn": [loads(400, 40, 80)],
        "predecessor fp32": [loads(100, 60, 1000)],
        "predecessor int8": [loads(200, 3, 500)],
        "LitServe int8": [loads(150, 30, 200)],
    }
    engines = [{"engine": 600.0, "single": 150.0, "backend": "openvino-int8"}] * 3
    ratios = _ratios(Measurements(measured, [300.0, 480.0, 900.0], engines))
    assert ratios["rps64_over_predecessor"] == 3.0
    assert ratios["rps64_over_best_peer"] == 1.5  # the fastest in int8
    assert ratios["p99_64_over_predecessor"] == 0.1
    assert ratios["p99_64_over_best_peer"] == 0.5  # the shortest tail of all
    assert ratios["p50_1_over_predecessor_int8"] == 3.0
    assert ratios["serve_over_uvicorn"] == 0.75
    assert ratios["bulk_over_engine"] == 0.8
    assert ratios["engine_over_onnx_fp32_single"] == 4.0
    assert ratios["servers"]["finsent"]["64"]["failed"] == 7


def test_missing_peer_has_no_ratio() -> None:
    engines = [{"engine": 600.0, "single": 150.0, "backend": "openvino-int8"}]
    ratios = _ratios(Measurements({"finsent": [loads(300, 50, 100)]}, [300.0], engines))
    missing = {name for name, value in ratios.items() if value is None}
    assert missing == {
        "rps64_over_predecessor",
        "rps64_over_best_peer",
        "p99_64_over_predecessor",
        "p99_64_over_best_peer",
        "p50_1_over_predecessor_int8",
        "serve_over_uvicorn",
    }


@pytest.mark.parametrize("count", [3, LIST_LENGTH, 2 * LIST_LENGTH + 5])
def test_lists_are_of_one_length(tmp_path: Path, count: int) -> None:
    texts = [f"Profit rose by {i} %." for i in range(count)]
    single, lists_file = write_bodies(texts, tmp_path)
    assert [json.loads(line)["text"] for line in single.read_text().splitlines()] == texts
    lists: list[list[Any]] = [
        json.loads(line)["texts"] for line in lists_file.read_text().splitlines()
    ]
    assert len(lists) == max(1, count // LIST_LENGTH)
    assert {len(texts_of_list) for texts_of_list in lists} == {LIST_LENGTH}
    assert set(lists[0]) <= set(texts)


def test_probes_count_all_but_good_answers() -> None:
    probes = Probes()
    assert math.isnan(probes.p99())
    probes.codes.update({"200": 98, "429": 1, "ReadTimeout": 1})
    probes.seconds.extend(i / 100 for i in range(1, 101))
    assert probes.failed() == 2
    assert probes.p99() == 0.99
