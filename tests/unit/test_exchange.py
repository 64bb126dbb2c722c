"""Repartitioning by a hash through files: each row comes back once, in its partition, in order."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.data.ingest.exchange import Exchange
from tests.properties import examples

pytestmark = pytest.mark.cost(1, "writes many files")

SCHEMA = pa.schema([("hash", pa.uint64()), ("key", pa.binary(4)), ("text", pa.string())])
HASHES = st.lists(
    st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32, 2**63, 2**64 - 1])),
    max_size=20,
)


def table(name: str, hashes: list[int]) -> pa.Table:
    """A row a hash, which says who wrote it; every third text is null."""
    rows = [
        {"hash": h, "key": n.to_bytes(4, "big"), "text": f"{name} {n} é" if n % 3 else None}
        for n, h in enumerate(hashes)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def store(exchange: Exchange, name: str, hashes: list[int]) -> pa.Table:
    rows = table(name, hashes)
    exchange.write(name, rows, np.array(hashes, np.uint64))
    return rows


def parts(exchange: Exchange) -> list[pa.Table]:
    tables = [exchange.read(partition) for partition in range(exchange.partitions)]
    return [table for table in tables if table is not None]


@examples(60)
@given(st.lists(HASHES, min_size=1, max_size=4), st.integers(1, 9))
def test_what_is_written_is_read_once_in_ranges_and_in_the_writers_order(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[int]], partitions: int
) -> None:
    exchange = Exchange(tmp_path_factory.mktemp("exchange") / "rows", partitions)
    names = [f"writer-{n:02d}" for n in range(len(written))]
    tables = [store(exchange, n, h) for n, h in reversed(list(zip(names, written, strict=True)))]
    everything = [row for rows in reversed(tables) for row in rows.to_pylist()]
    read = parts(exchange)
    assert len(read) == partitions
    highest = -1
    for table in read:
        assert table.schema == SCHEMA
        rows = table.to_pylist()
        hashes = [row["hash"] for row in rows]
        assert rows == [row for row in everything if row["hash"] in set(hashes)]
        assert min(hashes, default=2**64) > highest
        highest = max(hashes, default=highest)
    assert sum(map(len, read)) == len(everything)


@pytest.mark.parametrize("partitions", [1, 2, 7, 1000, 65_535])
def test_partitions_are_even_and_in_range(partitions: int) -> None:
    count = 50_000
    hashes = np.random.default_rng(1).integers(0, 2**64 - 1, count, np.uint64)
    numbers: npt.NDArray[np.uint32] = Exchange(Path("unused"), partitions).partition_of(hashes)
    assert int(numbers.max()) < partitions
    half = float((numbers < partitions // 2).mean())
    share = partitions // 2 / partitions
    assert abs(half - share) <= 4 * math.sqrt(share * (1 - share) / count)
    ends = np.array([0, 2**64 - 1], np.uint64)
    assert Exchange(Path("unused"), partitions).partition_of(ends).tolist() == [0, partitions - 1]


@pytest.mark.parametrize("partitions", [1, 3])
def test_no_files_differ_from_no_rows(tmp_path: Path, partitions: int) -> None:
    exchange = Exchange(tmp_path / "rows", partitions)
    assert parts(exchange) == []
    store(exchange, "a", [])
    assert [len(table) for table in parts(exchange)] == [0] * partitions
    assert all(table.schema == SCHEMA for table in parts(exchange))
    rows = store(exchange, "b", [0])
    assert [len(table) for table in parts(exchange)] == [1] + [0] * (partitions - 1)
    assert exchange.read(0) == rows


def test_a_task_that_runs_again_replaces_its_own_file_alone(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path, 2)
    store(exchange, "a", [1, 2, 2**63])
    other_rows = store(exchange, "b", [2**63])
    again = store(exchange, "a", [5])
    assert [table.to_pylist() for table in parts(exchange)] == [
        again.to_pylist(),
        other_rows.to_pylist(),
    ]


def test_unfinished_and_foreign_files_are_never_read(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path, 2)
    rows = store(exchange, "a", [7])
    content = (tmp_path / "a.arrow").read_bytes()
    for name in (".b", ".b.arrow", "notes.txt"):
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".b", ".b.arrow", "a.arrow", "notes.txt"]
    assert [table.to_pylist() for table in parts(exchange)] == [rows.to_pylist(), []]
    again = store(exchange, "b", [8])  # the task that was cut off
    assert [table.to_pylist() for table in parts(exchange)] == [
        rows.to_pylist() + again.to_pylist(),
        [],
    ]


def test_slices_and_chunks_of_larger_tables_keep_only_their_rows(tmp_path: Path) -> None:
    hashes = [2**63, 1, 2**64 - 1, 2, 3]
    chunks = pa.concat_tables([table("x", hashes), table("y", hashes)])
    exchange = Exchange(tmp_path, 2)
    exchange.write("a", chunks.slice(3, 4), np.array([*hashes, *hashes][3:7], np.uint64))
    assert [[row["hash"] for row in block.to_pylist()] for block in parts(exchange)] == [
        [2, 3, 1],
        [2**63],
    ]
