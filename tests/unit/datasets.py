"""Content of manifest files for tests of dataset versions."""

from __future__ import annotations

from typing import Any

from finsent.data.config import DataConfig
from finsent.data.rows.split import SPLITS
from finsent.data.versions.manifest import SCHEMA_VERSION
from finsent.labels import LABELS

FATES = ("kept", "rejected", "duplicates", "conflicts", "excluded")


def split_content(rows: int = 0, **changed: Any) -> dict[str, Any]:
    """Return a split's entry, whose rows are neutral."""
    labels = {**dict.fromkeys(LABELS, 0), "neutral": rows}
    content = {
        "rows": rows,
        "labels": labels,
        "sources": {"a.csv": labels},
        "label_deviation": 0.0,
        "files": [],
    }
    return {**content, **changed}


def input_content(source: str = "a.csv", **changed: Any) -> dict[str, Any]:
    """Return the entry of a labeled source without rows."""
    content: dict[str, Any] = {
        "source": source,
        "uri": f"/{source}",
        "bytes": 9,
        "sha256": "f" * 64,
        "format": "csv",
        "encoding": "utf-8",
        "priority": 0,
        "weight": 1.0,
        "license": None,
        "rows": 0,
        **dict.fromkeys(FATES, 0),
        "rejected_reasons": {},
    }
    return {**content, **changed}


def manifest_content(**changed: Any) -> dict[str, Any]:
    """Return a manifest's JSON: a version without rows, but for what is changed."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "name": "news",
        "version": "abc123",
        "created": "2026-01-02T03:04:05+00:00",
        "labels": [*LABELS],
        "inputs": [],
        "exclude": [],
        "counts": {"rows_in": 0, **dict.fromkeys(FATES, 0)},
        "details": {
            "repaired": {"mojibake": 0, "entities": 0},
            "damaged": 0,
            "conflict_texts": 0,
            "conflict_decisions": {},
            "excluded_reasons": {},
            "near_groups": 0,
            "near_rows": 0,
            "near_label_conflicts": 0,
        },
        "noise_ceiling": {"rows_in": 1.0, "kept": 1.0},
        "label_noise": None,
        "lengths": {"unit": "words", "p50": 0, "p95": 0, "max": 0, "mean": 0.0, "histogram": {}},
        "splits": {name: split_content() for name in SPLITS},
        "config": DataConfig().model_dump(mode="json"),
        "files": [],
    }
    return {**content, **changed}
