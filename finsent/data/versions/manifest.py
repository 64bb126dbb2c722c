"""The manifest of a dataset version: origin, counts and digests, as `manifest.json` stores them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from finsent.data.rows.clean import DROPPED, LEFT_OUT
from finsent.data.rows.split import SPLITS
from finsent.records import FileDigest, JsonObject, Record

MANIFEST = "manifest.json"
SCHEMA_VERSION = 2

# Counts are by the position of a label in `LABELS` inside ingest, and by its name from here on.
RowsByLabel = dict[str, int]


class RejectedRows(Record):
    """The rows of one source that were rejected for one reason."""

    rows: int
    first: str  # position and detail of the first such row, for people


class SourceOrigin(Record):
    """Origin of a source's bytes."""

    source: str  # name, as in the column `source`
    uri: str
    bytes: int
    sha256: str


class InputSource(SourceOrigin):
    """A labeled source, and its rows by fate."""

    format: str
    encoding: str
    priority: int
    weight: float
    license: str | None = None  # versions made before licenses were recorded lack the key
    rows: int
    kept: int
    rejected: int
    duplicates: int
    conflicts: int
    excluded: int
    rejected_reasons: dict[str, RejectedRows]

    @property
    def unusable_rows(self) -> int:
        """Rejected rows, without those that the settings `where` and `drop_labels` leave out."""
        return self.rejected - left_out_rows(self.rejected_reasons)


class ExcludedSource(SourceOrigin):
    """A source whose texts must stay unseen, e.g. a benchmark."""

    rows: int
    rejected: int
    rejected_reasons: dict[str, RejectedRows]


class FateCounts(Record):
    """Rows of the labeled sources by fate: `rows_in` is the sum of the other fields."""

    rows_in: int
    kept: int
    rejected: int
    duplicates: int
    conflicts: int
    excluded: int

    @property
    def adds_up(self) -> bool:
        """Whether every row has exactly one fate."""
        fates = (self.kept, self.rejected, self.duplicates, self.conflicts, self.excluded)
        return self.rows_in == sum(fates)


class RepairedTexts(Record):
    """Texts that were repaired, by the kind of damage."""

    mojibake: int
    entities: int


class IngestDetails(Record):
    """Counts that explain the fates. `near_*` are null where near-duplicates are disabled."""

    repaired: RepairedTexts
    damaged: int = 0  # texts with U+FFFD; versions made before these were counted lack the key
    conflict_texts: int
    conflict_decisions: dict[str, int]
    excluded_reasons: dict[str, int]
    near_groups: int | None
    near_rows: int | None
    near_label_conflicts: int | None


class NoiseCeiling(Record):
    """Best accuracy that a deterministic classifier can reach, on all rows and on kept rows."""

    rows_in: float
    kept: float


class LabelNoise(Record):
    """Likely wrong labels, as found by out-of-fold predictions."""

    rows: int
    method: str
    issues: int
    out_of_fold_accuracy: float
    out_of_fold_macro_f1: float


class SkippedLabelNoise(Record):
    """The reason why the rows cannot be searched for wrong labels."""

    rows: int
    method: str
    issues: None = None
    reason: str


class TextLengths(Record):
    """Lengths of the kept texts in `unit`."""

    unit: Literal["words"]
    p50: int
    p95: int
    max: int
    mean: float
    histogram: dict[str, int]  # rows by length


class SplitFile(FileDigest):
    """A Parquet file of a split."""

    rows: int


class Split(Record):
    """The rows of one split."""

    rows: int
    labels: RowsByLabel
    sources: dict[str, RowsByLabel]
    label_deviation: float  # largest distance of a label's share from its share in all splits
    files: list[SplitFile]


class Manifest(Record):
    """Everything that a dataset version states about itself."""

    schema_version: Literal[2] = 2
    name: str
    version: str
    created: str  # ISO time
    labels: list[str]
    inputs: list[InputSource]
    exclude: list[ExcludedSource]
    counts: FateCounts
    details: IngestDetails
    noise_ceiling: NoiseCeiling
    label_noise: LabelNoise | SkippedLabelNoise | None
    lengths: TextLengths
    splits: dict[str, Split]
    config: JsonObject  # the resolved `data` section; an older version may have other keys
    files: list[FileDigest] = Field(default_factory=list)  # all files other than those of splits

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a file that is not such a record."""
        return f"Not a finsent dataset of schema {SCHEMA_VERSION}: ingest again."

    @model_validator(mode="after")
    def _has_all_splits(self) -> Self:
        missing = [name for name in SPLITS if name not in self.splits]
        if missing:
            raise ValueError(f"splits lack {', '.join(missing)}")
        return self

    @property
    def split_files(self) -> list[SplitFile]:
        """The Parquet files of all splits."""
        return [file for split in self.splits.values() for file in split.files]

    @property
    def digests(self) -> list[FileDigest]:
        """Every file of the version with its digest, except the manifest."""
        return [*self.split_files, *self.files]

    def with_files(self, files: list[FileDigest]) -> Manifest:
        """Return the manifest with the files that are not of a split."""
        return Manifest.model_validate({**dict(self), "files": files})


def left_out_rows(reasons: Mapping[str, RejectedRows]) -> int:
    """Return how many rows the source's `where` and `drop_labels` left out."""
    return sum(reasons[reason].rows for reason in (LEFT_OUT, DROPPED) if reason in reasons)
