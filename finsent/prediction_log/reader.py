"""Read the prediction log by time range, one segment at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from finsent.errors import InputError
from finsent.prediction_log.segment import FOLDER, HOUR_FORMAT, decode_segment
from finsent.storage import Location


def read(
    root: Location, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a time range, hour by hour.

    Rows of one hour are in the order of their writers and segments, not of their times. Memory
    holds one segment.

    Args:
        root: storage root.
        since: first time of the range; None: the begin of the log.
        until: end of the range, exclusive; None: the end of the log.

    Raises:
        InputError: a time has no time zone, or a segment is damaged.
    """
    for name, time in (("since", since), ("until", until)):
        if time is not None and time.tzinfo is None:
            raise InputError(f"{name}={time}: the time has no zone. Use a time in UTC.")
    return _read(root, since, until)


def _read(
    root: Location, since: datetime | None, until: datetime | None
) -> Iterator[pa.RecordBatch]:
    store = (root / FOLDER).store
    for hour in _hours(root, since, until):
        for info in store.list_objects(hour):
            stored = store.read(info.key)
            if stored is None:  # deleted meanwhile
                continue
            _, table = decode_segment(stored.data, store.locate(info.key))
            if since is not None:
                table = table.filter(pc.field("time") >= _scalar(since))
            if until is not None:
                table = table.filter(pc.field("time") < _scalar(until))
            yield from table.to_batches()


def _hours(root: Location, since: datetime | None, until: datetime | None) -> Iterator[str]:
    """Yield the folders of the hours that overlap a time range, oldest first."""
    store = (root / FOLDER).store
    first = None if since is None else since - timedelta(hours=1)
    for day in store.list_folders(""):
        begin = _begin(f"{day}/00")
        is_late = until is not None and begin >= until
        is_early = since is not None and begin <= since - timedelta(days=1)
        if is_late or is_early:
            continue
        for name in store.list_folders(day):
            hour = _begin(f"{day}/{name}")
            if (first is None or hour > first) and (until is None or hour < until):
                yield f"{day}/{name}"


def _begin(hour: str) -> datetime:
    try:
        return datetime.strptime(hour, HOUR_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise InputError(
            f"{FOLDER}/{hour}: not a folder of the prediction log. Move it elsewhere."
        ) from None


def _scalar(time: datetime) -> pa.Scalar:
    return pa.scalar(time.astimezone(UTC), pa.timestamp("us", "UTC"))
