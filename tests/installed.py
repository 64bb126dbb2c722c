"""Virtual environments with the distributions of an extra alone, as links to those of this one."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement


def distributions(requirements: Iterable[Requirement]) -> set[str]:
    """Return the names of all distributions that requirements need, as they are installed here."""
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(item.name, extra) for item in requirements for extra in ("", *item.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        names.add(name)
        for item in map(Requirement, importlib.metadata.requires(name) or ()):
            if item.marker is None or item.marker.evaluate({"extra": extra}):
                waiting += [(item.name, each) for each in ("", *item.extras)]
    return names


def linked_venv(directory: Path, names: Iterable[str]) -> Path:
    """Create a virtual environment with these distributions, and return its interpreter.

    Modules are linked, so no package is copied. A namespace package brings all its parts.
    """
    command = [sys.executable, "-m", "venv", "--without-pip", str(directory)]
    subprocess.run(command, check=True, timeout=120)
    site = next((directory / "lib").glob("python*/site-packages"))
    installed = Path(sysconfig.get_path("purelib"))
    for name in names:
        files = importlib.metadata.files(name) or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(installed / top)
    return directory / "bin" / "python"
