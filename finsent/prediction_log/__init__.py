"""The prediction log: one row per served text, as Parquet by hour below a storage root.

`ROOT/predictions/YYYY-MM-DD/HH/WRITER-NUMBER.parquet` is a segment: rows of one hour that one
writer stored at once. `LogWriter` collects rows in memory and stores them.
`read(root, since=..., until=...)` yields Arrow batches. Each row has a link of a hash chain over
the rows of its writer, and `verify(root)` locates changed rows.
"""

from __future__ import annotations

from finsent.prediction_log.reader import read
from finsent.prediction_log.schema import SCHEMA, LoggedPrediction
from finsent.prediction_log.verification import LogProblem, LogVerification, verify
from finsent.prediction_log.writer import LogWriter

__all__ = [
    "SCHEMA",
    "LogProblem",
    "LogVerification",
    "LogWriter",
    "LoggedPrediction",
    "read",
    "verify",
]
