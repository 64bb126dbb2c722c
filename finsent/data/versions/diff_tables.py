"""Tables for the terminal from the difference between two dataset versions."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from finsent.data.rows.split import SPLITS
from finsent.data.versions.diff_records import (
    CountChange,
    ExamplePair,
    InputChanges,
    LabelChange,
    RowChanges,
    VersionDiff,
)
from finsent.labels import LABELS

_MAX_EXAMPLES = 3  # of each kind
_MAX_TEXT_CHARS = 200
_MAX_LINES = 10  # of a table whose length depends on the versions; the JSON result has all


def diff_tables(result: VersionDiff) -> list[Table]:
    """Return the tables of a difference, without those that have no lines."""
    names = [f"{side.dataset} {side.version}" for side in (result.a, result.b)]
    tables = [
        _warning_table(result.warnings),
        _count_table(result.counts, names),
        _row_table(result.rows),
        _transition_table(result.rows),
        _mix_table(result.labels),
        _input_table({"input": result.inputs, "exclude": result.exclude}),
        _config_table(result),
        _example_table(result.examples),
    ]
    return [table for table in tables if table.row_count]


def _table(title: str, *columns: str, text_columns: int = 1) -> Table:
    """Return a table whose first columns are texts, and the others numbers."""
    # Without padding, eight columns fit into a terminal of 80.
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=0)
    for index, name in enumerate(columns):
        is_text = index < text_columns
        table.add_column(Text(name), justify="left" if is_text else "right", overflow="fold")
    return table


def _add(table: Table, *cells: object) -> None:
    table.add_row(*(Text(str(cell)) for cell in cells))  # not markup: a name may hold brackets


def _fill(table: Table, lines: list[tuple[object, ...]]) -> Table:
    for line in lines[:_MAX_LINES]:
        _add(table, *line)
    if len(lines) > _MAX_LINES:
        _add(table, f"... and {len(lines) - _MAX_LINES} more")
    return table


def _warning_table(warnings: list[str]) -> Table:
    table = Table("WARNING", style="bold red")
    for warning in warnings:
        _add(table, warning)
    return table


def _count_table(counts: dict[str, CountChange], names: list[str]) -> Table:
    table = _table("rows", "", *names, "change")
    for name, count in counts.items():
        _add(table, name, count.a, count.b, f"{count.change:+d}")
    return table


def _row_table(rows: RowChanges) -> Table:
    table = _table("kept rows", "", "rows", *SPLITS, *LABELS)
    no_splits, no_labels = [""] * len(SPLITS), [""] * len(LABELS)
    _add(table, "unchanged", rows.unchanged, *no_splits, *no_labels)
    for kind, one_sided in (("added", rows.added), ("removed", rows.removed)):
        by_split = [sum(one_sided.by_split[split].values()) for split in SPLITS]
        by_label = [sum(one_sided.by_split[split][label] for split in SPLITS) for label in LABELS]
        _add(table, kind, one_sided.rows, *by_split, *by_label)
    in_split = [rows.relabeled.by_split[split] for split in SPLITS]
    _add(table, "relabeled", rows.relabeled.rows, *in_split, *no_labels)
    _add(table, "moved", rows.moved.rows, *no_splits, *no_labels)
    _add(table, "changed_source", rows.changed_source.rows, *no_splits, *no_labels)
    return table


def _transition_table(rows: RowChanges) -> Table:
    lines: list[tuple[object, ...]] = [
        (kind, change.old, change.new, change.rows)
        for kind, transitions in (
            ("moved", rows.moved),
            ("relabeled", rows.relabeled),
            ("changed_source", rows.changed_source),
        )
        for change in sorted(transitions.changes, key=lambda change: -change.rows)
    ]
    return _fill(_table("from -> to", "", "from", "to", "rows", text_columns=3), lines)


def _mix_table(labels: dict[str, dict[str, LabelChange]]) -> Table:
    table = _table("share of each label, and its change in points", "", *LABELS)
    for split, mix in labels.items():
        if any(change.shift for change in mix.values()):
            _add(
                table,
                split,
                *(f"{each.share_b:.1%} ({100 * each.shift:+.2f})" for each in mix.values()),
            )
    return table


def _input_table(kinds: dict[str, InputChanges]) -> Table:
    lines: list[tuple[object, ...]] = []
    for kind, inputs in kinds.items():
        lines += [(kind, "added", each.source, each.rows) for each in inputs.added]
        lines += [(kind, "removed", each.source, each.rows) for each in inputs.removed]
        lines += [
            (kind, "changed", each.source, f"{each.a.rows} -> {each.b.rows}")
            for each in inputs.changed
        ]
        lines += [(kind, "renamed", f"{each.old} -> {each.new}", "") for each in inputs.renamed]
    return _fill(_table("sources", "", "", "name", "rows", text_columns=3), lines)


def _config_table(result: VersionDiff) -> Table:
    table = _table("settings", "key", "from", "to", text_columns=3)
    for key, sides in result.config.items():
        _add(table, key, *(sides.get(side, "(absent)") for side in "ab"))
    return table


def _example_table(examples: dict[str, list[ExamplePair]]) -> Table:
    table = _table("examples", "", "row", "text", text_columns=3)
    for kind, pairs in examples.items():
        for pair in pairs[:_MAX_EXAMPLES]:
            rows = [row for row in (pair.a, pair.b) if row is not None]
            properties = (
                dict.fromkeys(row.split for row in rows),
                dict.fromkeys(row.label for row in rows),
                dict.fromkeys(row.source for row in rows),
            )
            text = rows[-1].text
            if len(text) > _MAX_TEXT_CHARS:
                text = f"{text[:_MAX_TEXT_CHARS]}…"
            _add(table, kind, ", ".join(" -> ".join(names) for names in properties), text)
    return table
