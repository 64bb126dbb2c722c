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
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream).writerows([("Sentence", "Sentiment"), *rows])
    return path


# Rows that differ in two figures: near-duplicates have tests of their own.
FAR = ("data.near_duplicates.enabled=false", "data.label_noise.enabled=false")


def make(folder: Path, sources: list[Path | str], *overrides: str) -> DatasetVersion:
    listed = ", ".join(str(source) for source in sources)
    config = load(JobSettings, [], [f"data.sources=[{listed}]", *FAR, *overrides]).data
    return ingest(config, folder, find_sources(config, folder / "hubs"))


def content(version: DatasetVersion) -> dict[str, list[dict[str, object]]]:
    return {s: version.read(s).sort_by("key").to_pylist() for s in SPLITS}


def story(number: int, end: str) -> str:
    rng = random.Random(number)
    words = ["".join(rng.choices("aeiounrstlm", k=6)) for _ in range(20)]
    return " ".join(words) + end
