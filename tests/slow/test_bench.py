"""The benchmarks of data and training: small, for their keys and relations, not their numbers.

tests/unit/test_synthetic.py counts the rows that the data benchmarks make.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.synthetic import expected
from tests.commands import PROJECT, Done, environment, run_job

SMALL = ("bench.rounds=1", "storage.root=out")


def measure(name: str, *arguments: str, project: Path) -> Done:
    env = environment() | {"PYTHONPATH": str(PROJECT)}  # benchmarks are not installed
    return run_job(f"benchmarks.{name}", *arguments, cwd=project, env=env)


def test_ingest_beside_its_peers(project: Path) -> None:
    done = measure("ingest", "rows=20_000", "bench.peer_rows=10_000", *SMALL, project=project)
    assert done.code == 0, done.err
    result = done.result
    assert result["rows"] == 20_000
    assert result["counts"]["kept"] == expected(20_000, seed=1).kept
    for key in ("rows_per_second", "peak_rss_bytes", "over_pandas", "over_polars", "memory_growth"):
        assert result[key] > 0, key
    assert {len(rounds) for rounds in result["rounds"].values()} == {1}
    assert result["peak_rss_sum_bytes"] >= result["peak_rss_bytes"] > 200 << 20
    assert not [*(project / "out" / "bench").iterdir()]  # its rows are gone


def test_readback_feeds_a_worker(project: Path) -> None:
    done = measure("readback", "configs/debug.yaml", "rows=3000", *SMALL, project=project)
    assert done.code == 0, done.err
    result = done.result
    rates = result["readback_rows_per_second"] / result["training_rows_per_second"]
    assert result["readback_over_training"] == rates
    assert result["backbone"] == "tiny"


def test_training_beside_its_peers(project: Path) -> None:
    small = ("rows=64", "train.batch_size=8", "bench.ray=false", *SMALL)
    done = measure("train", "configs/debug.yaml", *small, project=project)
    assert done.code == 0, done.err
    result = done.result
    medians = {name: m["step_rows_per_second"] for name, m in result["medians"].items()}
    assert set(medians) == {"torchrun", "one_worker", "hf_trainer", "hf_grouped"}
    ours = medians["torchrun"]
    assert result["over_hf_trainer"] == ours / medians["hf_trainer"] > 0
    assert result["over_hf_grouped"] == ours / medians["hf_grouped"] > 0
    assert result["two_over_one_worker"] == ours / medians["one_worker"] > 0
    assert result["ray_over_torchrun"] is None  # not asked for
    assert result["flops_per_second"] == result["flops_per_row"] * ours
    assert 0 < result["share_of_matmul_rate"] < 1
    assert 0 < result["padding_share"] < 0.5
    assert (result["rows"], result["workers"], result["number_format"]) == (64, 2, "float32")
    assert "Traceback" not in done.err
