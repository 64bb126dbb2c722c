"""Check that a run resumes with the data, the backbone and the recipe that it began with."""

from __future__ import annotations

from pathlib import Path

from finsent.files import read_json, write_json
from finsent.runs import has_trained
from finsent.same_settings import check_same
from finsent.training.config import OPERATIONAL
from finsent.training.task import Task

_TASK_FILE = "task.json"


def check_same_task(task: Task, run_dir: Path) -> None:
    """Check that a run's checkpoints are of a task, and write the task into the run's directory.

    Raises:
        ConfigError: the checkpoints are of another task.
    """
    file = run_dir / _TASK_FILE
    recipe = {k: v for k, v in (task.provenance.config or {}).items() if k not in OPERATIONAL}
    current = task.provenance.replaced(config=recipe).model_dump(mode="json")
    if file.is_file() and has_trained(run_dir):
        check_same(read_json(file), current, run_dir.name)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(file, current)
