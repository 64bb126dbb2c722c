"""Labeled rows with sources, and their fates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from finsent.data.config import DataConfig
from finsent.data.ingest.settle import Settled, SourceTraits, settle
from finsent.data.rows.clean import GOOD
from finsent.labels import LABELS

P, N, G = "positive", "neutral", "negative"


class Record(NamedTuple):
    """A labeled row, or one of a source that must stay unseen."""

    source: int
    row: int
    text: str
    label: str | None


class Origin(NamedTuple):
    """What a source says about its rows."""

    excluded: bool = False
    priority: int = 0
    weight: float = 1.0
    agreement: float = float("nan")


SOURCES = [
    Origin(),
    Origin(excluded=True),
    Origin(priority=2, weight=2, agreement=0.75),
    Origin(priority=2, agreement=1.0),
    Origin(priority=-1, weight=3),
]


def key(text: str) -> bytes:
    return hashlib.blake2b(text.lower().encode(), digest_size=16).digest()


def table(records: Sequence[Record], keys: Sequence[bytes] | None = None) -> pa.Table:
    rows = [
        {
            "key": key_,
            "source": record.source,
            "row": record.row,
            "text": record.text,
            "raw_text": f" {record.text}" if record.row % 2 else None,
            "label": None if record.label is None else LABELS.index(record.label),
            "unit": int.from_bytes(key_[:8], "big"),
        }
        for record, key_ in zip(records, keys or [key(r.text) for r in records], strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=GOOD)


def traits(sources: Sequence[Origin]) -> SourceTraits:
    return SourceTraits(
        names=[f"s{n}.csv" for n in range(len(sources))],
        excluded=np.array([s.excluded for s in sources]),
        priority=np.array([s.priority for s in sources], np.int64),
        weight=np.array([s.weight for s in sources], float),
        agreement=np.array([s.agreement for s in sources], float),
    )


def settled(
    records: Sequence[Record], policy: Any = "drop", sources: Sequence[Origin] = SOURCES
) -> Settled:
    return settle(table(records), traits(sources), DataConfig(conflicts=policy))
