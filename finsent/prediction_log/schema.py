"""The schema of the prediction log: one row per served text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from finsent.records import JsonObject

CHAIN = "chain"  # column of the links of the hash chain

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("request_id", pa.string(), nullable=False),
        ("key", pa.string()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("text_hmac", pa.string()),
        pa.field("characters", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("abstained", pa.bool_(), nullable=False),
        pa.field("probabilities", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        ("calibration", pa.string()),
        ("backend", pa.string()),
        pa.field("encoded_seconds", pa.float64(), nullable=False),
        pa.field("queued_seconds", pa.float64(), nullable=False),
        pa.field("computed_seconds", pa.float64(), nullable=False),
        pa.field(CHAIN, pa.string(), nullable=False),
    ]
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LoggedPrediction:
    """A served text and its answer."""

    id: str  # of this text; unique in the log
    time: datetime  # at which the answer was complete, in UTC
    request_id: str  # of the request, which can have several texts
    key: str | None  # name of the API key; None: the service requires no key
    source: str | None  # tag that the client set
    text: str | None  # None: the log has no texts
    text_hmac: str | None  # keyed hash of the text; None: not configured
    characters: int
    tokens: int  # that the model read, special ones included
    truncated: bool
    label: str
    confidence: float  # calibrated probability of `label`
    abstained: bool
    probabilities: dict[str, float]  # by label
    model_version: str
    calibration: str | None  # name of the request's; None: the model's own
    backend: str | None
    encoded_seconds: float  # of the request
    queued_seconds: float  # of the request
    computed_seconds: float  # of the request

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> LoggedPrediction:
        """Return the prediction of a row that `pyarrow` read."""
        values = {name: value for name, value in row.items() if name != CHAIN}
        return cls(**{**values, "probabilities": dict(values["probabilities"])})

    def to_row(self) -> dict[str, Any]:
        """Return the columns of the prediction, without its link."""
        return {**asdict(self), "probabilities": list(self.probabilities.items())}

    def to_json(self) -> JsonObject:
        """Return the JSON object whose digest enters the hash chain."""
        return {**asdict(self), "time": (self.time - _EPOCH) // timedelta(microseconds=1)}
