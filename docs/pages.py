"""Hooks of MkDocs: add the list of settings, and pages outside docs/.

`mkdocs.yml` loads this module. Links between pages are paths of the repository, so that they also
work on GitHub. A linked file outside docs/ becomes a file of the site.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsent.config import help_lines
from ray_jobs.__main__ import job_names
from ray_jobs._settings import JobSettings

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

PROJECT = Path(__file__).resolve().parents[1]
HOME = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
SETTINGS_MARK = "<!-- settings -->"
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
_LOADED = re.compile(
    r"<(?:(?:script|img|iframe) [^>]*src|link rel=.?stylesheet[^>]*href)=.?https?:[^>]*>"
)
_CODE = re.compile(r"^```.*?^```|`[^`\n]+`", flags=re.M | re.S)


# --- links between files of the repository ------------------------------------------------------


def relative_links(text: str) -> list[str]:
    """Return the targets of a page's links, except addresses and mere anchors."""
    targets = _LINK.findall(_CODE.sub("", text))
    return [target for target in targets if not re.match(r"[a-z]+:|#", target)]


def site_path(path: str) -> str:
    """Return the path in the site of a file, which is named from the project's root."""
    if path in HOME:
        return HOME[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}"


def linked_files() -> dict[str, str]:
    """Return the files outside docs/ that the site has: path in the site by path in the project."""
    pages = [path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("docs/**/*.md")]
    pages += HOME
    seen: set[str] = set()
    while pages:
        page = pages.pop()
        if page in seen:
            continue
        seen.add(page)
        if page.endswith(".md"):
            text = (PROJECT / page).read_text(encoding="utf-8")
            pages += [_in_project(page, target) for target in relative_links(text)]
    return {path: site_path(path) for path in sorted(seen) if not path.startswith("docs/")}


def rewrite_links(text: str, page: str) -> str:
    """Return a page's text with links that work in the site.

    Args:
        text: Markdown.
        page: path of the page, from the project's root.
    """

    def rewritten(match: re.Match[str]) -> str:
        if re.match(r"[a-z]+:|#", match[1]):
            return match[1]
        anchor = match[1].partition("#")[2]
        target = site_path(_in_project(page, match[1]))
        link = posixpath.relpath(target, posixpath.dirname(site_path(page)) or ".")
        return f"{link}#{anchor}" if anchor else link

    # Code is not rewritten.
    parts = re.split(rf"({_CODE.pattern})", text, flags=re.M | re.S)
    return "".join(
        fragment if i % 2 else _LINK.sub(rewritten, fragment) for i, fragment in enumerate(parts)
    )


def _in_project(page: str, target: str) -> str:
    path = (PROJECT / page).parent / target.partition("#")[0]
    path = path / "README.md" if path.is_dir() else path
    return Path(os.path.normpath(path)).relative_to(PROJECT).as_posix()


# --- the list of settings -----------------------------------------------------------------------


def setting_keys() -> Iterator[str]:
    """Yield every key that a config may have, e.g. `train.epochs`."""
    return (key for key, *_ in _settings(tuple(JobSettings.model_fields)))


def settings_reference() -> str:
    """Return one table per section of the settings, in Markdown."""
    return "\n\n".join(_section(name) for name in JobSettings.model_fields)


def _section(name: str) -> str:
    """Return the heading, the jobs and the table of a section of settings."""
    jobs = [f"`{job}`" for job in job_names() if name in _job_sections(job)]
    purpose = JobSettings.model_fields[name].description or name
    rows = [
        f"| `{key}` | {_text(kind.replace('|', ' | '))} | {_code(default)} | {_text(meaning)} |"
        for key, kind, default, meaning in _settings((name,))
    ]
    head = "| setting | type | default | meaning |\n|---|---|---|---|"
    return "\n".join(
        [
            f"### {name}",
            "",
            f"{purpose[0].upper()}{purpose[1:]}. Jobs: {', '.join(jobs)}.",
            "",
            head,
            *rows,
        ]
    )


def _settings(sections: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type, default and meaning of each setting, as `--help` prints them."""
    lines = help_lines(JobSettings, sections)
    for line, described in zip(lines, lines, strict=True):
        key, _, default = line.strip().partition("=")
        kind, _, meaning = described.strip().partition(". ")
        yield key, kind, default, meaning


def _job_sections(job: str) -> tuple[str, ...]:
    sections: tuple[str, ...] = import_module(f"ray_jobs.{job}").JOB.sections
    return sections


def _text(text: str) -> str:
    """Return text for a cell of a table, in which only backticks are markup."""
    return re.sub(r"([*_<|\[])", r"\\\1", text)


def _code(text: str) -> str:
    escaped = text.replace("|", "\\|")
    return f"`{escaped}`" if text else "required"


# --- hooks of MkDocs ----------------------------------------------------------------------------


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/ that pages link to."""
    from mkdocs.structure.files import File

    for path, target in linked_files().items():
        files.append(File.generated(config, target, abs_src_path=str(PROJECT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Rewrite links, and fill in the list of settings."""
    path = Path(page.file.abs_src_path).relative_to(PROJECT).as_posix()
    return rewrite_links(markdown, path).replace(SETTINGS_MARK, settings_reference())


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Refuse a page that loads files from other servers.

    Raises:
        PluginError: the page has a script, style or picture of another server.
    """
    from mkdocs.exceptions import PluginError

    if element := _LOADED.search(output):
        raise PluginError(f"{page.file.src_uri}: {element[0]} loads from another server")
    return output
