"""Results of the tasks of ingest: read back as written, and refused from another version."""

from __future__ import annotations

import json

import pytest

from finsent.data.ingest.task_results import (
    FirstConflict,
    RejectedBlockRows,
    ScanResult,
    SettleResult,
    WriteResult,
)
from finsent.data.versions.manifest import SplitFile
from finsent.errors import InputError

SCANNED = ScanResult(
    source=0,
    rows=5,
    bytes=90,
    rejected={"missing_text": RejectedBlockRows(rows=2, first="record 3", row=3)},
    mojibake=1,
    entities=0,
    damaged=0,
)
WRITTEN = WriteResult(
    removed={"near_two_splits": [1, 0]},
    files={"train": SplitFile(path="train/part-00000.parquet", rows=3, sha256="f" * 64)},
    labels={"train": [[1, 1, 1], [0, 0, 0]]},
    lengths=[0, 3],
    near=[(2**64 - 1, 2, 7)],  # keys need all 64 bits
)
SETTLED = SettleResult(
    fates={"kept": [3, 0]},
    decisions={"dropped": 1},
    best_votes=4,
    kept_best_votes=3,
    first_conflict=FirstConflict(source="a.csv", row=7, description="a.csv record 7 (neutral)"),
    written=WRITTEN,
)


@pytest.mark.parametrize(
    "result", [SCANNED, WRITTEN, SETTLED], ids=lambda each: type(each).__name__
)
def test_a_result_is_read_back_as_written(result: ScanResult | WriteResult | SettleResult) -> None:
    assert type(result).parse(result.model_dump_json()) == result


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"speed": 3}, "speed"),
        ({"rows": "many"}, "rows"),
    ],
)
def test_a_result_of_another_version_names_the_nodes(
    changed: dict[str, object], problem: str
) -> None:
    text = json.dumps(SCANNED.model_dump() | changed)
    with pytest.raises(
        InputError, match=rf"ScanResult\.{problem}: .*the same version on all nodes"
    ):
        ScanResult.parse(text)
