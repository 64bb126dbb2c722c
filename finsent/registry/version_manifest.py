"""The manifest of a published model version: its files, figures, gate and origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from finsent.inference.export_record import Export
from finsent.metrics_record import StoredMetrics
from finsent.modeling.provenance import AdoptedOrigin, DatasetOrigin
from finsent.records import JsonObject, Record
from finsent.registry.gate import Gate

MANIFEST = "manifest.json"
CARD = "README.md"


class VersionFile(Record):
    """A file of a model version."""

    path: str  # relative to the version's directory
    bytes: int
    sha256: str


class VersionManifest(Record):
    """The content of `manifest.json`."""

    schema_version: Literal[1] = 1
    version: str  # digest of the model files
    created: str  # ISO 8601
    labels: tuple[str, ...] | None
    files: tuple[VersionFile, ...]
    metrics: StoredMetrics  # of the test split; without a key: the model was not measured
    gate: Gate | None  # None: the version was compared with no champion when it was published
    license: str | None  # None: not stated
    exports: tuple[Export, ...]  # refused exports are listed too
    backbone: str | None
    origin: AdoptedOrigin | None  # None: finsent trained the model
    dataset: DatasetOrigin | None  # of the provenance
    config: JsonObject | None  # the training recipe
    code: Mapping[str, object]  # commit and package versions

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged manifest."""
        return "Use another version, or delete the version's directory and publish the model again."
