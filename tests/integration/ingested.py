"""Sources, and dataset versions that ingest makes of them."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from finsent.config import load
from finsent.data.ingest.ingest import ingest
from finsent.data.rows.split import SPLITS
from finsent.data.sources.files import find_sources
from finsent.data.versions.dataset import DatasetVersion
from ray_jobs._settings import JobSettings

LABELS = ("positive", "neutral", "negative")


def write_csv(path: Path, rows: list[tuple[str, str]], encoding: str = "utf-8") -> Path:
    """Write a CSV file with the columns `Sentence` and `Sentiment`."""
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream).writerows([("Sentence", "Sentiment"), *rows])
    return path


# Rows differ in two figures only: other tests cover near-duplicates.
FAR = ("data.near_duplicates.enabled=false", "data.label_noise.enabled=false")


def make(folder: Path, sources: list[Path | str], *overrides: str) -> DatasetVersion:
    """Ingest sources into a folder, and return the dataset version."""
    listed = ", ".join(str(source) for source in sources)
    config = load(JobSettings, [], [f"data.sources=[{listed}]", *FAR, *overrides]).data
    return ingest(config, folder, find_sources(config, folder / "hubs"))


def content(version: DatasetVersion) -> dict[str, list[dict[str, object]]]:
    """Return the rows of each split, sorted by key."""
    return {s: version.read(s).sort_by("key").to_pylist() for s in SPLITS}


def story(number: int, end: str) -> str:
    """Return a text of random words that no other number has."""
    rng = random.Random(number)
    words = ["".join(rng.choices("aeiounrstlm", k=6)) for _ in range(20)]
    return " ".join(words) + end
