"""Ingest on a local Ray: label noise, conflicts, differences of versions."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import synthetic
from finsent.config import load
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.manifest import FateCounts, LabelNoise
from finsent.errors import ConfigError, InputError
from ray_jobs import ingest as ingest_job
from ray_jobs._cli import Call
from ray_jobs._settings import JobSettings
from tests.integration.ingested import LABELS, content, make, story, write_csv


def test_synthetic_rows_have_the_fates_that_they_were_made_for(tmp_path: Path) -> None:
    expected = synthetic.expected(20_000, seed=4)
    synthetic.write_rows(tmp_path / "rows", rows=20_000, files=3, seed=4)
    version = make(tmp_path / "out", [tmp_path / "rows"])
    assert version.manifest.counts == FateCounts(
        rows_in=20_000,
        kept=expected.kept,
        rejected=expected.unknown_label + expected.missing_text,
        duplicates=expected.duplicates,
        conflicts=expected.conflicts,
        excluded=0,
    )
    assert version.manifest.details.conflict_texts == expected.conflict_texts


def test_label_noise_and_report_are_part_of_a_version(tmp_path: Path) -> None:
    version = make(tmp_path / "out", ["sample"], "data.label_noise.enabled=true")
    noise = version.manifest.label_noise
    suspects = pq.read_table(version.path / "label_noise.parquet")
    assert isinstance(noise, LabelNoise)
    assert noise.rows == version.manifest.counts.kept
    assert noise.issues == len(suspects) > 0
    page = (version.path / "report.html").read_text()
    assert version.version in page
    assert len([*(version.path / "pictures").glob("*.png")]) == 5
    listed = {file.path for file in version.manifest.files}
    assert {"report.html", "label_noise.parquet", "pictures/fates.png"} <= listed
    (version.path / "label_noise.parquet").write_bytes(b"changed")
    with pytest.raises(InputError, match=r"label_noise\.parquet.*changed"):
        DatasetVersion.open(version.path)


def test_conflicts_resolve_to_the_better_source(tmp_path: Path, shared_data: Path) -> None:
    """Sentences that Kaggle's data set has as negative and neutral are negative in PhraseBank."""
    phrasebank = f"{{uri: {shared_data}/phrasebank/Sentences_50Agree.txt, priority: 1}}"
    kaggle = shared_data / "financial-sentiment.csv"
    version = make(tmp_path / "out", [kaggle, phrasebank], "data.conflicts=priority")
    rows = pq.read_table(version.path / "conflicts.parquet").to_pylist()
    labels: dict[str, set[str]] = {}
    for row in rows:
        if row["source"] == kaggle.name:
            labels.setdefault(row["key"], set()).add(row["label"])
    known = {row["key"] for row in rows if row["source"].startswith("Sentences")}
    both = {
        key for key, row_labels in labels.items() if row_labels == {"negative", "neutral"}
    } & known
    assert len(both) > 300
    kept_labels = {str(r["key"]): r["label"] for rows in content(version).values() for r in rows}
    assert {kept_labels[key] for key in both} == {"negative"}


def test_diff_shows_what_changed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [(story(number, ""), LABELS[number % 3]) for number in range(80)]
    root = tmp_path / "artifacts"
    folder = root / "datasets" / "financial-sentiment"
    a = make(folder, [write_csv(tmp_path / "a.csv", rows)])
    changed = [(rows[0][0], LABELS[1]), *rows[2:], (story(900, ""), "neutral")]
    b = make(folder, [write_csv(tmp_path / "b.csv", changed)], "data.salt=finsent")
    settings = load(JobSettings, [], [f"storage.root={root}"])
    result = ingest_job.compare(Call(settings, tmp_path, ["diff", a.version, str(b.path)]))
    assert {
        kind: getattr(result.rows, kind).rows for kind in ("added", "removed", "relabeled", "moved")
    } == {
        "added": 1,
        "removed": 1,
        "relabeled": 1,
        "moved": 0,
    }
    stderr = capfd.readouterr().err
    assert "relabeled" in stderr
    with pytest.raises(ConfigError, match="diff VERSION_A VERSION_B"):
        ingest_job.run(Call(settings, tmp_path, ["diff", a.version]))
