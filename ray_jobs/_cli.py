"""Run a job from its command line: settings, run directory, exit code and result line."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from typing import IO, NoReturn

from finsent.config import load, to_yaml
from finsent.disk import find_disk_error
from finsent.errors import UserError
from finsent.extras import missing_package
from finsent.files import remove_abandoned_below
from finsent.job_dirs import named_disk_errors
from finsent.runs import RESULT, finish_run, new_run_name, start_run
from finsent.signals import SIGNALS, Interrupted, catch_signals, find_cause
from finsent.stdout import write_line
from finsent.stored_runs import StoredRuns
from ray_jobs._arguments import config_files, parse_arguments
from ray_jobs._job import Call, Job, JobSettings, RefusedError
from ray_jobs._results import Output, Result, as_result
from ray_jobs._streams import NOISY_LOGGERS, log_to_stderr, say, stdout_for_result, table_console

__all__ = [
    "Call",
    "Finished",
    "Interrupted",
    "Job",
    "JobSettings",
    "Output",
    "RefusedError",
    "Result",
    "as_result",
    "catch_signals",
    "invoke",
    "main",
    "table_console",
]

log = logging.getLogger(__name__)

# For workers to die with Ray, and for files that they write meanwhile.
_QUIET_SECONDS, _MAX_WRITE_SECONDS = 1.0, 5.0


def main(job: Job, argv: Sequence[str] | None = None, command: str = "") -> NoReturn:
    """Run a job and exit: 0 done, 2 bad config or input, 128 + SIGNAL interrupted, 1 otherwise.

    Args:
        command: how the user started the job, for its help; empty: as a module.
    """
    with stdout_for_result() as stdout:
        arguments = list(sys.argv[1:] if argv is None else argv)
        code = _main(job, arguments, stdout, command or job.command)
    # The interpreter's shutdown then runs atexit handlers, among them Ray's.
    sys.exit(code)


@dataclass(frozen=True)
class Finished:
    """A job that has ended: exit code and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Result:
        """The JSON object on the last line of stdout."""
        result: Result = json.loads(self.out.splitlines()[-1])
        return result


def invoke(job: Job, argv: Sequence[str]) -> Finished:
    """Run a job in this process as its command line does, and return instead of exiting.

    Signal handlers, log handlers and the levels of loggers are restored. A Ray that this process is
    connected to is used and stays connected. Call it from the main thread, since only that may
    handle signals.

    Raises:
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP ended the job.
    """
    out, err = StringIO(), StringIO()
    root, handlers = logging.getLogger(), {n: signal.getsignal(n) for n in SIGNALS}
    levels = {name: logging.getLogger(name).level for name in ("", *NOISY_LOGGERS)}
    log_handlers, hook = root.handlers[:], sys.unraisablehook
    root.handlers.clear()  # `log_to_stderr` adds one that writes to `err`
    try:
        with redirect_stdout(err), redirect_stderr(err):
            code = _main(job, list(argv), out, job.command)
    finally:
        root.handlers[:], sys.unraisablehook = log_handlers, hook
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if code in {128 + number for number in SIGNALS}:
        raise KeyboardInterrupt(signal.Signals(code - 128).name)
    return Finished(code, out.getvalue(), err.getvalue())


def _main(job: Job, argv: list[str], stdout: IO[str], command: str) -> int:
    """Run a job and return its exit code."""
    try:
        arguments = parse_arguments(job, argv)
        if arguments.help:
            write_line(job.help_text(command), stdout)
            return 0
        settings = load(job.settings, config_files(job, arguments), arguments.overrides)
        if arguments.print_config:
            write_line(to_yaml(settings).rstrip("\n"), stdout)
            return 0
        log_to_stderr()
        catch_signals()
        with named_disk_errors(settings):
            result = _run(job, settings, arguments.positional)
    except (Exception, SystemExit, Interrupted) as error:
        return _report(error, job)
    write_line(json.dumps(result, ensure_ascii=False), stdout)
    return 0


def _report(error: BaseException, job: Job) -> int:
    """Write an error to stderr, and return the exit code."""
    if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
        return _report_signal(signal.SIGTERM)  # Ray's own handler, while ray.init runs
    # Before the others: Ray's code wraps what a signal handler raises.
    if not isinstance(error, UserError) and (interrupted := find_cause(error, Interrupted)):
        return _report_signal(interrupted.signum)
    user_error = find_cause(error, UserError)
    if user_error is None and isinstance(error, ModuleNotFoundError):
        user_error = missing_package(error, f"JOB={job.name!r}")
    if user_error:
        say(f"error: {_message(user_error)}")
        return 2
    traceback.print_exception(error)
    return 1


def _report_signal(signum: int) -> int:
    say(f"interrupted by {signal.Signals(signum).name}; nothing half-written is left")
    return 128 + signum


def _message(error: UserError) -> str:
    # An error that crossed processes may carry the remote traceback around its own text.
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return " ".join(text.split())


def _run(job: Job, settings: JobSettings, positional: list[str]) -> Result:
    """Run a job in its run directory, and store its result there.

    Raises:
        RefusedError: the job's last step was refused; the result of the others is stored.
    """
    stored_runs = StoredRuns.of(settings.workspace)
    run_dir = stored_runs.runs_dir / (settings.run.name or new_run_name(job.name))
    call = Call(settings, run_dir, positional)
    if not job.keeps_run or job.dry(settings):
        started = time.perf_counter()
        output = {"job": job.name, **as_result(job.run(call))}
        return {**output, "seconds": round(time.perf_counter() - started, 3)}
    with stored_runs.owned(run_dir.name):
        return _run_and_store(job, call, stored_runs)


def _run_and_store(job: Job, call: Call, stored_runs: StoredRuns) -> Result:
    """Run a job that keeps a run, whose name this process owns, as `_run` does."""
    started = time.perf_counter()
    settings, run_dir = call.settings, call.run_dir
    if settings.run.name is not None:
        stored_runs.fetch(run_dir.name, checkpoints=True)
    job.check(settings, run_dir)
    start_run(run_dir, job.name, settings, job.fixed)
    stored_runs.store_started(run_dir)
    refusal: RefusedError | None = None
    try:
        output = as_result(job.run(call))
    except RefusedError as error:
        refusal, output = error, {**as_result(error.result), "refused": str(error)}
    except BaseException as error:
        quiet_seconds = 0.0 if isinstance(error, UserError) else _QUIET_SECONDS
        with suppress(OSError):  # the job's own error is reported
            # Checkpoints of workers that died with Ray.
            remove_abandoned_below(run_dir, quiet_seconds, _MAX_WRITE_SECONDS)
        if job.resumes and settings.run.name is None and find_disk_error(error):
            log.info("resume by the same command with run.name=%s", run_dir.name)
        raise
    result = {"job": job.name, **output, "run_dir": str(run_dir)}
    result["seconds"] = round(time.perf_counter() - started, 3)
    finish_run(run_dir, result)
    stored_runs.store_ended(run_dir)
    if refusal is not None:
        log.info("the result of the steps before is in %s", run_dir / RESULT)
        raise refusal
    return result
