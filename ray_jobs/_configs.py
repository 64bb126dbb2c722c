"""The configurations that ship with finsent."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "configs"


def shipped(name: str) -> Path | None:
    """Return the path of a shipped configuration, or None.

    Args:
        name: with or without its suffix, e.g. `demo` or `demo.yaml`.
    """
    file = f"{name.removesuffix('.yaml')}.yaml"
    return FOLDER / file if Path(file).name == file and (FOLDER / file).is_file() else None
