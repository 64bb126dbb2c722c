"""The configurations in the package."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "configs"


def shipped_names() -> list[str]:
    """Return the names of all configurations in the package, sorted, without their suffix."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def shipped(name: str) -> Path | None:
    """Return the path of a configuration in the package, or None.

    Args:
        name: with or without its suffix, e.g. `demo` or `demo.yaml`.
    """
    file = f"{name.removesuffix('.yaml')}.yaml"
    return _FOLDER / file if Path(file).name == file and (_FOLDER / file).is_file() else None
