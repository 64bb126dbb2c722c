"""Jobs that cannot write: one line, exit code 2, nothing half-written, and the same command works.

A limit of file size stands for a full disk, which needs root. What needs Ray is in
`integration/test_bad_input.py` and `integration/test_sweep.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.labels import LABELS
from tests.commands import check_refused, invoke_job
from tests.disks import file_limit
from tests.unit.dataset_versions import Row, write
from tests.unit.foreign import classifier, saved

QUICK = (
    "export.openvino=false",
    "export.max_f1_loss=1",
    "export.min_same_labels=0.0001",
    "evaluate.behavior=null",
    "evaluate.bootstrap=100",
    "engine.threads=1",
    "tracking.mode=disabled",
)
FILE = 20_000  # bytes; pictures, weights and graphs are larger, records and settings are not


def files(folder: Path) -> dict[str, int]:
    """Each file below a folder, and when it was written."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


@pytest.mark.cost(12, "four jobs, twice")
def test_full_disk_is_one_line_and_the_same_command_works_later(tiny: Path, project: Path) -> None:
    saved(classifier(), project / "own", tiny)
    rows = [
        Row(f"{split} {i}", LABELS[i % 3], split)
        for split in ("train", "validation", "test")
        for i in range(60)
    ]
    write(project / "artifacts/datasets/default/0123456789ab", rows)
    artifacts = project / "artifacts"
    calls = {
        "adopt": ("own", "name=own", "adopt.export=false", "run.name=own"),
        "evaluate": ("evaluate.model=artifacts/runs/own/model",),
        "export": ("model=artifacts/runs/own/model",),
        "publish": ("publish.model=artifacts/runs/own/model", "publish.alias=again"),
    }
    unchanged_folders = {  # what must be as it was
        "adopt": artifacts / "registry",
        "evaluate": artifacts / "runs/own/evaluation",
        "export": artifacts / "runs/own/model",
        "publish": artifacts / "registry",
    }
    for job, arguments in calls.items():
        call = (job, *QUICK, "data.name=default", *arguments)
        before = files(unchanged_folders[job])
        with file_limit(FILE):
            refused = invoke_job(*call)
        check_refused(
            refused, [f"='{artifacts}/", "File too large (at most 0.0 MB per file). Raise"]
        )
        assert files(unchanged_folders[job]) == before
        assert not [*artifacts.rglob(".staging-*")]
        done = invoke_job(*call)
        assert done.code == 0, done.err
        assert files(unchanged_folders[job]) != before
