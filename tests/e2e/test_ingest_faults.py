"""Ingest is killed, the disk fills up, sources break: nothing half-made is ever visible."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.data.dataset import DatasetVersion
from finsent.data.synthetic import write_rows
from tests.e2e.conftest import Done, environment, wait_until
from tests.e2e.test_bad_input import check_refused

NAME = "faults"
ROWS = 90_000
DATA = (f"data.name={NAME}", "storage.root=out", "data.label_noise.enabled=false")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows that every step takes long enough to be met."""
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder, rows=ROWS, files=3, seed=5)
    return folder


def versions(project: Path) -> list[Path]:
    """What readers see."""
    return sorted(p for p in project.glob(f"out/datasets/{NAME}/*") if not p.name.startswith("."))


STEPS = {
    "reading": ".work/rows/*.arrow",
    "settling": ".work/kept/*.arrow",
    "comparing": ".work/edges/*.arrow",
    "writing": "train/*.parquet",
    "reporting": "pictures/*.png",
}


def test_a_killed_ingest_leaves_the_old_version_whole_and_a_rerun_finishes(
    job: Callable[..., Done], project: Path, rows: Path
) -> None:
    """Killed at each step in turn; nobody is left to clean up."""
    before = job("ingest", *DATA, "data.sources=[sample]", cwd=project)
    assert before.code == 0, before.err
    [old] = versions(project)
    content = {p: p.read_bytes() for p in old.rglob("*") if p.is_file()}
    command = [*DATA, f"data.sources=[{rows}]", "data.max_rejected_fraction=0.05"]
    place = project / "out" / "datasets" / NAME
    for step, pattern in STEPS.items():
        left = {*place.glob(".staging-*")}
        process = subprocess.Popen(
            [sys.executable, "-m", "ray_jobs.ingest", *command],
            cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_until(
            lambda pattern=pattern, left=left, process=process: (  # type: ignore[misc]
                any([*new.glob(pattern)] for new in {*place.glob(".staging-*")} - left)
                or process.poll() is not None
            ),
            240,
            step,
        )
        process.kill()
        process.communicate()
        assert process.returncode < 0, f"it ended before it was killed while {step}"
        assert versions(project) == [old], step
        assert {p: p.read_bytes() for p in old.rglob("*") if p.is_file()} == content, step
    again = job("ingest", *command, cwd=project)
    assert again.code == 0, again.err
    assert again.result["counts"]["rows_in"] == ROWS
    [made] = {*versions(project)} - {old}
    DatasetVersion.open(made)  # compares every file with its digest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "finsent-test", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_a_clear_error(
    job: Callable[..., Done], project: Path, rows: Path, small_disk: Path
) -> None:
    source = next(rows.glob("*.csv"))
    done = job(
        "ingest", *DATA, f"data.sources=[{source}]", "data.max_rejected_fraction=0.05",
        f"storage.root={small_disk}", cwd=project,
    )  # fmt: skip
    check_refused(done, ["storage.root", "No space left", "free some space"])
    assert not [*small_disk.glob(f"datasets/{NAME}/*")]


def cut_gzip(folder: Path) -> Path:
    text = "Sentence,Sentiment\n" + "".join(f"Unit {i} rose,positive\n" for i in range(9000))
    path = folder / "cut.csv.gz"
    path.write_bytes(gzip.compress(text.encode())[:-4000])
    return path


def without_label(folder: Path) -> Path:
    path = folder / "bare.parquet"
    pq.write_table(pa.table({"Sentence": ["Sales rose"], "Mood": ["positive"]}), path)
    return path


def cut_parquet(folder: Path) -> Path:
    path = without_label(folder)
    path.write_bytes(path.read_bytes()[:-20])
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (cut_gzip, ["cut.csv.gz", "cut off"]),
        (without_label, ["data.label_column='Sentiment'", "bare.parquet", "'Mood'"]),
        (cut_parquet, ["bare.parquet", "Parquet"]),
    ],
    ids=["cut gzip", "missing column", "cut parquet"],
)
def test_broken_sources_are_refused(
    job: Callable[..., Done], project: Path, make: Callable[[Path], Path], words: list[str]
) -> None:
    check_refused(job("ingest", *DATA, f"data.sources=[{make(project)}]", cwd=project), words)
    assert not versions(project)


def test_a_source_that_vanishes_half_way_is_a_clear_error(project: Path) -> None:
    """Somebody deletes the files once they were found."""
    folder = project / "going"
    files = write_rows(folder, rows=400_000, files=8, seed=3)
    process = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.ingest", *DATA, f"data.sources=[{folder}]"],
        cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    place = project / "out" / "datasets" / NAME
    wait_until(
        lambda: bool([*place.glob(".staging-*")]) or process.poll() is not None, 240, "reading"
    )
    for file in files:  # its workers only start now: most files are still to be opened
        file.unlink()
    out, err = process.communicate(timeout=240)
    check_refused(Done(process.returncode, out, err), ["data.sources", "cannot be read"])
    assert not versions(project)
