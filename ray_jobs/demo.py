"""Train on the sample corpus, publish, classify five sentences, and serve a page."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from finsent.config import to_yaml
from finsent.errors import ConfigError, UserError
from ray_jobs._cli import Call, Interrupted, Job, main

ONCE = "once"
SENTENCES = (
    "Net profit rose to 14.2 million euros from 9.8 million a year earlier.",
    "The company's operating loss narrowed for the third quarter in a row.",
    "The annual general meeting will be held in Tampere on 14 April.",
    "Operating profit fell to 3.1 million euros from 4.4 million.",
    "The company lowered its full-year outlook after weak demand in Germany.",
)


@dataclass(frozen=True)
class DemoResult:
    """Result of the job: the published model."""

    model_version: str
    macro_f1: Annotated[float, "on the test split"]
    accuracy: Annotated[float, "on the test split"]
    version_dir: str


def run(call: Call) -> DemoResult:
    """Run the job."""
    if call.arguments not in ([], [ONCE]):
        raise ConfigError(
            f"demo {' '.join(call.arguments)!r}: unknown arguments. Write {ONCE}, or nothing."
        )
    with tempfile.TemporaryDirectory(prefix="finsent-demo-") as folder:
        config = Path(folder, "demo.yaml")
        config.write_text(to_yaml(call.settings), encoding="utf-8")
        result = json.loads(_run_job("pipeline", str(config)).splitlines()[-1])
        _run_job("classify", str(config), "--", *SENTENCES)
        if not call.arguments:
            _run_job("serve", str(config), until_signal=True)
    return DemoResult(
        result["model_version"], result["macro_f1"], result["accuracy"], result["version_dir"]
    )


def _run_job(name: str, *arguments: str, until_signal: bool = False) -> str:
    """Run a job in its own process, as a user does, and return its stdout.

    A signal is passed on to the job, whose end is awaited.

    Args:
        until_signal: a signal is the job's ordinary end, not an interruption.

    Raises:
        UserError: the job refused its input and reported why.
        RuntimeError: the job failed.
    """
    command = [sys.executable, "-m", f"ray_jobs.{name}", *arguments]
    stdout, exit_codes = "", {0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            stdout, _ = process.communicate()
        except BaseException as error:
            signum = error.signum if isinstance(error, Interrupted) else signal.SIGINT
            process.send_signal(signum)  # the job then removes half-written files
            if not (until_signal and isinstance(error, Interrupted)):
                raise
            exit_codes |= {128 + signum, -signum}  # of a job that was still starting
    if process.returncode == 2:
        raise UserError(f"demo: {name} ended with the error above")
    if process.returncode not in exit_codes:
        raise RuntimeError(f"{name} failed with exit code {process.returncode}")
    return stdout


JOB = Job(
    name="demo",
    summary="Run the pipeline on the sample corpus, classify five sentences with the published "
    f"model, and serve it with a page until Ctrl-C, the ordinary end. `finsent demo {ONCE}` ends "
    "before the page.",
    result=DemoResult,
    sections=("storage", "serve", "train"),
    run=run,
    keeps_run=False,
    arguments=f"[{ONCE}]",
    config="demo",
)

if __name__ == "__main__":
    main(JOB)
