"""Bad input and bad settings: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Done

ROWS = [("Unit 1 opened in Oslo", "neutral"), ("Profit at unit 2 doubled", "positive")]


def text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(path: Path, header: tuple[str, str], rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def empty(folder: Path) -> Path:
    return text(folder / "empty.csv", "")


def missing_column(folder: Path) -> Path:
    return table(folder / "columns.csv", ("Headline", "Sentiment"), [*ROWS])


def unknown_label(folder: Path) -> Path:
    return table(
        folder / "label.csv", ("Sentence", "Sentiment"), [*ROWS, ("Up it goes", "bullish")]
    )


def binary(folder: Path) -> Path:
    return text(folder / "binary.csv", bytes(range(256)) * 40)


def huge_line(folder: Path) -> Path:
    rows = [*ROWS, ("profit " * 150_000, "positive")]
    return table(folder / "huge.csv", ("Sentence", "Sentiment"), rows)


def no_files(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def absent(folder: Path) -> Path:
    return folder / "absent.csv"


SOURCES: list[tuple[Callable[[Path], Path], list[str]]] = [
    (empty, ["data.sources", "empty.csv", "is empty"]),
    (missing_column, ["data.text_column='Sentence'", "columns.csv", "'Headline'"]),
    (
        unknown_label,
        [
            "label.csv",
            "unknown_label: 1",
            "'bullish'",
            "negative, neutral, positive",
            "rejected.parquet",
        ],
    ),
    (binary, ["binary.csv", "NUL bytes", "it is binary", "give a text file"]),
    (huge_line, ["huge.csv", "text_too_long: 1", "data.max_rejected_fraction"]),
    (no_files, ["nothing", "without files of a known format"]),
    (absent, ["absent.csv", "no such file"]),
]


def check_refused(done: Done, words: list[str]) -> None:
    assert done.code == 2, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.err.splitlines()[-1] == errors[0]
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize(("make", "words"), SOURCES, ids=[make.__name__ for make, _ in SOURCES])
def test_unusable_sources(
    job: Callable[..., Done], project: Path, make: Callable[[Path], Path], words: list[str]
) -> None:
    source = make(project)
    done = job("pipeline", "configs/debug.yaml", f"data.sources=['{source}']", cwd=project)
    check_refused(done, words)
    datasets = project / "artifacts" / "datasets" / "sample"
    assert not datasets.exists() or not [*datasets.iterdir()]
    assert not (project / "artifacts" / "registry" / "versions").exists() or not [
        *(project / "artifacts" / "registry" / "versions").iterdir()
    ]


def test_a_wrong_declared_encoding(job: Callable[..., Done], project: Path) -> None:
    text(project / "latin.csv", "Sentence,Sentiment\nCafé closes,negative\n".encode("cp1252"))
    done = job("ingest", "data.sources=[latin.csv]", "data.encoding=utf-8", cwd=project)
    check_refused(done, ["data.encoding='utf-8'", "latin.csv", "cp1252", "auto"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.epohcs=2"], ["train.epohcs", "did you mean 'train.epochs'?"]),
        (["model.backbone=no-such/model"], ["model.backbone='no-such/model'", "demo"]),
        (["registry.root=/proc/registry"], ["registry.root='/proc/registry", "cannot write"]),
        (["storage.root=/proc/artifacts"], ["storage.root='/proc/artifacts", "cannot write"]),
        (["train.num_workers=50", "train.batch_size=50"], ["train.num_workers=50", "51 CPUs"]),
    ],
    ids=["unknown key", "unreachable hub", "read-only registry", "read-only storage", "too large"],
)
def test_unusable_settings(
    job: Callable[..., Done], project: Path, arguments: list[str], words: list[str]
) -> None:
    check_refused(job("pipeline", "configs/debug.yaml", *arguments, cwd=project), words)
    assert not [*project.glob("artifacts/registry/versions/*")]


def test_a_model_is_not_published_before_it_is_measured(
    job: Callable[..., Done], project: Path
) -> None:
    check_refused(job("publish", cwd=project), ["publish.model='latest'", "ray_jobs.train"])
    check_refused(job("classify", "Some text", cwd=project), ["champion", "published in"])
    check_refused(job("train", cwd=project), ["train.dataset='latest'", "ray_jobs.ingest"])
