"""A page for the person who must decide whether to trust a dataset version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from finsent.data.config import DataConfig
from finsent.data.rows.split import SPLITS
from finsent.data.versions.manifest import wanted_rejects
from finsent.data.versions.pictures import PICTURES
from finsent.labels import LABELS
from finsent.reports.page import render
from finsent.reports.pictures import draw_all

Manifest = dict[str, Any]
Rows = list[dict[str, Any]]

_SAMPLES = 20
_FEW_TEST_ROWS = 50
_DEVIATION = 0.03
_BRIDGES = 0.01


def write_report(version_dir: Path, manifest: Manifest) -> None:
    """Write `report.html` and `pictures/*.png` beside a version's Parquet files.

    Reads no more rows than it shows, so a large version takes no longer than a small one.
    """
    page = render(
        "finsent.data.versions/report.html.j2",
        draw_all(PICTURES, manifest, version_dir / "pictures"),
        manifest=manifest,
        counts=manifest["counts"],
        details=manifest["details"],
        noise=manifest["label_noise"],
        warnings=list(warnings(manifest)),
        samples=_samples(version_dir),
        conflicts=_head(version_dir / "conflicts.parquet"),
        excluded=_head(version_dir / "excluded.parquet"),
        rejected=_head(version_dir / "rejected.parquet"),
        suspects=_head(version_dir / "label_noise.parquet"),
        changed=_changed(manifest["config"]),
        config=yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=True),
    )
    (version_dir / "report.html").write_text(page, encoding="utf-8")


# --- what is shown ------------------------------------------------------------------------------


def _head(path: Path, rows: int = _SAMPLES) -> Rows:
    """The first rows of a Parquet file; none when there is no file."""
    if not path.is_file():
        return []
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(rows), None)
        return batch.to_pylist() if batch is not None else []


def _samples(version_dir: Path) -> dict[str, Rows]:
    """Rows of each label with the smallest keys: keys are hashes, so they are a fair sample."""
    found: dict[str, Rows] = {label: [] for label in LABELS}
    for split in SPLITS:
        missing = dict.fromkeys(LABELS, _SAMPLES)
        for row in _rows(version_dir / split):
            if missing[row["label"]]:
                missing[row["label"]] -= 1
                found[row["label"]].append({**row, "split": split})
            if not any(missing.values()):
                break
    return {
        label: sorted(rows, key=lambda row: str(row["key"]))[:_SAMPLES]
        for label, rows in found.items()
    }


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.parquet"))[:2]:  # a rare label may have less than it could
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(512, columns=["key", "text", "label", "source", "row"]):
                yield from batch.to_pylist()


def _changed(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not the defaults, by dotted key."""
    default = DataConfig().model_dump(mode="json")

    def walk(value: Any, usual: Any, key: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and isinstance(usual, dict):
            for name in value:
                yield from walk(value[name], usual.get(name), f"{key}.{name}" if key else name)
        elif value != usual:
            yield key, value

    return dict(walk(config, default, ""))


# --- warnings -----------------------------------------------------------------------------------


def _label_warnings(splits: dict[str, Any]) -> Iterator[str]:
    for label, rows in splits["test"]["labels"].items():
        if not any(split["labels"][label] for split in splits.values()):
            yield f"No kept row is {label}: a model cannot learn it. Add rows, or mend label_map."
        elif rows < _FEW_TEST_ROWS:
            worth = f"{1 / rows:.3f} of its recall" if rows else "all of its recall"
            yield (
                f"The test split has {rows} {label} rows: one of them is worth {worth}. Add rows, "
                "or do not read much into small differences."
            )
    for name, split in splits.items():
        if split["label_deviation"] > _DEVIATION:
            yield (
                f"The label mix of the {name} split is {100 * split['label_deviation']:.1f} points "
                "off that of all rows. With few rows that is chance; with a split by group or "
                "time, see why."
            )


def warnings(manifest: Manifest) -> Iterator[str]:
    """What should give pause, each with its number and a remedy."""
    counts, details = manifest["counts"], manifest["details"]
    whole = max(counts["rows_in"], 1)
    yield from _label_warnings(manifest["splits"])
    dropped = details["conflict_decisions"].get("dropped", 0)
    if dropped > 0.01 * whole:
        yield (
            f"Texts that stand under several labels and were dropped: {dropped:,}. Name the better "
            "source with priority, or say how they are settled with data.conflicts; "
            "conflicts.parquet lists them."
        )
    priorities = {file["priority"] for file in manifest["inputs"]}
    if manifest["config"]["conflicts"] == "priority" and len(priorities) == 1:
        yield (
            "data.conflicts=priority, but all sources have the same priority, so the majority "
            "decides. Give the better source a higher one."
        )
    if manifest["noise_ceiling"]["kept"] < 1:
        yield (
            f"No deterministic classifier can be right on more than "
            f"{manifest['noise_ceiling']['kept']:.1%} of the kept rows: texts stand under several "
            "labels (data.conflicts=keep)."
        )
    for file in manifest["inputs"]:
        unusable = file["rejected"] - wanted_rejects(file["rejected_reasons"])
        if unusable > 0.005 * max(file["rows"], 1):
            yield (
                f"{file['source']}: {unusable:,} of {file['rows']:,} rows were rejected. "
                "rejected.parquet lists them with their reasons."
            )
        if swallowed := file["rejected_reasons"].get("swallowed_rows"):
            yield (
                f"{file['source']}: stray quotes made {swallowed['rows']:,} texts of several "
                f"records (first: {swallowed['first']}), so more rows are lost than are counted. "
                "Double the quotes that belong to texts."
            )
    bridges = details["excluded_reasons"].get("near_two_splits", 0)
    if bridges > _BRIDGES * whole:
        yield (
            f"{bridges:,} rows ({bridges / whole:.1%}) were taken out because they are near to "
            "texts of two splits. Texts from one template do that: raise "
            "data.near_duplicates.threshold, or split by a column with data.split.group_by."
        )
    if manifest["exclude"] and details["near_groups"] is None:
        yield (
            "Only equal texts were kept out of what must stay unseen: near ones are found with "
            "data.near_duplicates.enabled."
        )
    if details["repaired"]["mojibake"]:
        yield (
            f"{details['repaired']['mojibake']:,} texts held mojibake and were repaired. The file "
            "was once read in the wrong encoding; a better export is the better cure."
        )
    if details.get("damaged"):
        yield (
            f"{details['damaged']:,} texts hold U+FFFD, the mark of a sign that was lost, e.g. of "
            "an emoji cut in two. A better export is the cure; bad_bytes: reject leaves them out."
        )
    if details["near_label_conflicts"]:
        yield (
            f"Groups of near-duplicates that carry several labels: "
            f"{details['near_label_conflicts']:,}. "
            "Figures may rightly decide between them; labels by different hands may not."
        )
    noise = manifest["label_noise"]
    if noise and noise["issues"] and noise["issues"] > 0.1 * noise["rows"]:
        yield (
            f"{noise['issues']:,} of {noise['rows']:,} labels look wrong to a simple model. Read "
            "the first of label_noise.parquet: many are hard, not wrong."
        )
