"""The tally of an ingest: counts of all tasks, the checks on them, and the manifest from them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from finsent.data.config import DataConfig
from finsent.data.ingest.rejections import (
    check_excluded_source,
    check_rejected,
    rank_reasons,
    sum_rows,
)
from finsent.data.ingest.task_results import (
    FirstConflict,
    RejectedBlockRows,
    ScanResult,
    SettleResult,
    WriteResult,
)
from finsent.data.rows.split import SPLITS
from finsent.data.sources.source_file import SourceFile
from finsent.data.versions.manifest import (
    ExcludedSource,
    FateCounts,
    IngestDetails,
    InputSource,
    LabelNoise,
    Manifest,
    NoiseCeiling,
    RejectedRows,
    RepairedTexts,
    SkippedLabelNoise,
    Split,
    SplitFile,
    TextLengths,
)
from finsent.errors import InputError
from finsent.labels import LABELS

FATES = ("kept", "duplicates", "conflicts", "excluded")

Ints = npt.NDArray[np.int64]


class Tally:
    """Adds up the results of the tasks of an ingest. Holds counts, ids and examples, no texts."""

    def __init__(self, files: list[SourceFile], config: DataConfig) -> None:
        self.files, self.config = files, config
        self.rows = np.zeros(len(files), np.int64)  # by source
        self.rejected: list[dict[str, RejectedBlockRows]] = [{} for _ in files]
        self.mojibake = self.entities = self.damaged = 0  # texts
        self.fates = {fate: np.zeros(len(files), np.int64) for fate in FATES}
        self.decisions: Counter[str] = Counter()
        self.excluded_reasons: Counter[str] = Counter()
        self.best_votes = self.kept_best_votes = 0
        self.first_conflict: FirstConflict | None = None
        # Rows by source and label.
        self.labels = {name: np.zeros((len(files), len(LABELS)), np.int64) for name in SPLITS}
        self.lengths = np.zeros(0, np.int64)
        self.split_files: dict[str, list[SplitFile]] = {name: [] for name in SPLITS}
        self._near_groups: dict[int, list[int]] = {}  # root of a group -> rows by label

    # --- results of tasks ----------------------------------------------------------------------

    def add_scan(self, result: ScanResult) -> None:
        """Add a block of a source."""
        source = result.source
        self.rows[source] += result.rows
        if not self.files[source].excluded:
            self.mojibake += result.mojibake
            self.entities += result.entities
            self.damaged += result.damaged
        reasons = self.rejected[source]
        for reason, block in result.rejected.items():
            known = reasons.get(reason)
            if known is None:
                reasons[reason] = block
                continue
            oldest = min(known, block, key=lambda entry: entry.row)  # blocks come in any order
            reasons[reason] = RejectedBlockRows(
                rows=known.rows + block.rows, first=oldest.first, row=oldest.row
            )

    def add_settled(self, result: SettleResult) -> None:
        """Add a partition of keys, and its splits if they are written already."""
        for fate in FATES:
            self.fates[fate] += np.array(result.fates[fate], np.int64)
        self.excluded_reasons["same_as_excluded"] += sum(result.fates["excluded"])
        self.decisions.update(result.decisions)
        self.best_votes += result.best_votes
        self.kept_best_votes += result.kept_best_votes
        conflicts = [each for each in (self.first_conflict, result.first_conflict) if each]
        self.first_conflict = min(
            conflicts, key=lambda conflict: (conflict.source, conflict.row), default=None
        )
        if result.written is not None:
            self.add_written(result.written)

    def add_written(self, result: WriteResult) -> None:
        """Add the splits of a partition."""
        for reason, rows_by_source in result.removed.items():
            self.excluded_reasons[reason] += sum(rows_by_source)
            self.fates["excluded"] += np.array(rows_by_source, np.int64)
            self.fates["kept"] -= np.array(rows_by_source, np.int64)
        for split in SPLITS:
            self.labels[split] += np.array(result.labels[split], np.int64)
        for split, file in result.files.items():
            self.split_files[split].append(file)
        lengths = np.array(result.lengths, np.int64)
        self.lengths = lengths + (self.lengths if len(self.lengths) else 0)
        for root, label, rows in result.near:
            self._near_groups.setdefault(root, [0] * len(LABELS))[label] += rows

    # --- manifest -------------------------------------------------------------------------------

    @property
    def counts(self) -> FateCounts:
        """Rows of the labeled sources by fate.

        Raises:
            RuntimeError: the counts do not add up, so rows were lost.
        """
        labeled = [not file.excluded for file in self.files]
        counts = FateCounts(
            rows_in=int(self.rows[labeled].sum()),
            rejected=sum(
                sum_rows(reasons)
                for file, reasons in zip(self.files, self.rejected, strict=True)
                if not file.excluded
            ),
            **{fate: int(self.fates[fate].sum()) for fate in FATES},
        )
        written = sum(int(table.sum()) for table in self.labels.values())
        if not counts.adds_up or counts.kept != written:
            raise RuntimeError(f"rows were lost: {counts} do not add up, {written} are written")
        return counts

    def manifest(
        self, version: str, label_noise: LabelNoise | SkippedLabelNoise | None
    ) -> Manifest:
        """Return the manifest, without the files that are not of a split."""
        counts = self.counts
        return Manifest(
            name=self.config.name,
            version=version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            labels=list(LABELS),
            inputs=[self._input(i) for i, file in enumerate(self.files) if not file.excluded],
            exclude=[self._excluded(i) for i, file in enumerate(self.files) if file.excluded],
            counts=counts,
            details=self._details(),
            noise_ceiling=NoiseCeiling(
                rows_in=_fraction(self.best_votes, self._rows_with_votes()),
                kept=_fraction(self._kept_best_votes(), counts.kept),
            ),
            label_noise=label_noise,
            lengths=_summarize_lengths(self.lengths),
            splits=self._splits(counts.kept),
            config=self.config.model_dump(mode="json"),
        )

    def _rows_with_votes(self) -> int:
        settled = sum(int(self.fates[fate].sum()) for fate in FATES)
        return settled - self.excluded_reasons["same_as_excluded"]

    def _kept_best_votes(self) -> int:
        # Under `keep` a text has one row per label. Else each kept row is a text of its own.
        if self.config.conflicts != "keep":
            return int(self.fates["kept"].sum())
        return self.kept_best_votes

    def _details(self) -> IngestDetails:
        near = self.config.near_duplicates.enabled
        groups = [labels for labels in self._near_groups.values() if sum(labels) > 1]
        conflicts = sum(sum(rows > 0 for rows in labels) > 1 for labels in groups)
        return IngestDetails(
            repaired=RepairedTexts(mojibake=self.mojibake, entities=self.entities),
            damaged=self.damaged,
            conflict_texts=sum(self.decisions.values()),
            conflict_decisions=dict(sorted(self.decisions.items())),
            excluded_reasons={k: v for k, v in sorted(self.excluded_reasons.items()) if v},
            near_groups=len(groups) if near else None,
            near_rows=sum(map(sum, groups)) if near else None,
            near_label_conflicts=conflicts if near else None,
        )

    def _input(self, index: int) -> InputSource:
        file, reasons = self.files[index], self.rejected[index]
        return InputSource(
            source=file.name,
            uri=file.origin,
            bytes=file.bytes,
            sha256=file.sha256,
            format=file.format,
            encoding=file.encoding,
            priority=file.settings.priority,
            weight=file.settings.weight,
            license=file.settings.license,
            rows=int(self.rows[index]),
            rejected=sum_rows(reasons),
            **{fate: int(self.fates[fate][index]) for fate in FATES},
            rejected_reasons=_without_positions(reasons),
        )

    def _excluded(self, index: int) -> ExcludedSource:
        file, reasons = self.files[index], self.rejected[index]
        return ExcludedSource(
            source=file.name,
            uri=file.origin,
            bytes=file.bytes,
            sha256=file.sha256,
            rows=int(self.rows[index]),
            rejected=sum_rows(reasons),
            rejected_reasons=_without_positions(reasons),
        )

    def _splits(self, kept_rows: int) -> dict[str, Split]:
        overall = np.sum([table.sum(0) for table in self.labels.values()], axis=0) / max(
            kept_rows, 1
        )
        splits = {}
        for name, table in self.labels.items():
            rows_by_label = table.sum(0)
            shares = rows_by_label / max(int(rows_by_label.sum()), 1)
            splits[name] = Split(
                rows=int(rows_by_label.sum()),
                labels=dict(zip(LABELS, rows_by_label.tolist(), strict=True)),
                sources={
                    file.name: dict(zip(LABELS, table[index].tolist(), strict=True))
                    for index, file in enumerate(self.files)
                    if not file.excluded
                },
                label_deviation=round(float(np.abs(shares - overall).max()), 6),
                files=sorted(self.split_files[name], key=lambda file: file.path),
            )
        return splits

    # --- checks ---------------------------------------------------------------------------------

    def check_scanned(self) -> None:
        """Refuse unusable sources before the rows are settled.

        Raises:
            InputError: a source has no rows, or too many unusable ones, or a source that must stay
                unseen has unreadable ones.
        """
        for file, rows, reasons in zip(self.files, self.rows.tolist(), self.rejected, strict=True):
            if not rows:
                field = "data.exclude" if file.excluded else "data.sources"
                raise InputError(
                    f"{field}: {file.name!r} has a header but no rows. Add rows, or "
                    "remove the file."
                )
            check = check_excluded_source if file.excluded else check_rejected
            check(file.name, rows, reasons, self.config)

    def check_settled(self) -> None:
        """Refuse texts with several labels if `data.conflicts` is `error`.

        Raises:
            InputError: there is such a text.
        """
        texts = sum(self.decisions.values())
        if self.config.conflicts == "error" and texts and self.first_conflict:
            raise InputError(
                f"data.conflicts='error': {texts} texts have several labels, e.g. "
                f"{self.first_conflict.description}. Correct the labels, or set data.conflicts to "
                "drop, majority, priority or {prefer: [labels in order]}."
            )

    def check_written(self) -> None:
        """Refuse a version with an empty split.

        Raises:
            InputError: a split has no rows.
        """
        counts, split = self.counts, self.config.split
        for name, table in self.labels.items():
            if table.sum():
                continue
            if split.time.column:
                raise InputError(
                    f"data.split.time: no row is in the {name} split. Change validation_from="
                    f"{split.time.validation_from!r} or test_from={split.time.test_from!r}."
                )
            remedy = (
                f"{split.group_by!r} has too few values: choose another data.split.group_by."
                if split.group_by
                else "Add rows, or raise the fraction."
            )
            raise InputError(
                f"data.split.{name}={getattr(split, name)}: the split is empty. Of "
                f"{counts.rows_in} rows {counts.kept} are kept (rejected: {counts.rejected}, "
                f"duplicates: {counts.duplicates}, conflicts: {counts.conflicts}, "
                f"excluded: {counts.excluded}). {remedy}"
            )


def _without_positions(reasons: dict[str, RejectedBlockRows]) -> dict[str, RejectedRows]:
    return {
        reason: RejectedRows(rows=entry.rows, first=entry.first)
        for reason, entry in rank_reasons(reasons)
    }


def _fraction(count: int, total: int) -> float:
    return round(count / total, 6) if total else 1.0


def _summarize_lengths(histogram: Ints) -> TextLengths:
    total = int(histogram.sum())
    cumulative = np.cumsum(histogram)
    lengths = np.arange(len(histogram))
    return TextLengths(
        unit="words",
        p50=int(np.searchsorted(cumulative, 0.50 * total)) if total else 0,
        p95=int(np.searchsorted(cumulative, 0.95 * total)) if total else 0,
        max=int(lengths[histogram > 0].max(initial=0)),
        mean=round(float((histogram * lengths).sum() / max(total, 1)), 2),
        histogram={str(n): int(c) for n, c in zip(lengths, histogram, strict=True) if c},
    )
