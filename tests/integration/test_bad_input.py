"""Bad input and bad settings: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import csv
import gzip
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.synthetic import write_rows
from finsent.data.versions.dataset import DatasetVersion
from ray_jobs import ingest
from tests.commands import check_refused, invoke_job, run_job
from tests.disks import small_disk

ROWS = [("Unit 1 opened in Oslo", "neutral"), ("Profit at unit 2 doubled", "positive")]
DATA = ("data.name=faults", "storage.root=out", "data.label_noise.enabled=false")


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


def cut_gzip(folder: Path) -> Path:
    rows = "Sentence,Sentiment\n" + "".join(f"Unit {i} rose,positive\n" for i in range(9000))
    return text(folder / "cut.csv.gz", gzip.compress(rows.encode())[:-4000])


def without_label(folder: Path) -> Path:
    path = folder / "bare.parquet"
    pq.write_table(pa.table({"Sentence": ["Sales rose"], "Mood": ["positive"]}), path)
    return path


def cut_parquet(folder: Path) -> Path:
    path = without_label(folder)
    path.write_bytes(path.read_bytes()[:-20])
    return path


UNKNOWN_LABEL = [
    "label.csv",
    "unknown_label: 1",
    "'bullish'",
    "negative, neutral, positive",
    "rejected.parquet",
]
SOURCES: list[tuple[Callable[[Path], Path], list[str]]] = [
    (empty, ["data.sources", "empty.csv", "is empty"]),
    (missing_column, ["data.text_column='Sentence'", "columns.csv", "'Headline'"]),
    (unknown_label, UNKNOWN_LABEL),
    (binary, ["binary.csv", "NUL bytes", "it is binary", "name a text file"]),
    (huge_line, ["huge.csv", "text_too_long: 1", "data.max_rejected_fraction"]),
    (no_files, ["nothing", "without files of a known format"]),
    (absent, ["absent.csv", "no such file"]),
    (cut_gzip, ["cut.csv.gz", "cut off"]),
    (without_label, ["data.label_column='Sentiment'", "bare.parquet", "'Mood'"]),
    (cut_parquet, ["bare.parquet", "Parquet"]),
]


def versions(project: Path) -> list[Path]:
    """What readers see of datasets and models."""
    folders = [*project.glob("*/datasets/*/*"), *project.glob("*/registry/versions/*")]
    return [path for path in folders if not path.name.startswith(".")]


@pytest.mark.parametrize(("make", "words"), SOURCES, ids=[make.__name__ for make, _ in SOURCES])
def test_unusable_sources(project: Path, make: Callable[[Path], Path], words: list[str]) -> None:
    source = f"data.sources=['{make(project)}']"
    check_refused(invoke_job("pipeline", "configs/debug.yaml", source), words)
    check_refused(invoke_job("ingest", *DATA, source), words)
    assert not versions(project)


@pytest.mark.cost(12, "a process with its own local Ray")
def test_a_process_refuses_as_a_call_does(project: Path) -> None:
    source = unknown_label(project)
    arguments = ("configs/debug.yaml", f"data.sources=['{source}']", "run.name=same")
    called = invoke_job("pipeline", *arguments)
    process = run_job("pipeline", *arguments, cwd=project)
    check_refused(process, UNKNOWN_LABEL)
    assert (process.code, process.out) == (called.code, called.out)
    assert process.err.splitlines()[-1] == called.err.splitlines()[-1]


def test_a_wrong_declared_encoding(project: Path) -> None:
    text(project / "latin.csv", "Sentence,Sentiment\nCafé closes,negative\n".encode("cp1252"))
    refused = invoke_job("ingest", "data.sources=[latin.csv]", "data.encoding=utf-8")
    check_refused(refused, ["data.encoding='utf-8'", "latin.csv", "cp1252", "auto"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.epohcs=2"], ["train.epohcs", "Did you mean 'train.epochs'?"]),
        (["model.backbone=no-such/model"], ["model.backbone='no-such/model'", "demo"]),
        (["registry.root=/proc/registry"], ["registry.root='/proc/registry", "cannot write"]),
        (["storage.root=/proc/artifacts"], ["storage.root='/proc/artifacts", "cannot write"]),
        (["train.num_workers=50", "train.batch_size=50"], ["train.num_workers=50", "51 CPUs"]),
    ],
    ids=["unknown key", "unreachable hub", "read-only registry", "read-only storage", "too large"],
)
def test_unusable_settings(project: Path, arguments: list[str], words: list[str]) -> None:
    check_refused(invoke_job("pipeline", "configs/debug.yaml", *arguments), words)
    assert not versions(project)


@pytest.mark.usefixtures("project")
def test_a_model_is_not_published_before_it_is_measured() -> None:
    check_refused(invoke_job("publish"), ["publish.model='latest'", "ray_jobs.train"])
    check_refused(invoke_job("classify", "Some text"), ["champion", "Published in"])
    check_refused(invoke_job("train"), ["train.dataset='latest'", "ray_jobs.ingest"])


def test_a_full_disk_is_a_clear_error(project: Path, tmp_path: Path) -> None:
    [source] = write_rows(project / "rows", rows=30_000, files=1, seed=5)
    with small_disk(tmp_path / "small", "3m") as folder:
        refused = invoke_job(
            "ingest",
            *DATA,
            f"data.sources=[{source}]",
            "data.max_rejected_fraction=0.05",
            f"storage.root={folder}",
        )
        words = ["storage.root=", "No space left", "MB free, more is needed", "Free some space"]
        check_refused(refused, words)
        assert not [*folder.glob("datasets/faults/*")]


def test_a_source_that_vanishes_half_way_is_a_clear_error(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are deleted once ingest has found them, and before it reads them."""
    folder = project / "going"
    files = write_rows(folder, rows=1000, files=4, seed=3)

    def step(*arguments: Any) -> DatasetVersion:
        for file in files[1:]:
            file.unlink()
        return begin_ingest(*arguments)

    begin_ingest = ingest.step
    monkeypatch.setattr(ingest, "step", step)
    refused = invoke_job("ingest", *DATA, f"data.sources=[{folder}]")
    check_refused(refused, ["data.sources", "cannot be read"])
    assert not versions(project)


# --- sweeps ---------------------------------------------------------------------------------------

SPACE = 'sweep.space={"train.dropout": {"uniform": [0.0, 0.5]}}'


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root that holds a dataset version."""
    root = tmp_path_factory.mktemp("sweeps") / "out"
    configs = Path(__file__).parents[2] / "configs"
    made = invoke_job("ingest", f"{configs}/debug.yaml", f"storage.root={root}")
    assert made.code == 0, made.err
    return root


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (['sweep.space={"train.dropuot": {"uniform": [0.0, 0.5]}}'], ["train.dropuot", "dropout"]),
        (['sweep.space={"train.dropout": {"uniform": [0.5, 0.1]}}'], ["lower bound above"]),
        (['sweep.space={"train.dropout": {"uniform": [0.1, 0.1]}}'], ["is empty"]),
        (['sweep.space={"train.dropout": {"uniform": [0.0, 7.0]}}'], ["train.dropout=7.0"]),
        ([], ["sweep.space: is empty"]),
        ([SPACE, "metric=bleu"], ["metric='bleu'", "macro_f1"]),
        ([SPACE, "train.num_workers=64", "train.batch_size=64"], ["train.num_workers=64", "CPUs"]),
        ([SPACE, "storage=postgresql://nobody@127.0.0.1:1/none"], ["sweep.storage="]),
        ([SPACE, "storage=sqlite:///locked.db"], ["sweep.storage=", "locked"]),
        ([SPACE, "warm_start=[nowhere]"], ["nowhere", "not a sweep"]),
        ([SPACE, "nonsense"], ["nonsense"]),
    ],
)
def test_a_bad_sweep_is_one_line_before_any_trial(
    arguments: list[str], words: list[str], ingested: Path, project: Path
) -> None:
    holder = sqlite3.connect(project / "locked.db")
    holder.execute("BEGIN EXCLUSIVE")
    refused = invoke_job(
        "sweep", "configs/debug.yaml", f"storage.root={ingested}", "run.name=bad", *arguments
    )
    holder.close()
    check_refused(refused, words)
    assert not (ingested / "runs/bad/trials.jsonl").exists()


def test_a_dry_run_of_a_sweep_writes_nothing(ingested: Path, project: Path) -> None:
    done = invoke_job(
        "sweep",
        "configs/debug.yaml",
        "configs/sweep.yaml",
        f"storage.root={ingested}",
        "--dry-run",
        "run.name=dry",
    )
    assert done.code == 0, done.err
    assert len(done.result["configs"]) == 10 and done.result["trial_seconds"] > 0
    assert "rows/s" in done.err
    assert not (ingested / "runs/dry").exists()
    assert not [path for path in project.iterdir() if path.name != "configs"]
