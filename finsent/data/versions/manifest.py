"""What a dataset version says of itself: counts that add up, and when they are not good enough."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from finsent.data.config import DataConfig
from finsent.data.ingest.stages import Stats
from finsent.data.rows.clean import DROPPED, LEFT_OUT
from finsent.data.rows.split import SPLITS
from finsent.data.sources.source_file import SourceFile
from finsent.data.versions.dataset import SCHEMA_VERSION
from finsent.errors import InputError
from finsent.labels import LABELS

_HINTS = {
    "unknown_label": f"labels are {', '.join(LABELS)}; others need the source's label_map, and "
    "scores its thresholds, with a decimal point",
    "missing_label": "the label column is empty there",
    "missing_text": "the text column is empty there",
    "text_too_long": "or raise data.max_chars",
    "malformed_row": "a text that contains the delimiter must be quoted; see also the source's "
    "delimiter, quote and escape",
    "refused_label": "an annotator refused these labels in Prodigy; where: {answer: accept} leaves "
    "such rows out, and where: {answer: [accept, reject, ignore]} accepts them",
    "damaged_text": "a sign of the text was lost; bad_bytes: keep accepts such rows",
    "swallowed_rows": "double a quote that belongs to a text",
    "missing_time": "every row needs a time in data.split.time.column",
    "unknown_time": "times are ISO, e.g. 2024-07-01 or 2024-07-01T09:30:00Z",
    "missing_group": "every row needs a value in data.split.group_by",
}
FATES = ("kept", "duplicates", "conflicts", "excluded")

Ints = npt.NDArray[np.int64]
Reasons = dict[str, dict[str, Any]]  # why rows were rejected: how many `rows`, the `first` place


class Tally:
    """Adds up what the tasks of an ingest report. Holds counts only, never a text but examples."""

    def __init__(self, files: list[SourceFile], config: DataConfig) -> None:
        self.files, self.config = files, config
        self.rows = np.zeros(len(files), np.int64)
        self.reasons: list[Reasons] = [{} for _ in files]
        self.repaired = {"mojibake": 0, "entities": 0}
        self.damaged = 0  # texts with a sign that was lost
        self.fates = {fate: np.zeros(len(files), np.int64) for fate in FATES}
        self.decisions: Counter[str] = Counter()
        self.excluded_reasons: Counter[str] = Counter()
        self.best_votes = self.kept_best_votes = 0
        self.conflict: list[Any] = []  # where the first one is
        self.labels = {name: np.zeros((len(files), len(LABELS)), np.int64) for name in SPLITS}
        self.lengths = np.zeros(0, np.int64)
        self.split_files: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
        self._near: dict[int, list[int]] = {}  # root of a group -> rows by label

    def add_scan(self, stats: Stats) -> None:
        """A block of a source."""
        source = stats["source"]
        self.rows[source] += stats["rows"]
        if not self.files[source].excluded:
            for kind in self.repaired:
                self.repaired[kind] += stats[kind]
            self.damaged += stats["damaged"]
        reasons = self.reasons[source]
        for reason, entry in stats["rejected"].items():
            seen = reasons.setdefault(reason, {**entry, "rows": 0})
            seen["rows"] += entry["rows"]
            if entry["row"] < seen["row"]:  # blocks come in any order
                seen.update(row=entry["row"], first=entry["first"])

    def add_settled(self, stats: Stats) -> None:
        """A partition of keys."""
        if stats.get("empty"):
            return
        for fate in FATES:
            self.fates[fate] += np.array(stats["fates"][fate], np.int64)
        self.excluded_reasons["same_as_excluded"] += sum(stats["fates"]["excluded"])
        self.decisions.update(stats["decisions"])
        self.best_votes += stats["best_votes"]
        self.kept_best_votes += stats["kept_best_votes"]
        self.conflict = min(filter(None, (self.conflict, stats["conflict"])), default=[])

    def add_written(self, stats: Stats) -> None:
        """A partition of the splits."""
        if stats.get("empty"):
            return
        for reason, by_source in stats["removed"].items():
            self.excluded_reasons[reason] += sum(by_source)
            self.fates["excluded"] += np.array(by_source, np.int64)
            self.fates["kept"] -= np.array(by_source, np.int64)
        for name in SPLITS:
            self.labels[name] += np.array(stats["labels"][name], np.int64)
        for name, entry in stats["files"].items():
            self.split_files[name].append(entry)
        lengths = np.array(stats["lengths"], np.int64)
        self.lengths = lengths + (self.lengths if len(self.lengths) else 0)
        for root, label, rows in stats["near"]:
            self._near.setdefault(root, [0] * len(LABELS))[label] += rows

    @property
    def counts(self) -> dict[str, int]:
        """Rows of the labeled sources by fate.

        Raises:
            RuntimeError: they do not add up, so rows were lost.
        """
        labeled = [not file.excluded for file in self.files]
        counts = {
            "rows_in": int(self.rows[labeled].sum()),
            "kept": int(self.fates["kept"].sum()),
            "rejected": sum(
                _rejected(found)
                for file, found in zip(self.files, self.reasons, strict=True)
                if not file.excluded
            ),
            **{fate: int(self.fates[fate].sum()) for fate in FATES[1:]},
        }
        written = sum(int(table.sum()) for table in self.labels.values())
        if counts["rows_in"] != sum(counts.values()) - counts["rows_in"] or (
            counts["kept"] != written
        ):
            raise RuntimeError(f"rows were lost: {counts} do not add up, {written} are written")
        return counts

    def manifest(self, version: str, label_noise: dict[str, Any] | None) -> dict[str, Any]:
        """The manifest, complete."""
        counts = self.counts
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.config.name,
            "version": version,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "labels": list(LABELS),
            "inputs": [self._input(i) for i, file in enumerate(self.files) if not file.excluded],
            "exclude": [
                {
                    **_origin(file),
                    "rows": int(self.rows[i]),
                    "rejected": _rejected(self.reasons[i]),
                    "rejected_reasons": _shown(self.reasons[i]),
                }
                for i, file in enumerate(self.files)
                if file.excluded
            ],
            "counts": counts,
            "details": self._details(),
            "noise_ceiling": {
                "rows_in": _share(self.best_votes, sum(self._settled_rows())),
                "kept": _share(self._kept_best(), counts["kept"]),
            },
            "label_noise": label_noise,
            "lengths": _length_figures(self.lengths),
            "splits": self._splits(counts["kept"]),
            "config": self.config.model_dump(mode="json"),
        }

    def _settled_rows(self) -> list[int]:
        removed = self.excluded_reasons["same_as_excluded"]
        return [*(int(self.fates[fate].sum()) for fate in FATES), -removed]

    def _kept_best(self) -> int:
        # Under `keep` a text stands once a label; of the others each kept row is a text of its own.
        if self.config.conflicts != "keep":
            return int(self.fates["kept"].sum())
        return self.kept_best_votes

    def _details(self) -> dict[str, Any]:
        near = self.config.near_duplicates.enabled
        groups = [labels for labels in self._near.values() if sum(labels) > 1]
        return {
            "repaired": self.repaired,
            "damaged": self.damaged,
            "conflict_texts": sum(self.decisions.values()),
            "conflict_decisions": dict(sorted(self.decisions.items())),
            "excluded_reasons": {k: v for k, v in sorted(self.excluded_reasons.items()) if v},
            "near_groups": len(groups) if near else None,
            "near_rows": sum(map(sum, groups)) if near else None,
            "near_label_conflicts": (
                sum(sum(n > 0 for n in labels) > 1 for labels in groups) if near else None
            ),
        }

    def _input(self, index: int) -> dict[str, Any]:
        file, reasons = self.files[index], self.reasons[index]
        return {
            **_origin(file),
            "format": file.format,
            "encoding": file.encoding,
            "priority": file.settings.priority,
            "weight": file.settings.weight,
            "license": file.settings.license,
            "rows": int(self.rows[index]),
            "kept": int(self.fates["kept"][index]),
            "rejected": _rejected(reasons),
            **{fate: int(self.fates[fate][index]) for fate in FATES[1:]},
            "rejected_reasons": _shown(reasons),
        }

    def _splits(self, kept: int) -> dict[str, dict[str, Any]]:
        overall = np.sum([table.sum(0) for table in self.labels.values()], axis=0) / max(kept, 1)
        splits = {}
        for name, table in self.labels.items():
            labels = table.sum(0)
            share = labels / max(int(labels.sum()), 1)
            splits[name] = {
                "rows": int(labels.sum()),
                "labels": dict(zip(LABELS, labels.tolist(), strict=True)),
                "sources": {
                    file.name: dict(zip(LABELS, table[i].tolist(), strict=True))
                    for i, file in enumerate(self.files)
                    if not file.excluded
                },
                "label_deviation": round(float(np.abs(share - overall).max()), 6),
                "files": sorted(self.split_files[name], key=lambda entry: str(entry["path"])),
            }
        return splits

    # --- checks ---------------------------------------------------------------------------------

    def check_scanned(self) -> None:
        """Stop before the rows are settled when a source is of no use.

        Raises:
            InputError: a source has no rows, or too many unusable ones; one that must stay unseen
                has any that cannot be read.
        """
        for file, rows, reasons in zip(self.files, self.rows.tolist(), self.reasons, strict=True):
            if not rows:
                field = "data.exclude" if file.excluded else "data.sources"
                raise InputError(
                    f"{field}: {file.name!r} has a header and no rows; add rows, or leave it out"
                )
            if file.excluded:
                _check_unseen(file.name, rows, reasons, self.config)
            else:
                check_rejected(file.name, rows, reasons, self.config)

    def check_settled(self) -> None:
        """Stop at a conflict when that is the policy.

        Raises:
            InputError: there is one.
        """
        texts = sum(self.decisions.values())
        if self.config.conflicts == "error" and texts:
            raise InputError(
                f"data.conflicts='error': {texts} texts stand under several labels, e.g. "
                f"{self.conflict[-1]}; mend the labels, or set data.conflicts to drop, "
                "majority, priority or {prefer: [labels in order]}"
            )

    def check_written(self) -> None:
        """Stop when a split is empty.

        Raises:
            InputError: one is.
        """
        counts, split = self.counts, self.config.split
        kept, time = counts["kept"], split.time
        for name, table in self.labels.items():
            if table.sum():
                continue
            if time.column:
                raise InputError(
                    f"data.split.time: no row falls into the {name} split; move validation_from="
                    f"{time.validation_from!r} or test_from={time.test_from!r}"
                )
            raise InputError(
                f"data.split.{name}={getattr(self.config.split, name)}: the split is empty; of "
                f"{counts['rows_in']} rows {kept} are kept ({_fates(counts)}); "
                + (
                    f"{split.group_by!r} has too few values, choose another data.split.group_by"
                    if split.group_by
                    else "add rows or raise the share"
                )
            )


def _fates(counts: dict[str, int]) -> str:
    fates = ("rejected", "duplicates", "conflicts", "excluded")
    return ", ".join(f"{fate}: {counts[fate]}" for fate in fates)


def _origin(file: SourceFile) -> dict[str, Any]:
    return {
        "source": file.name,
        "uri": file.origin,
        "bytes": file.bytes,
        "sha256": file.sha256,
    }


def _rejected(reasons: Reasons) -> int:
    return sum(entry["rows"] for entry in reasons.values())


def wanted_rejects(reasons: Reasons) -> int:
    """Return how many rows a source's `where` and `drop_labels` left out."""
    return sum(reasons[reason]["rows"] for reason in (LEFT_OUT, DROPPED) if reason in reasons)


def _unwanted(reasons: Reasons) -> Reasons:
    return {name: entry for name, entry in reasons.items() if name not in (LEFT_OUT, DROPPED)}


def _ranked(reasons: Reasons) -> list[tuple[str, dict[str, Any]]]:
    return sorted(reasons.items(), key=lambda item: -item[1]["rows"])


def _shown(reasons: Reasons) -> Reasons:
    return {r: {"rows": entry["rows"], "first": entry["first"]} for r, entry in _ranked(reasons)}


def _listed(reasons: Reasons) -> str:
    return "; ".join(f"{r}: {e['rows']} (first: {e['first']})" for r, e in _ranked(reasons)[:3])


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 1.0


def _length_figures(histogram: Ints) -> dict[str, Any]:
    total = int(histogram.sum())
    reached = np.cumsum(histogram)
    lengths = np.arange(len(histogram))
    return {
        "unit": "words",
        "p50": int(np.searchsorted(reached, 0.50 * total)) if total else 0,
        "p95": int(np.searchsorted(reached, 0.95 * total)) if total else 0,
        "max": int(lengths[histogram > 0].max(initial=0)),
        "mean": round(float((histogram * lengths).sum() / max(total, 1)), 2),
        "histogram": {str(n): int(c) for n, c in zip(lengths, histogram, strict=True) if c},
    }


def check_rejected(source: str, rows: int, reasons: Reasons, config: DataConfig) -> None:
    """Fail when a source loses too many rows.

    Args:
        rows: all rows of the source.
        reasons: by reason, how many were rejected (`rows`) and the `first` place.

    Raises:
        InputError: the source is above `data.max_rejected_fraction`.
    """
    left_out = wanted_rejects(reasons)
    if rows and left_out == rows:
        raise InputError(
            f"data.sources: {source!r}: where and drop_labels leave out all of its {rows} rows "
            f"({_listed(reasons)}); mend these settings"
        )
    reasons = _unwanted(reasons)
    rejected, rows = _rejected(reasons), rows - left_out
    if rejected > config.max_rejected_fraction * rows:
        hint = _HINTS.get(_ranked(reasons)[0][0], "")
        raise InputError(
            f"data.sources: {source!r}: {rejected} of {rows} rows are unusable, above "
            f"data.max_rejected_fraction={config.max_rejected_fraction}: {_listed(reasons)}; "
            f"mend them{hint and f' ({hint})'} or raise the limit"
        )


def _check_unseen(source: str, rows: int, reasons: Reasons, config: DataConfig) -> None:
    """What cannot be read of a benchmark cannot be kept out. Rows without a text have none."""
    reasons = _unwanted(reasons)
    unread = _rejected(reasons) - reasons.get("missing_text", {"rows": 0})["rows"]
    if unread or _rejected(reasons) > config.max_rejected_fraction * rows:
        raise InputError(
            f"data.exclude: {source!r}: {_rejected(reasons)} of {rows} rows cannot be read, so "
            f"their texts could not be kept out: {_listed(reasons)}; mend the file, or set the "
            "source's text column and format"
        )
