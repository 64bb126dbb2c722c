"""`metrics.jsonl` in a run's directory: one JSON object per logged step and per epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from finsent.errors import InputError
from finsent.files import append_lines, write_text
from finsent.training.metrics import EpochLine, StepLine

METRICS_FILE = "metrics.jsonl"
MetricsLine = StepLine | EpochLine
_LINE: TypeAdapter[MetricsLine] = TypeAdapter(Annotated[MetricsLine, Field(discriminator="kind")])


def read_metrics(run_dir: Path) -> list[MetricsLine]:
    """Return the lines of a run's metrics file; none where the file is missing.

    A torn line is skipped: the process was killed while it wrote the line.

    Raises:
        InputError: a line is JSON, but no metrics.
    """
    file = run_dir / METRICS_FILE
    if not file.is_file():
        return []
    lines = []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            content = json.loads(text)
        except ValueError:
            continue
        try:
            lines.append(_LINE.validate_python(content))
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"])) or "line"
            raise InputError(
                f"{file}: line {number}: {key}: {problem['msg']}. The file is damaged or of "
                "another version of finsent. Train under another run.name."
            ) from None
    return lines


def read_steps(run_dir: Path) -> list[StepLine]:
    """Return the lines about steps."""
    return [line for line in read_metrics(run_dir) if isinstance(line, StepLine)]


def read_epochs(run_dir: Path) -> list[EpochLine]:
    """Return the lines about epochs."""
    return [line for line in read_metrics(run_dir) if isinstance(line, EpochLine)]


class MetricsLog:
    """Writes a run's metrics file."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def start(self, step: int) -> None:
        """Start the file, or drop the lines after the step from which the run resumes."""
        lines = [line for line in read_metrics(self._run_dir) if line.step <= step] if step else []
        self._run_dir.mkdir(parents=True, exist_ok=True)
        write_text(self._run_dir / METRICS_FILE, "".join(map(_json_line, lines)))

    def append(self, line: MetricsLine) -> None:
        """Append a line.

        Raises:
            DiskError: the file cannot be written.
        """
        append_lines(self._run_dir / METRICS_FILE, _json_line(line).encode())


def _json_line(line: MetricsLine) -> str:
    return json.dumps(line.model_dump(mode="json"), ensure_ascii=False) + "\n"
