"""The table of a model's exports for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from finsent.inference.export_record import Export


def export_table(exports: Sequence[Export]) -> Table:
    """Return a table with one row per export: its size, and how it compares with the model."""
    table = Table("export", "MB", "same labels", "macro-F1", "largest difference", "")
    for export in exports:
        table.add_row(
            export.name,
            f"{export.bytes / 1e6:.0f}",
            f"{export.same_labels:.1%}",
            f"{export.macro_f1:.4f}",
            f"{export.max_difference:.1e}",
            export.refused or "kept",
        )
    return table
