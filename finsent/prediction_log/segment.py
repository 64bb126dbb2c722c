"""A segment: the rows of one hour that one writer stores at once, as one Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.errors import InputError
from finsent.hash_chain import HashChain
from finsent.prediction_log.schema import CHAIN, SCHEMA, LoggedPrediction
from finsent.records import Record

FOLDER = "predictions"  # below the storage root
HOUR_FORMAT = "%Y-%m-%d/%H"  # folders of a segment, in UTC
_METADATA = b"finsent"


class SegmentRecord(Record):
    """The place of a segment in the hash chain of its writer."""

    schema_version: Literal[1] = 1
    writer: str  # id of the process
    number: int  # from 1, over all hours of the writer
    rows: int
    previous: str  # link before the first row
    head: str  # link of the last row


@dataclass(frozen=True)
class Segment:
    """A Parquet file, not yet stored."""

    key: str
    data: bytes
    rows: int
    head: str  # link of the last row


def hour_of(time: datetime) -> str:
    """Return the folder of an hour, relative to the log."""
    return time.astimezone(UTC).strftime(HOUR_FORMAT)


def encode_segment(
    writer: str, number: int, previous: str, predictions: Sequence[LoggedPrediction]
) -> Segment:
    """Return the segment of predictions of one hour.

    Args:
        previous: link before the first row.
    """
    chain = HashChain(previous)
    rows = [{**item.to_row(), CHAIN: chain.append(item.to_json())} for item in predictions]
    record = SegmentRecord(
        writer=writer, number=number, rows=len(rows), previous=previous, head=chain.head
    )
    schema = SCHEMA.with_metadata({_METADATA: record.model_dump_json()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, compression="zstd")
    key = f"{hour_of(predictions[0].time)}/{writer}-{number:08d}.parquet"
    return Segment(key, sink.getvalue().to_pybytes(), len(rows), chain.head)


def decode_segment(data: bytes, source: str) -> tuple[SegmentRecord, pa.Table]:
    """Return the record and the rows of a segment.

    Args:
        source: path or URI, for messages.

    Raises:
        InputError: the file is damaged, or not a segment.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{source}: not valid Parquet ({reason}). The file is damaged.") from None
    metadata = table.schema.metadata or {}
    record = SegmentRecord.decode(metadata.get(_METADATA, b""), source)
    if not table.schema.equals(SCHEMA):
        raise InputError(f"{source}: its columns are not those of the prediction log.")
    return record, table
