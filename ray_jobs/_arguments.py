"""The command line of a job: configurations, `key=value`, flags and positional arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from finsent.config import Section
from finsent.errors import ConfigError
from ray_jobs._configs import shipped
from ray_jobs._job import Job

_CONFIG_SUFFIXES = (".yaml", ".yml")
_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z0-9_]+)*=", re.ASCII)


@dataclass
class Arguments:
    """A parsed command line."""

    files: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    positional: list[str] = field(default_factory=list)
    help: bool = False
    print_config: bool = False


def parse_arguments(job: Job, argv: list[str]) -> Arguments:
    """Parse a command line.

    Raises:
        ConfigError: an argument is none that the job accepts.
    """
    arguments = Arguments()
    for index, argument in enumerate(argv):
        if argument == "--":
            arguments.positional += argv[index + 1 :]
            break
        if argument in ("-h", "--help"):
            arguments.help = True
        elif argument == "--print-config":
            arguments.print_config = True
        elif argument in job.flags:
            arguments.overrides.append(job.flags[argument])
        elif _is_config(job, argument):
            arguments.files.append(argument)
        elif _OVERRIDE.match(argument):
            arguments.overrides.append(_with_section(job, argument))
        elif job.arguments and not argument.startswith("--"):
            arguments.positional.append(argument)
        else:
            raise ConfigError(
                f"argument {argument!r}: not understood. Write CONFIG.yaml, key=value, --help or "
                "--print-config."
            )
    if arguments.positional and not job.arguments:
        raise ConfigError(
            f"argument {arguments.positional[0]!r}: {job.name} accepts no texts or names. "
            "Leave it out."
        )
    return arguments


def config_files(job: Job, arguments: Arguments) -> list[Path]:
    """Return the paths of the configurations to merge, in their order."""
    return [_path_of(name) for name in (job.config, *arguments.files) if name]


def _is_config(job: Job, argument: str) -> bool:
    if argument.endswith(_CONFIG_SUFFIXES):
        return "=" not in argument
    return not job.arguments and shipped(argument) is not None


def _path_of(name: str) -> Path:
    """Return the path of a configuration.

    A name without a suffix names a shipped configuration. A user's file has priority over a shipped
    configuration of the same name.
    """
    if name.endswith(_CONFIG_SUFFIXES) and Path(name).is_file():
        return Path(name)
    return shipped(name) or Path(name)


def _with_section(job: Job, override: str) -> str:
    """Return an override with the name of the job's own section where the user left it out."""
    key = override.partition("=")[0]
    section = job.settings.model_fields[job.home].annotation if job.home else None
    if isinstance(section, type) and issubclass(section, Section) and key in section.model_fields:
        return f"{job.home}.{override}"
    return override
