"""What the benchmarks of the service make of what they measured; the runs themselves are long."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.probes import Probes
from benchmarks.serve import BULK, CONNECTIONS, Load, _ratios, write_bodies


def loads(rate: float, p50: float, p99: float, rounds: int = 1) -> dict[int, list[Load]]:
    return {n: [Load(rate, p50, p99, 0)] * rounds for n in CONNECTIONS}


def test_ratios_compare_medians_of_the_rounds() -> None:
    finsent = loads(0, 0, 0)
    finsent[64] = [Load(300, 50, 90, 0), Load(1, 999, 999, 7), Load(330, 60, 100, 0)]
    finsent[1] = [Load(100, 9, 12, 0)]
    single = {
        "finsent": finsent,
        "uvicorn": loads(400, 40, 80),
        "predecessor fp32": loads(100, 60, 1000),
        "predecessor int8": loads(200, 3, 500),
        "LitServe int8": loads(150, 30, 200),
    }
    engines = [{"engine": 600.0, "single": 150.0, "backend": "openvino-int8"}] * 3
    found = _ratios(single, [300.0, 480.0, 900.0], engines)
    assert found["rps64_over_predecessor"] == 3.0
    assert found["rps64_over_best_peer"] == 1.5  # the fastest in int8
    assert found["p99_64_over_predecessor"] == 0.1
    assert found["p99_64_over_best_peer"] == 0.5  # the shortest tail of all
    assert found["p50_1_over_predecessor_int8"] == 3.0
    assert found["serve_over_uvicorn"] == 0.75
    assert found["bulk_over_engine"] == 0.8
    assert found["engine_over_onnx_fp32_single"] == 4.0
    assert found["servers"]["finsent"]["64"]["failed"] == 7


def test_a_peer_that_is_not_there_has_no_ratio() -> None:
    engines = [{"engine": 600.0, "single": 150.0, "backend": "openvino-int8"}]
    found = _ratios({"finsent": loads(300, 50, 100)}, [300.0], engines)
    missing = {name for name, value in found.items() if value is None}
    assert missing == {
        "rps64_over_predecessor",
        "rps64_over_best_peer",
        "p99_64_over_predecessor",
        "p99_64_over_best_peer",
        "p50_1_over_predecessor_int8",
        "serve_over_uvicorn",
    }


@pytest.mark.parametrize("count", [3, BULK, 2 * BULK + 5])
def test_lists_are_of_one_length(tmp_path: Path, count: int) -> None:
    texts = [f"Profit rose by {i} %." for i in range(count)]
    single, bulk = write_bodies(texts, tmp_path)
    assert [json.loads(line)["text"] for line in single.read_text().splitlines()] == texts
    lists: list[list[Any]] = [json.loads(line)["texts"] for line in bulk.read_text().splitlines()]
    assert len(lists) == max(1, count // BULK)
    assert {len(one) for one in lists} == {BULK}
    assert set(lists[0]) <= set(texts)


def test_probes_count_all_but_good_answers() -> None:
    found = Probes()
    assert math.isnan(found.p99())
    found.codes.update({"200": 98, "429": 1, "ReadTimeout": 1})
    found.good.extend(i / 100 for i in range(1, 101))
    assert found.failed() == 2
    assert found.p99() == 0.99
