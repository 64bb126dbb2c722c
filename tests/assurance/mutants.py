"""Plant the faults of `mutants.yaml`, one at a time, and report which test catches each.

Each fault is planted in a copy of the project's tracked files. The working tree is never changed.

    python -m tests.assurance.mutants [NAME ...] [--check] [--named-only] [--all-tests]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NoReturn

import psutil
import yaml

PROJECT = Path(__file__).resolve().parents[2]
LIST_FILE = Path(__file__).with_name("mutants.yaml")
SUITE_ARGUMENTS = ["-n", "logical", "--dist", "loadscope"]  # of pytest: the tests of `make test`
LIMIT_SECONDS = 1800.0  # of one run of pytest
_MARK = "FINSENT_MUTANT"  # environment variable that identifies the processes of a run
_CAUGHT = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
_LAST_CHARACTERS = 3000  # of pytest's output, shown if a run failed unexpectedly

Status = Literal["caught", "survived", "timed out", "not run"]


@dataclass(frozen=True)
class Mutant:
    """A fault to plant."""

    name: str
    file: str  # relative to the project
    before: str  # occurs exactly once in the file
    after: str
    tests: list[str]  # arguments of pytest, the most likely ones first

    def problem(self, root: Path) -> str | None:
        """Return why the fault cannot be planted in a project, or None."""
        path = root / self.file
        if not path.is_file():
            return f"{self.name}: file={self.file!r}: no such file. Name the file of the fault."
        count = path.read_text(encoding="utf-8").count(self.before)
        if count != 1:
            return (
                f"{self.name}: before={self.before!r}: occurs {count} times in {self.file}, not "
                "once. Copy the text from the file, with more of its surroundings if needed."
            )
        return None

    def plant(self, root: Path) -> None:
        """Replace the text in a copy of the project."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(self.before, self.after), encoding="utf-8")


@dataclass(frozen=True)
class Outcome:
    """The result of one run of pytest on a mutant."""

    name: str
    status: Status
    test: str | None  # the first one that failed
    seconds: float
    suite: bool = False  # whether the complete suite ran
    output: str = ""  # end of pytest's output

    def row(self) -> str:
        """Return one row of a Markdown table."""
        status = self.status if self.status == "caught" else self.status.upper()
        test = f"`{self.test}`" if self.test else ""
        return f"| {self.name} | {status} | {test} | {self.seconds:.0f} |"


def read_mutants(path: Path = LIST_FILE) -> list[Mutant]:
    """Read the list of faults."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [Mutant(**entry) for entry in entries]


# --- one run ------------------------------------------------------------------------------------


def tracked_files(root: Path) -> list[str]:
    """Return the files that git tracks, as paths relative to the project."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if (root / name).is_file()]


@contextmanager
def copied(root: Path, files: Sequence[str]) -> Iterator[Path]:
    """Copy files of a project into a temporary directory, which is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder, "project")
        for name in files:
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target, follow_symlinks=False)
        yield copy


def run_tests(name: str, copy: Path, arguments: Sequence[str], limit: float) -> Outcome:
    """Run pytest in a copy until its first failure, and end every process that it started."""
    mark = uuid.uuid4().hex
    path = os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, f"--basetemp={copy.with_name('tmp')}", *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": path, _MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
        status, test = judge(process.returncode, output)
    except subprocess.TimeoutExpired:
        _end_group(process)
        output, _ = process.communicate()
        status, test = "timed out", None
    finally:
        _end_group(process)
        _end_marked(mark)
    seconds = round(time.monotonic() - started, 1)
    return Outcome(name, status, test, seconds, output=output[-_LAST_CHARACTERS:])


def judge(code: int, output: str) -> tuple[Status, str | None]:
    """Return the status of a mutant after a run of pytest, and the first test that failed.

    A run without a test, or that pytest refused, has the status "not run".
    """
    failed = _CAUGHT.search(output)
    if code == 0:
        return "survived", None
    if code in (1, 2) and failed:
        return "caught", failed[1]
    return "not run", None


def _end_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end_marked(mark: str) -> None:
    """End processes outside the group of a run: Ray's, and those of jobs under test."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(_MARK) == mark:
                process.kill()


# --- all runs -----------------------------------------------------------------------------------


def try_mutant(mutant: Mutant, files: Sequence[str], options: argparse.Namespace) -> Outcome:
    """Run the tests of the list, then the complete suite if they pass."""
    with copied(PROJECT, files) as copy:
        mutant.plant(copy)
        if not options.all_tests:
            outcome = run_tests(mutant.name, copy, mutant.tests, options.limit)
            if options.named_only or outcome.status != "survived":
                return outcome
        outcome = run_tests(mutant.name, copy, SUITE_ARGUMENTS, options.limit)
        return Outcome(**{**asdict(outcome), "suite": True})


def check_copy(
    mutants: Sequence[Mutant], files: Sequence[str], options: argparse.Namespace
) -> str | None:
    """Run the tests of mutants without a fault. Return the problem, or None."""
    named = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    with copied(PROJECT, files) as copy:
        arguments = SUITE_ARGUMENTS if options.all_tests else named
        outcome = run_tests("no fault", copy, arguments, options.limit)
    if outcome.status == "survived":
        return None
    return f"{outcome.output}\nwithout a fault: {outcome.test or outcome.status}. Fix that first."


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.assurance.mutants",
        description="Plant one fault at a time in a copy of the project, and run tests there.",
        epilog="Exit code: 0 every fault is caught, 1 not every one, 2 a fault cannot be planted.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to plant; none: all")
    parser.add_argument("--list", action="store_true", help="print the names and exit")
    parser.add_argument("--check", action="store_true", help="first run the tests without a fault")
    parser.add_argument(
        "--named-only", action="store_true", help="do not run the complete suite after named tests"
    )
    parser.add_argument(
        "--all-tests", action="store_true", help="run the complete suite, not the named tests"
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT_SECONDS, help="seconds of one run of pytest"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(arguments)
    known = {mutant.name: mutant for mutant in read_mutants()}
    if options.list:
        _print("\n".join(known))
        return 0
    unknown = [name for name in options.names if name not in known]
    mutants = [known[name] for name in options.names or known if name in known]
    problems = [f"NAME={name!r}: no such fault. Run with --list for the names." for name in unknown]
    problems += filter(None, (mutant.problem(PROJECT) for mutant in mutants))
    if problems:
        _print("\n".join(problems))
        return 2
    files = tracked_files(PROJECT)
    if options.check and (problem := check_copy(mutants, files, options)):
        _print(problem)
        return 2
    _print("| fault | result | by | seconds |\n|---|---|---|---|")
    outcomes: list[Outcome] = []
    for mutant in mutants:
        outcomes.append(try_mutant(mutant, files, options))
        _print(outcomes[-1].row())
        if outcomes[-1].status in ("not run", "timed out"):
            sys.stderr.write(f"{outcomes[-1].output}\n")
        if options.json:
            options.json.write_text(
                json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n"
            )
    missed = [outcome.name for outcome in outcomes if outcome.status != "caught"]
    _print(f"\n{len(outcomes) - len(missed)} of {len(outcomes)} caught")
    return 1 if missed else 0


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _terminate(signum: int, _frame: object) -> NoReturn:
    sys.exit(128 + signum)  # runs the clean-up of the copy and of the processes


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main(sys.argv[1:]))
