"""Pictures of reports, as PNG files in one style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

# From the palette of Okabe and Ito, which color-blind people can distinguish (https://jfly.uni-koeln.de/color).
COLORS = {"negative": "#D55E00", "neutral": "#999999", "positive": "#0072B2"}

T = TypeVar("T")
Draw = Callable[[Any, T], None]  # draws a value on matplotlib axes


def draw_all(pictures: Mapping[str, Draw[T]], value: T, folder: Path) -> dict[str, Path]:
    """Write every picture as `NAME.png`, and return the files by name in the same order."""
    folder.mkdir(exist_ok=True)
    files = {name: folder / f"{name}.png" for name in pictures}
    for name, draw in pictures.items():
        save(draw, value, files[name])
    return files


def save(draw: Draw[T], value: T, path: Path) -> None:
    """Draw one picture and write it as PNG, 7.2 x 3 inches unless `draw` resizes the figure."""
    # 0.7 s of imports, which jobs without a report do not need.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}):  # a file name may hold a $
        figure = Figure(figsize=(7.2, 3.0), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, value)
        figure.savefig(path, dpi=150, metadata={"Software": None})
