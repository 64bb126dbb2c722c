"""Changes of a prediction log that `verify` must find."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.prediction_log import LogWriter, verify
from finsent.storage import Location
from tests.unit.prediction_log.logged import logged

ROWS = 6  # of a segment
SEGMENTS = 4  # of a writer
KINDS = ("value", "link", "delete", "insert", "swap", "cut", "bytes", "remove")


def write_log(root: Location) -> None:
    """Write a log of two writers."""
    for _ in range(2):
        writer = LogWriter(root, max_rows=100)
        for segment in range(SEGMENTS):
            rows = [logged(segment * ROWS + row, minutes=30 * segment) for row in range(ROWS)]
            writer.add(rows)
            writer.flush()


def tampered(table: pa.Table, kind: str, row: int, generator: random.Random) -> pa.Table:
    """Return a table with a change at a row."""
    rows = table.to_pylist()
    match kind:
        case "value":
            name = generator.choice(["tokens", "characters", "confidence", "queued_seconds"])
            rows[row][name] += 1
        case "link":
            rows[row]["chain"] = "f" * 64
        case "delete":
            del rows[row]
        case "insert":
            rows.insert(row, {**rows[row], "id": "forged"})
        case "swap":
            rows[row : row + 2] = rows[row : row + 2][::-1]
        case "cut":
            del rows[row:]
    return pa.Table.from_pylist(rows, table.schema)


def check_tampering(root: Location, kind: str, generator: random.Random) -> None:
    """Change one place of a log, check that `verify` locates it, and restore the log."""
    log, row = root / "predictions", generator.randrange(ROWS - 1)
    files = sorted(log.path.rglob("*.parquet"))
    path = generator.choice([file for file in files if not file.stem.endswith(str(SEGMENTS))])
    original = path.read_bytes()
    _tamper(path, kind, row, generator)
    [problem] = verify(root).problems
    if kind == "remove":
        writer, _, number = path.stem.partition("-")
        assert f"segment {int(number)} of {writer} is missing" in problem.problem
    else:
        assert problem.key == path.relative_to(log.path).as_posix()
        assert problem.row == (None if kind == "bytes" else row), kind
    path.write_bytes(original)


def _tamper(path: Path, kind: str, row: int, generator: random.Random) -> None:
    if kind == "remove":
        path.unlink()
    elif kind == "bytes":
        original = path.read_bytes()
        path.write_bytes(original[: generator.randrange(4, len(original))])
    else:
        pq.write_table(tampered(pq.read_table(path), kind, row, generator), path)
