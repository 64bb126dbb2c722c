"""README and docs name existing files, jobs and settings.

tests/e2e/test_readme.py runs the commands of the bash blocks.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator
from functools import cache
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
PACKAGES = "benchmarks|cluster|finsent|ray_jobs|serve_app|tests|tune"
FILE = re.compile(r"(?<![\w./])(?:\w[\w-]*/)*\w[\w-]*\.(?:py|js|proto|ini)\b(?![.\w])")
DOTTED = re.compile(rf"(?<![\w./])(?:{PACKAGES})(?!\.md\b)(?:\.\w+)+(?!\w*/)")
NAMES_IN_FILE = re.compile(r"`([\w/]+\.(?:py|js))`: ((?:`[\w.]+`(?:, )?)+)")
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
PLACEHOLDERS = {"ray_jobs/NAME.py", "ray_jobs.JOB", "ray_jobs.NAME", "benchmarks.NAME"}
NOT_MODULES = {
    "finsent.v1",  # the package of the gRPC API
    "tune.Tuner.restore",  # Ray's tune
}


def pages() -> list[str]:
    """Return README, docs and the other pages of the site, named from the project's root."""
    docs = (path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("docs/**/*.md"))
    linked = (path for path in reference_pages.linked_files() if path.endswith(".md"))
    return sorted({*docs, *linked})


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
    is_package = (PROJECT / name.replace(".", "/") / "__main__.py").is_file()
    module = f"{name}.__main__" if is_package else name
    job = import_module(module).JOB if "." in name else job_named(name)
    return invoke(job, ["--print-config", *arguments])


def test_commands_name_jobs() -> None:
    named = {split_command(line)[0] for line in COMMANDS}
    folder = PROJECT / "benchmarks"
    names = {path.stem for path in folder.glob("*.py")}
    names |= {path.parent.name for path in folder.glob("*/__main__.py")}
    benchmarks = {f"benchmarks.{name}" for name in names}
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
    expected_code = 2 if line.endswith("test $? -eq 2") else 0
    assert finished.code == expected_code, f"{page}: {line}\n{finished.err}"


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


# --- files, modules and names -------------------------------------------------------------------


def find_file(page: str, path: str) -> Path | None:
    """Return the file that a page names from the root, from tests/ or from the page's folder.

    A path without a folder may be anywhere below the page's folder or below tests/.
    """
    page_folder = (PROJECT / page).parent
    folders = (PROJECT, PROJECT / "tests", page_folder)
    direct = (folder / path for folder in folders)
    anywhere = () if "/" in path else (*page_folder.rglob(path), *(PROJECT / "tests").rglob(path))
    return next((file for file in (*direct, *anywhere) if file.is_file()), None)


@cache
def defined_names(file: Path) -> set[str]:
    """Return the names that a module defines or imports, with the methods of its classes."""
    if file.suffix == ".js":
        return set(
            re.findall(r"^(?:export )?(?:async )?(?:function|const) (\w+)", read(file), re.M)
        )
    names = set()
    for node in ast.parse(read(file)).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names.update((alias.asname or alias.name) for alias in node.names)
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(target.id for target in targets if isinstance(target, ast.Name))
        if isinstance(node, ast.ClassDef):
            methods = (member.name for member in node.body if hasattr(member, "name"))
            names.update(f"{node.name}.{method}" for method in methods)
    return names


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def is_defined(dotted: str) -> bool:
    """Return whether a dotted name is a package, a module, or a name in one of them."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path, name = PROJECT.joinpath(*parts[:count]), ".".join(parts[count:])
        if path.is_dir() and not name:
            return True
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return not name or name in defined_names(file)
    return False


@pytest.mark.parametrize("page", pages())
def test_named_files_exist(page: str) -> None:
    unlinked = re.sub(r"\[[^\]]*\]\([^)]*\)", "", read_page(page))
    named = {*FILE.findall(unlinked)} - PLACEHOLDERS
    assert not [path for path in sorted(named) if find_file(page, path) is None]


@pytest.mark.parametrize("page", pages())
def test_named_modules_exist(page: str) -> None:
    dotted = {*DOTTED.findall(read_page(page))} - PLACEHOLDERS - NOT_MODULES
    assert not [name for name in sorted(dotted) if not is_defined(name)]


def test_modules_in_tables_exist() -> None:
    """The column `module` of a table names modules below the page's folder."""
    modules = {*modules_in_tables()}
    assert len(modules) > 100
    folders = ((page, module, (PROJECT / page).parent) for page, module in sorted(modules))
    assert not [
        (page, module)
        for page, module, folder in folders
        if not [*folder.rglob(f"{module}.py"), *folder.rglob(f"{module}/__init__.py")]
    ]


def modules_in_tables() -> Iterator[tuple[str, str]]:
    """Yield each page and module of the tables."""
    for page in pages():
        column = None
        for line in read_page(page).splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) < 3:
                column = None
            elif "module" in cells:
                column = cells.index("module")
            elif column:
                names = re.findall(r"`([a-z_]+)(?:\.py)?`", cells[column])
                yield from ((page, name) for name in names)


def test_names_in_files_and_tests_exist() -> None:
    named = {
        (page, path, name)
        for page in pages()
        for path, names in NAMES_IN_FILE.findall(read_page(page)) + TEST.findall(read_page(page))
        for name in re.findall(r"[\w.]+", names)
    }
    assert len(named) > 40
    missing = [
        (page, path, name)
        for page, path, name in sorted(named)
        if (file := find_file(page, path)) is None or name not in known_names(file)
    ]
    assert not missing


def known_names(file: Path) -> set[str]:
    """Return the defined names of a module, and its upper-case strings: environment variables."""
    return defined_names(file) | {*re.findall(r'"([A-Z_]+)"', read(file))}
