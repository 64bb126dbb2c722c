"""The benchmarks of data: small, for their keys and their honesty, not for their numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from finsent.data.synthetic import expected
from tests.e2e.conftest import Done

SMALL = ("bench.rounds=1", "storage.root=out")


def test_ingest_beside_its_peers(job: Callable[..., Done], project: Path) -> None:
    done = job("bench", "ingest", "rows=20_000", "bench.peer_rows=10_000", *SMALL, cwd=project)
    assert done.code == 0, done.err
    result = done.result
    assert result["rows"] == 20_000
    assert result["counts"]["kept"] == expected(20_000, seed=1).kept
    for key in ("rows_per_second", "peak_rss_bytes", "over_pandas", "over_polars", "memory_growth"):
        assert result[key] > 0, key
    assert {len(rounds) for rounds in result["rounds"].values()} == {1}
    assert result["peak_rss_sum_bytes"] >= result["peak_rss_bytes"] > 200 << 20
    assert not [*(project / "out" / "bench").iterdir()]  # its rows are gone


def test_readback_feeds_a_worker(job: Callable[..., Done], project: Path) -> None:
    done = job("bench", "configs/debug.yaml", "readback", "rows=3000", *SMALL, cwd=project)
    assert done.code == 0, done.err
    result = done.result
    rates = result["readback_rows_per_second"] / result["training_rows_per_second"]
    assert result["readback_over_training"] == rates
    assert result["backbone"] == "tiny"
