"""Tab completion: `finsent completion SHELL` prints a script, which asks for the candidates."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ray_jobs._configs import shipped_names

COMMAND = "completion"
_CANDIDATES = "candidates"  # the scripts run `finsent completion candidates WORD ...`
_PACKAGE = Path(__file__).parent
_SHELLS = ("bash", "fish", "zsh")  # with a script completions/finsent.SHELL
USAGE = f"finsent {COMMAND} {'|'.join(_SHELLS)}"


def completion(arguments: Sequence[str], jobs: Sequence[str]) -> str | None:
    """Return the script for a shell, or the candidates for a line; None: wrong arguments.

    Args:
        jobs: the names of all jobs.
    """
    if arguments and arguments[0] == _CANDIDATES:
        return "\n".join(candidates(arguments[1:], jobs))
    if len(arguments) == 1 and arguments[0] in _SHELLS:
        script = _PACKAGE / "completions" / f"finsent.{arguments[0]}"
        return script.read_text(encoding="utf-8").rstrip("\n")
    return None


def candidates(words: Sequence[str], jobs: Sequence[str]) -> list[str]:
    """Return what the last word of a line may become.

    Args:
        words: of the line, without `finsent`.
    """
    *earlier, word = words or [""]
    if not earlier:
        names = list(jobs)
    elif earlier == [COMMAND]:
        names = list(_SHELLS)
    elif earlier[0] not in jobs:
        names = []
    else:
        names = _job_candidates(earlier[0], word)
    return [name for name in names if name.startswith(word)]


def _job_candidates(name: str, word: str) -> list[str]:
    declared = declaration(name)
    # A job with arguments takes a bare name for one of them.
    suffix = ".yaml" if declared.arguments else ""
    names = [f"{config}{suffix}" for config in shipped_names()]
    if word.startswith("-"):
        return ["--help", "--print-config", *declared.flags]
    from finsent.config.completion import complete_setting  # pydantic: 0.2 s; names do without
    from ray_jobs._settings import JobSettings

    return names + complete_setting(JobSettings, declared.sections, declared.home, word)


@dataclass(frozen=True)
class Declaration:
    """What completion reads of a job's `JOB = Job(...)`; each keyword is a literal."""

    sections: tuple[str, ...]
    home: str = ""
    arguments: str | None = ""  # None: no literal, and so not empty
    flags: Mapping[str, str] = field(default_factory=dict)


def declaration(name: str) -> Declaration:
    """Return the declaration of a job.

    The source is read: importing a job costs up to 0.9 s, which is too long for a key press.
    """
    tree = ast.parse((_PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    [call] = [
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Call)
        and ast.unparse(statement.targets[0]) == "JOB"
    ]
    known = {declared.name for declared in fields(Declaration)}
    return Declaration(
        **{each.arg: _literal(each.value) for each in call.keywords if each.arg in known}
    )


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
