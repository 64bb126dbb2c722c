"""README and docs name existing files, jobs and settings.

tests/e2e/test_readme.py runs the commands of the bash blocks.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from docs import pages as reference_pages
from finsent.config import help_lines
from ray_jobs.__main__ import job_names
from ray_jobs._cli import Finished, invoke
from ray_jobs._settings import JobSettings
from tests.commands import PROJECT, job_named
from tests.readme import PAGES, README, block_lines, read_page

pytestmark = pytest.mark.unit

RUN_BY_THEIR_OWN_TEST = {"docs/dvc.md"}  # tests/e2e/test_dvc.py
MADE_BY_READERS = {"artifacts/runs/first-sweep/best.yaml", "configs/news.yaml"}
NOT_SETTINGS = {"data.text"}  # a nested key of JSON
SUFFIXES = (".yaml", ".py", ".safetensors", ".html", ".json")
MODULES = r"python -m ray_jobs\.|python -m (?=benchmarks\.[a-z])"
# `finsent completion` is no job; tests/unit/test_completion.py holds its page.
COMMAND = re.compile(rf"\b(?:finsent (?!completion)|{MODULES})([a-z_.]+)(.*)")
INLINE = re.compile(rf"`((?:finsent [a-z]|{MODULES})[^`]*)`")


def pages() -> list[str]:
    """Return README, docs and the other pages of the site, named from the project's root."""
    found = (path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("docs/**/*.md"))
    linked = (path for path in reference_pages.linked_files() if path.endswith(".md"))
    return sorted({*found, *linked})


def documented() -> Iterator[tuple[str, str]]:
    """Yield each command and its page: of the code blocks, and of inline code."""
    for page in pages():
        text = read_page(page)
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        lines = block_lines(text, "sh") + block_lines(text, "bash") + INLINE.findall(prose)
        yield from ((line, page) for line in lines if COMMAND.search(line))


COMMANDS = dict(documented())
WITH_ARGUMENTS = sorted(line for line in COMMANDS if " " in line.removeprefix("finsent "))


def split_command(line: str) -> tuple[str, list[str]]:
    """Return a command's job or benchmark, and its arguments."""
    match = COMMAND.search(line)
    assert match is not None
    return match[1], shlex.split(match[2].split(" || ")[0])


def print_config(name: str, arguments: list[str]) -> Finished:
    """Parse a command line and validate its settings, without running the job."""
    job = import_module(name).JOB if "." in name else job_named(name)
    return invoke(job, ["--print-config", *arguments])


def test_commands_name_jobs() -> None:
    named = {split_command(line)[0] for line in COMMANDS}
    benchmarks = {f"benchmarks.{path.stem}" for path in (PROJECT / "benchmarks").glob("*.py")}
    assert {*job_names()} <= named <= {*job_names()} | benchmarks


@pytest.mark.parametrize("line", WITH_ARGUMENTS)
def test_command_line_is_understood(line: str, project: Path) -> None:
    name, arguments = split_command(line)
    page = COMMANDS[line]
    if "news.yaml" in arguments:
        [config] = re.findall(r"^```yaml\n(.*?)^```", read_page(page), flags=re.M | re.S)
        (project / "news.yaml").write_text(config, encoding="utf-8")
    arguments = [argument for argument in arguments if argument not in MADE_BY_READERS]
    finished = print_config(name, arguments)
    wanted = 2 if line.endswith("test $? -eq 2") else 0
    assert finished.code == wanted, f"{page}: {line}\n{finished.err}"


def test_every_page_with_commands_is_run() -> None:
    with_commands = {page for page in pages() if block_lines(read_page(page), "bash")}
    assert with_commands <= {*PAGES} | RUN_BY_THEIR_OWN_TEST


def test_settings_named_in_docs_exist() -> None:
    keys = set(reference_pages.setting_keys())
    groups = {key[: match.start()] for key in keys for match in re.finditer(r"\.", key)}
    sections = "|".join(JobSettings.model_fields)
    named = re.compile(rf"`((?:{sections})(?:\.[a-z_]+)+)(?=[=`: ])")
    unknown = {
        (page, key)
        for page in pages()
        for key in named.findall(read_page(page))
        if key not in keys | groups and key not in NOT_SETTINGS and not key.endswith(SUFFIXES)
    }
    assert not unknown


def test_reference_has_every_setting() -> None:
    reference = reference_pages.settings_reference()
    lines = [
        line for line in help_lines(JobSettings, tuple(JobSettings.model_fields)) if line[2] != " "
    ]
    assert len(lines) > 200
    for line in lines:
        key = line.strip().partition("=")[0]
        assert f"| `{key}` |" in reference, key


@pytest.mark.parametrize("page", pages())
def test_links_lead_to_files(page: str) -> None:
    for target in reference_pages.relative_links(read_page(page)):
        path = (PROJECT / page).parent / target.partition("#")[0]
        assert path.exists(), f"{page}: {target}"
        # On GitHub a path through a symbolic link is dead.
        assert path.resolve() == Path(os.path.normpath(path)), f"{page}: {target}"


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200
