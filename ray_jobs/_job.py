"""What a job declares, its `--help`, and what it gets when it is called."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from finsent.config import help_lines
from finsent.errors import InputError
from ray_jobs._results import Output, ResultTypes, result_lines
from ray_jobs._settings import JobSettings

__all__ = ["Call", "Job", "JobSettings", "RefusedError"]

_HELP_WIDTH = 100  # characters


class RefusedError(InputError):
    """The last step of a job was refused. The steps before are complete; their result is stored."""

    def __init__(self, reason: str, result: Output) -> None:
        super().__init__(reason)
        self.result = result


@dataclass(frozen=True)
class Call:
    """One call of a job."""

    settings: JobSettings
    run_dir: Path  # exists when the job keeps runs
    arguments: list[str] = field(default_factory=list)  # positional ones


@dataclass(frozen=True)
class Job:
    """The command line of a job."""

    name: str  # first part of the names of its runs
    summary: str  # shown by --help
    result: ResultTypes  # its keys are shown by --help
    sections: tuple[str, ...]  # settings that it uses
    run: Callable[[Call], Output]
    keeps_run: bool = True
    arguments: str = ""  # how positional arguments are written; "": it accepts none
    home: str = ""  # section whose keys may be written without its name
    flags: dict[str, str] = field(default_factory=dict)  # override by command line flag
    dry: Callable[[JobSettings], bool] = lambda _: False  # whether the job only prints a plan
    check: Callable[[JobSettings, Path], None] = lambda *_: None  # before a run starts or resumes
    resumes: bool = False  # the same command with the same run.name resumes the run
    fixed: tuple[str, ...] = ()  # keys and sections that a run which has trained must resume with
    settings: type[JobSettings] = JobSettings  # the type of its settings
    config: str = ""  # a shipped configuration that is read first
    module: str = ""  # the module that is run; "": ray_jobs.NAME

    @property
    def command(self) -> str:
        """How the job is started as a module."""
        return f"python -m {self.module or f'ray_jobs.{self.name}'}"

    def help_text(self, command: str) -> str:
        """Return usage, summary, the keys of the result, and the settings that the job uses.

        Args:
            command: how the user started the job, e.g. `finsent train`.
        """
        arguments = f" {self.arguments}" if self.arguments else ""
        flags = "".join(f" [{flag}]" for flag in self.flags)
        return "\n".join(
            [
                f"usage: {command} [CONFIG.yaml ...] [key=value ...]{flags}{arguments}",
                "",
                *(textwrap.fill(line, _HELP_WIDTH) for line in self.summary.splitlines()),
                "",
                "Settings come from the defaults below, then the files from left to right, then",
                "key=value. --print-config prints the outcome and exits. Progress goes to stderr; "
                "the",
                "last line on stdout is a JSON object. Exit code: 0 done, 2 bad config or input, 1",
                "anything else.",
                "",
                *result_lines(self.result, self.keeps_run),
                "",
                "Keys, as KEY=DEFAULT:",
                *help_lines(self.settings, self.sections),
                "",
                "Keys of the other sections are checked, too, so that one file serves every job.",
            ]
        )
