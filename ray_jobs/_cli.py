"""What every job has in common: arguments, exit codes, the result line, and leaving cleanly."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from rich.console import Console

from finsent.config import Section, help_lines, load, to_yaml
from finsent.disk import find_disk_error, iterate_causes
from finsent.errors import ConfigError, InputError, UserError
from finsent.files import remove_abandoned_below
from finsent.runs import RESULT, finish_run, start_run
from finsent.settings import Settings, new_run_name
from finsent.stdout import write_line
from ray_jobs._configs import shipped
from ray_jobs._places import naming_places

log = logging.getLogger(__name__)

_CALM, _DYING = 1.0, 5.0  # seconds for workers that are about to die, and that write meanwhile
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NOISY = ("ray", "httpx", "huggingface_hub", "filelock")  # loggers of libraries
_SUFFIXES = (".yaml", ".yml")  # of configurations
_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z0-9_]+)*=", re.ASCII)

Result = dict[str, Any]
Error = TypeVar("Error", bound=BaseException)


class Interrupted(BaseException):
    """A signal asked the job to end. Not an `Exception`: nothing may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class RefusedError(InputError):
    """The last step of a job was refused. The work before is complete, and its result is kept."""

    def __init__(self, reason: str, result: Result) -> None:
        super().__init__(reason)
        self.result = result


@dataclass(frozen=True)
class Call:
    """One call of a job."""

    settings: Settings
    run_dir: Path  # exists when the job keeps runs
    arguments: list[str] = field(default_factory=list)  # positional ones, where the job takes them


@dataclass(frozen=True)
class Job:
    """A job's face on the command line."""

    name: str  # first part of the names of its runs
    summary: str  # shown by --help
    result: str  # keys of the result line, shown by --help
    sections: tuple[str, ...]  # settings that it uses
    run: Callable[[Call], Result]
    keeps_run: bool = True
    arguments: str = ""  # how positional arguments are written; "": it takes none
    home: str = ""  # section whose keys may be written without its name
    flags: dict[str, str] = field(default_factory=dict)  # of the command line: what each sets
    dry: Callable[[Settings], bool] = lambda _: False  # it only says what it would do
    check: Callable[[Settings, Path], None] = lambda *_: None  # before a run is begun or goes on
    resumes: bool = False  # the same command with the same run.name resumes the run
    settings: type[Settings] = Settings  # the type of its settings
    config: str = ""  # a shipped configuration that is read first
    module: str = ""  # the module that is run; "": ray_jobs.NAME


@dataclass
class _Arguments:
    files: list[str]
    overrides: list[str]
    positional: list[str]
    help: bool = False
    print_config: bool = False


def main(job: Job, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a job from its command line and exit: 0 done, 2 bad config or input, 1 otherwise."""
    with _stdout_for_result() as out:
        code = _main(job, list(sys.argv[1:] if argv is None else argv), out)
    # Interpreter shutdown runs atexit handlers (Ray's among them) first.
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
    root, handlers = logging.getLogger(), {n: signal.getsignal(n) for n in _SIGNALS}
    levels = {name: logging.getLogger(name).level for name in ("", *_NOISY)}
    log_handlers, hook = root.handlers[:], sys.unraisablehook
    root.handlers.clear()  # `_log_to_stderr` adds one that writes to `err`
    try:
        with redirect_stdout(err), redirect_stderr(err):
            code = _main(job, list(argv), out)
    finally:
        root.handlers[:], sys.unraisablehook = log_handlers, hook
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if code in {128 + number for number in _SIGNALS}:
        raise KeyboardInterrupt(signal.Signals(code - 128).name)
    return Finished(code, out.getvalue(), err.getvalue())


def _main(job: Job, argv: list[str], out: IO[str]) -> int:
    try:
        arguments = _parse(job, argv)
        if arguments.help:
            write_line(_help(job), out)
            return 0
        settings = load(job.settings, _files(job, arguments), arguments.overrides)
        if arguments.print_config:
            write_line(to_yaml(settings).rstrip("\n"), out)
            return 0
        _log_to_stderr()
        catch_signals()
        with naming_places(settings):
            result = _run(job, settings, arguments.positional)
    except UserError as error:
        _say(f"error: {_one_line(error)}")
        return 2
    except Interrupted as interrupted:
        return _interrupted(interrupted.signum)
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
            return _interrupted(signal.SIGTERM)  # Ray's own handler, while ray.init runs
        wrapped = _cause(error, Interrupted)
        if wrapped is not None:  # Ray's own code wraps what a handler raises
            return _interrupted(wrapped.signum)
        cause = _cause(error, UserError)
        if cause is not None:
            _say(f"error: {_one_line(cause)}")
            return 2
        traceback.print_exc()
        return 1
    write_line(json.dumps(result, ensure_ascii=False), out)
    return 0


def _run(job: Job, settings: Settings, positional: list[str]) -> Result:
    started = time.perf_counter()
    run_dir = settings.runs_dir / (settings.run.name or new_run_name(job.name))
    keeps_run = job.keeps_run and not job.dry(settings)
    if keeps_run:
        job.check(settings, run_dir)
        start_run(run_dir, job.name, settings)
    refusal: RefusedError | None = None
    try:
        result = job.run(Call(settings, run_dir, positional))
    except RefusedError as error:
        refusal, result = error, {**error.result, "refused": str(error)}
    except BaseException as error:
        calm = 0.0 if isinstance(error, UserError) else _CALM
        with suppress(OSError):  # the job's own error counts
            # Checkpoints of workers that died with Ray.
            remove_abandoned_below(run_dir, calm, _DYING)
        if job.resumes and keeps_run and settings.run.name is None and find_disk_error(error):
            log.info("resume by the same command with run.name=%s", run_dir.name)
        raise
    result = {"job": job.name, **result}
    if keeps_run:
        result["run_dir"] = str(run_dir)
    result["seconds"] = round(time.perf_counter() - started, 3)
    if keeps_run:
        finish_run(run_dir, result)
    if refusal is not None:
        if keeps_run:
            log.info("the result of the steps before is in %s", run_dir / RESULT)
        raise refusal
    return result


def _parse(job: Job, argv: list[str]) -> _Arguments:
    found = _Arguments([], [], [])
    for index, argument in enumerate(argv):
        if argument == "--":
            found.positional += argv[index + 1 :]
            break
        if argument in ("-h", "--help"):
            found.help = True
        elif argument == "--print-config":
            found.print_config = True
        elif argument in job.flags:
            found.overrides.append(job.flags[argument])
        elif _is_config(job, argument):
            found.files.append(argument)
        elif _OVERRIDE.match(argument):
            found.overrides.append(_at_home(job, argument))
        elif job.arguments and not argument.startswith("--"):
            found.positional.append(argument)
        else:
            raise ConfigError(
                f"argument {argument!r}: not understood; write CONFIG.yaml, key=value, --help or "
                "--print-config"
            )
    if found.positional and not job.arguments:
        raise ConfigError(f"argument {found.positional[0]!r}: {job.name} takes no texts or names")
    return found


def _is_config(job: Job, argument: str) -> bool:
    if argument.endswith(_SUFFIXES):
        return "=" not in argument
    return not job.arguments and shipped(argument) is not None


def _files(job: Job, arguments: _Arguments) -> list[Path]:
    """Return the paths of the configurations to merge, in their order."""
    return [_path_of(name) for name in (job.config, *arguments.files) if name]


def _path_of(name: str) -> Path:
    """Return the path of a configuration.

    A name without a suffix is that of a shipped one. A user's file goes before a shipped one of the
    same name.
    """
    if name.endswith(_SUFFIXES) and Path(name).is_file():
        return Path(name)
    return shipped(name) or Path(name)


def _at_home(job: Job, override: str) -> str:
    key = override.partition("=")[0]
    section = job.settings.model_fields[job.home].annotation if job.home else None
    keys = (
        section.model_fields if isinstance(section, type) and issubclass(section, Section) else ()
    )
    return f"{job.home}.{override}" if key in keys else override


def _help(job: Job) -> str:
    arguments = f" {job.arguments}" if job.arguments else ""
    flags = "".join(f" [{flag}]" for flag in job.flags)
    lines = [
        f"usage: python -m {job.module or f'ray_jobs.{job.name}'} [CONFIG.yaml ...] [key=value ...]"
        f"{flags}{arguments}",
        "",
        *(textwrap.fill(line, 100) for line in job.summary.splitlines()),
        "",
        "Settings come from the defaults below, then the files from left to right, then key=value.",
        "--print-config prints the outcome and exits. Progress goes to stderr; the last line on",
        "stdout is a JSON object. Exit code: 0 done, 2 bad config or input, 1 anything else.",
        "",
        textwrap.fill(f"Result: {job.result}", 100),
        "",
        "Keys, as KEY=DEFAULT:",
        *help_lines(job.settings, job.sections),
        "",
        "Keys of the other sections are checked, too, so that one file serves every job.",
    ]
    return "\n".join(lines)


# --- leaving cleanly ----------------------------------------------------------------------------


def catch_signals() -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into `Interrupted`, once; `finally` blocks then clean up.

    Called again after `ray.init`, which sets a handler of its own.
    """

    def interrupt(signum: int, _frame: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # cleaning up must not be interrupted
        sys.unraisablehook = _leaving
        raise Interrupted(signum)

    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)


def _leaving(unraisable: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in a destructor: send a signal that came there once more.

    Anything else is an object that the signal caught half made, and that can't be torn down whole:
    of no use to a person.
    """
    error = unraisable.exc_value
    if isinstance(error, Interrupted):
        catch_signals()
        # Not now: it would be dropped here, too.
        threading.Timer(0.05, os.kill, (os.getpid(), error.signum)).start()


def _cause(error: BaseException, kind: type[Error]) -> Error | None:
    """The error of a kind inside one that crossed processes (Ray wraps what its workers raise)."""
    return next((each for each in iterate_causes(error) if isinstance(each, kind)), None)


def _interrupted(signum: int) -> int:
    _say(f"interrupted by {signal.Signals(signum).name}; nothing half-written is left")
    return 128 + signum


def table_console() -> Console:
    """Where a job prints tables for people: stderr, with texts as they are (no markup in them)."""
    return Console(file=sys.stderr, markup=False, emoji=False)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _one_line(error: UserError) -> str:
    # An error that crossed processes may carry the remote traceback around its own text.
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return " ".join(text.split())


@contextmanager
def _stdout_for_result() -> Iterator[IO[str]]:
    """Keep stdout for the result; whatever libraries and child processes print goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8", errors="backslashreplace") as out:
            yield out
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(is_wanted)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def is_wanted(record: logging.LogRecord) -> bool:
    """Return whether a log record is for people: not what Ray logs of a signal that it caught.

    The job reports the signal itself.
    """
    error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
    is_of_ray = record.name.partition(".")[0] == "ray"
    return error is None or not is_of_ray or _cause(error, Interrupted) is None
