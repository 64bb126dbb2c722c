"""The prediction log: rows are stored once, read by time, and bounded in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.prediction_log import SCHEMA, LoggedPrediction, LogWriter, read, verify
from finsent.prediction_log.schema import CHAIN
from finsent.storage import Location
from tests.disks import file_limit
from tests.unit.prediction_log.logged import NOON, logged

KILLED_WRITER = """
import sys
from finsent.prediction_log import LogWriter
from finsent.storage import Location
from tests.unit.prediction_log.logged import logged
writer = LogWriter(Location.at(sys.argv[1]), max_rows=1000)
for number in range(100_000):
    writer.add([logged(number)])
    writer.flush()
    print(number, flush=True)
"""


def rows_of(root: Location, **times: datetime) -> list[LoggedPrediction]:
    batches = list(read(root, **times))
    return [LoggedPrediction.from_row(row) for batch in batches for row in batch.to_pylist()]


def segments(root: Location) -> list[Path]:
    return sorted(root.path.rglob("*.parquet"))


def test_the_record_and_the_columns_have_the_same_names() -> None:
    assert [field.name for field in fields(LoggedPrediction)] + [CHAIN] == SCHEMA.names


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    root, written = Location.at(tmp_path), [logged(number) for number in range(5)]
    writer = LogWriter(root, max_rows=10)
    assert list(read(root)) == []
    assert writer.add(written) == writer.flush() == 5
    assert rows_of(root) == written
    assert [batch.schema.equals(SCHEMA) for batch in read(root)] == [True]
    assert writer.flush() == 0
    [segment] = segments(root)
    assert segment.parent == tmp_path / "predictions" / "2026-03-01" / "12"


@pytest.mark.cost(1, "reads 30 segments several times")
def test_a_time_range_has_its_rows_only(tmp_path: Path) -> None:
    root = Location.at(tmp_path)
    written = [logged(number, minutes=30 * number) for number in range(60)]  # 30 hours
    writer = LogWriter(root, max_rows=100)
    writer.add(written)
    writer.flush()
    assert len(segments(root)) == 30
    for begin, end in ((0, 60), (1, 2), (23, 26), (47, 60), (10, 10)):
        since = NOON + timedelta(minutes=30 * begin)
        until = NOON + timedelta(minutes=30 * end)
        assert rows_of(root, since=since, until=until) == written[begin:end]
        assert rows_of(root, since=since) == written[begin:]
        assert rows_of(root, until=until) == written[:end]
    with pytest.raises(InputError, match=r"since=2026-03-01 .*no zone"):
        read(root, since=datetime(2026, 3, 1))


def test_rows_without_room_are_dropped_and_counted(tmp_path: Path) -> None:
    root = Location.at(tmp_path)
    writer = LogWriter(root, max_rows=3)
    assert writer.add([logged(number) for number in range(5)]) == 3
    assert (writer.waiting, writer.dropped) == (3, 2)
    assert writer.flush() == 3
    assert writer.add([logged(7)]) == writer.flush() == 1
    assert [row.id for row in rows_of(root)] == ["text-0", "text-1", "text-2", "text-7"]


def test_a_failed_flush_is_repeated_without_double_rows(tmp_path: Path) -> None:
    root = Location.at(tmp_path)
    writer = LogWriter(root, max_rows=4)
    writer.add([logged(0), logged(1)])
    with file_limit(100), pytest.raises(DiskError, match="too large"):
        writer.flush()
    assert (segments(root), writer.waiting) == ([], 2)
    assert writer.add([logged(2), logged(3), logged(4)]) == 2
    assert writer.flush() == 4
    assert [row.id for row in rows_of(root)] == [f"text-{number}" for number in range(4)]
    assert verify(root).problems == ()


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    root = Location.at(tmp_path)
    writer = LogWriter(root, max_rows=4)
    writer.add([logged(0)])
    writer.flush()
    [segment] = segments(root)
    segment.write_bytes(segment.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"{segment.name}: not valid Parquet"):
        list(read(root))


@pytest.mark.cost(4, "starts processes that import the log")
@pytest.mark.parametrize("delay", [0.0, 0.013])
def test_a_killed_writer_leaves_complete_segments(tmp_path: Path, delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    flushed = 20 + len(process.stdout.read().split("\n")) - 1
    process.wait()
    root = Location.at(tmp_path)
    assert verify(root).problems == ()
    ids = [row.id for row in rows_of(root)]
    assert ids == [f"text-{number}" for number in range(len(ids))]
    assert len(ids) in (flushed, flushed + 1)


def test_batches_of_the_log_form_a_table(tmp_path: Path) -> None:
    root = Location.at(tmp_path)
    for _ in range(2):  # two processes
        writer = LogWriter(root, max_rows=4)
        writer.add([logged(0)])
        writer.flush()
    assert pa.Table.from_batches(read(root)).num_rows == 2
