"""Warnings about a dataset version, from its manifest."""

from __future__ import annotations

from collections.abc import Iterator

from finsent.data.versions.manifest import LabelNoise, Manifest, Split

_MIN_TEST_ROWS = 50  # of each label
_MAX_LABEL_DEVIATION = 0.03
# Fractions of the rows of the version, of a source, or of the rows with inspected labels.
_MAX_DROPPED = 0.01
_MAX_NEAR_TWO_SPLITS = 0.01
_MAX_UNUSABLE = 0.005
_MAX_LABEL_ISSUES = 0.1


def version_warnings(manifest: Manifest) -> Iterator[str]:
    """Yield warnings for users of the version, each with its figure and a remedy."""
    yield from _label_warnings(manifest.splits)
    yield from _conflict_warnings(manifest)
    yield from _source_warnings(manifest)
    yield from _near_duplicate_warnings(manifest)
    yield from _repair_warnings(manifest)
    yield from _wrong_label_warnings(manifest)


def _label_warnings(splits: dict[str, Split]) -> Iterator[str]:
    for label, rows in splits["test"].labels.items():
        if not any(split.labels[label] for split in splits.values()):
            yield f"No kept row is {label}: models cannot learn it. Add rows, or correct label_map."
        elif rows < _MIN_TEST_ROWS:
            worth = f"{1 / rows:.3f} of its recall" if rows else "all of its recall"
            yield (
                f"The test split has {rows} {label} rows: each row is worth {worth}. Add rows, "
                "or do not rely on small differences."
            )
    for name, split in splits.items():
        if split.label_deviation > _MAX_LABEL_DEVIATION:
            yield (
                f"The label mix of the {name} split is {100 * split.label_deviation:.1f} points "
                "off that of all rows. With few rows that is chance. With a split by group or "
                "time, find the cause."
            )


def _conflict_warnings(manifest: Manifest) -> Iterator[str]:
    dropped = manifest.details.conflict_decisions.get("dropped", 0)
    if dropped > _MAX_DROPPED * max(manifest.counts.rows_in, 1):
        yield (
            f"Texts under several labels that were dropped: {dropped:,}. Name the better "
            "source with priority, or resolve them with data.conflicts. conflicts.parquet lists "
            "them."
        )
    priorities = {source.priority for source in manifest.inputs}
    if manifest.config["conflicts"] == "priority" and len(priorities) == 1:
        yield (
            "data.conflicts=priority, but all sources have the same priority, so the majority "
            "decides. Give the better source a higher priority."
        )
    ceiling = manifest.noise_ceiling.kept
    if ceiling < 1:
        yield (
            f"No deterministic classifier can be right on more than {ceiling:.1%} of the kept "
            "rows: they have texts under several labels (data.conflicts=keep)."
        )


def _source_warnings(manifest: Manifest) -> Iterator[str]:
    for source in manifest.inputs:
        if source.unusable_rows > _MAX_UNUSABLE * max(source.rows, 1):
            yield (
                f"{source.source}: {source.unusable_rows:,} of {source.rows:,} rows were "
                "rejected. rejected.parquet lists them with their reasons."
            )
        if swallowed := source.rejected_reasons.get("swallowed_rows"):
            yield (
                f"{source.source}: stray quotes merged several records into one, in "
                f"{swallowed.rows:,} texts (first: {swallowed.first}), so more rows are lost than "
                "are counted. Double the quotes that belong to texts."
            )


def _near_duplicate_warnings(manifest: Manifest) -> Iterator[str]:
    details, rows_in = manifest.details, max(manifest.counts.rows_in, 1)
    removed = details.excluded_reasons.get("near_two_splits", 0)
    if removed > _MAX_NEAR_TWO_SPLITS * rows_in:
        yield (
            f"{removed:,} rows ({removed / rows_in:.1%}) were removed because they are near to "
            "texts of two splits. Texts from one template cause this: raise "
            "data.near_duplicates.threshold, or split by a column with data.split.group_by."
        )
    if manifest.exclude and details.near_groups is None:
        yield (
            "Only equal texts of data.exclude were removed. Set data.near_duplicates.enabled to "
            "remove near ones, too."
        )
    if details.near_label_conflicts:
        yield (
            f"Groups of near-duplicates with several labels: {details.near_label_conflicts:,}. "
            "Different figures in the texts can justify that, different annotators cannot."
        )


def _repair_warnings(manifest: Manifest) -> Iterator[str]:
    details = manifest.details
    if details.repaired.mojibake:
        yield (
            f"{details.repaired.mojibake:,} texts had mojibake and were repaired. The file "
            "was once read in the wrong encoding. Export it again if you can."
        )
    if details.damaged:
        yield (
            f"{details.damaged:,} texts have U+FFFD, which replaces a lost character, e.g. half "
            "an emoji. Export the file again, or set bad_bytes: reject to leave them out."
        )


def _wrong_label_warnings(manifest: Manifest) -> Iterator[str]:
    noise = manifest.label_noise
    if isinstance(noise, LabelNoise) and noise.issues > _MAX_LABEL_ISSUES * noise.rows:
        yield (
            f"{noise.issues:,} of {noise.rows:,} labels look wrong to a simple model. Read "
            "the first rows of label_noise.parquet: many are hard, not wrong."
        )
