"""Jobs for tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_jobs._cli import Call, Job, Result

ROOT = Path(__file__).parents[3]
JOBS = sorted(file.stem for file in (ROOT / "ray_jobs").glob("[!_]*.py"))


Caller = Callable[..., tuple[int, str, str]]


def job(run: Callable[[Call], Result], **settings: Any) -> Job:
    """Return a job with the name `probe`."""
    face = {"name": "probe", "summary": "A probe.", "result": "nothing", "keeps_run": False}
    return Job(run=run, **{**face, "sections": ("storage",), **settings})


def nothing(_call: Call) -> Result:
    """Return an empty result."""
    return {}


PLAIN, WITH_TEXTS = job(nothing), job(nothing, arguments="[TEXT ...]")


def failing(error: BaseException, **settings: Any) -> Job:
    """Return a job that raises an error."""

    def run(_call: Call) -> Result:
        raise error

    return job(run, **settings)
