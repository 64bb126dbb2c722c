"""Run a job by its name: `finsent JOB ...` equals `python -m ray_jobs.JOB ...`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import ray_jobs
from finsent.extras import missing_package
from finsent.stdout import write_line
from ray_jobs._completion import COMMAND, USAGE, completion


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the job that the first argument names, and exit with the job's code.

    Exit code 2: the first argument names no job, or only the client is installed.
    """
    if importlib.util.find_spec("ray") is None:
        sys.stderr.write(
            "error: finsent: only the client of the service is installed. "
            "Run: pip install 'finsent[platform]'\n"
        )
        sys.exit(2)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        write_line(usage(), sys.stdout)
        sys.exit(0)
    name = arguments[0]
    if name == COMMAND:
        _complete(arguments[1:])
    if name not in job_names():
        close = get_close_matches(name, job_names(), 1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Jobs: {', '.join(job_names())}."
        sys.stderr.write(f"error: JOB={name!r}: no such job. {hint}\n")
        sys.exit(2)
    from ray_jobs._cli import main as run_job  # pydantic and rich: 0.3 s; a typo fails before

    try:
        job = importlib.import_module(f"ray_jobs.{name}").JOB
    except ModuleNotFoundError as error:
        if not (refusal := missing_package(error, f"JOB={name!r}")):
            raise
        sys.stderr.write(f"error: {refusal}\n")
        sys.exit(2)
    run_job(job, arguments[1:], f"finsent {name}")


def _complete(arguments: Sequence[str]) -> NoReturn:
    text = completion(arguments, job_names())
    if text is None:
        sys.stderr.write(
            f"error: {COMMAND} {' '.join(arguments)!r}: unknown arguments. Write {USAGE}.\n"
        )
        sys.exit(2)
    write_line(text, sys.stdout)
    sys.exit(0)


def job_names() -> list[str]:
    """Return the names of all jobs, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(ray_jobs.__path__))
    return sorted(name for name in modules if not name.startswith("_"))


def usage() -> str:
    """Return the text of `finsent --help`: one line per job."""
    names = job_names()
    width = max(map(len, names))
    jobs = [f"  {name:{width}}  {_summary(name)}" for name in names]
    return "\n".join(
        [
            "usage: finsent JOB [CONFIG.yaml ...] [key=value ...]",
            "",
            *jobs,
            "",
            "`finsent JOB --help` lists the settings of a job and the keys of its result.",
            f"`{USAGE}` prints a script for tab completion.",
        ]
    )


def _summary(name: str) -> str:
    # Without an import, which takes seconds and needs the packages of the job.
    source = Path(ray_jobs.__path__[0], f"{name}.py").read_text("utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
