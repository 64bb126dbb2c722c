"""What changed between two dataset versions: rows, counts, inputs and settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from finsent.data.rows.split import SPLITS
from finsent.data.versions.changes import row_changes
from finsent.data.versions.dataset import DatasetVersion
from finsent.labels import LABELS


def diff(a: DatasetVersion, b: DatasetVersion, examples: int = 5) -> dict[str, Any]:
    """Compare two versions; `diff(b, a)` is its mirror image.

    Args:
        a: the version to start from.
        b: the version to arrive at.
        examples: rows to show of each kind, those with the smallest keys.

    Returns:
        `a`, `b`: what the versions are. `identical`: whether rows and their labels, splits and
        sources are the same. `warnings`: lines for people. `rows`: how many are `unchanged`,
        `added`, `removed` (by split and label), `relabeled` (from -> to, and by split), `moved`
        between splits, or have `changed_source`; the last three may overlap. `labels`: rows and
        shares by split and label. `counts`, `inputs`, `exclude`, `config` (dotted keys): what the
        manifests say differently. `examples`: rows by kind, as they
        are in `a` and in `b` (None: not there).

    Raises:
        InputError: a split's file is not one of ours.
    """
    rows, shown = row_changes(a, b, examples)
    config = _config(a.manifest.get("config", {}), b.manifest.get("config", {}))
    counts_a, counts_b = a.manifest["counts"], b.manifest["counts"]
    return {
        "a": _identity(a),
        "b": _identity(b),
        "identical": rows["unchanged"] == rows["a"] == rows["b"],
        "warnings": _warnings(rows, config),
        "rows": rows,
        "labels": _label_mix(a, b),
        "counts": {
            name: _change(counts_a.get(name, 0), counts_b.get(name, 0))
            for name in {**counts_a, **counts_b}
        },
        "inputs": _inputs(a.manifest["inputs"], b.manifest["inputs"]),
        "exclude": _inputs(a.manifest.get("exclude", []), b.manifest.get("exclude", [])),
        "config": config,
        "examples": shown,
    }


# --- manifests ----------------------------------------------------------------------------------


def _identity(version: DatasetVersion) -> dict[str, Any]:
    manifest = version.manifest
    return {
        "dataset": manifest["name"],
        "version": version.version,
        "created": manifest.get("created"),
        "dir": str(version.path),
    }


def _change(a: int, b: int) -> dict[str, int]:
    return {"a": a, "b": b, "change": b - a}


def _label_mix(a: DatasetVersion, b: DatasetVersion) -> dict[str, Any]:
    """Rows and shares by split (and over all) and label; `shift` is the change of the share."""
    mixes: dict[str, Any] = {}
    for name in ("all", *SPLITS):
        splits = SPLITS if name == "all" else (name,)
        counts = [
            {x: sum(v.manifest["splits"][s]["labels"].get(x, 0) for s in splits) for x in LABELS}
            for v in (a, b)
        ]
        totals = [max(sum(count.values()), 1) for count in counts]
        mixes[name] = {}
        for label in LABELS:
            in_a, in_b = (count[label] for count in counts)
            shares = (round(in_a / totals[0], 6), round(in_b / totals[1], 6))
            mixes[name][label] = {
                **_change(in_a, in_b),
                "share_a": shares[0],
                "share_b": shares[1],
                "shift": round(shares[1] - shares[0], 6),
            }
    return mixes


def _inputs(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> dict[str, Any]:
    """Sources by name: `changed` have other bytes; `renamed` have the same ones."""
    in_a, in_b = ({one["source"]: one for one in inputs} for inputs in (a, b))
    removed = {name: one["sha256"] for name, one in sorted(in_a.items()) if name not in in_b}
    added = {name: one["sha256"] for name, one in sorted(in_b.items()) if name not in in_a}
    renamed = []
    for old, sha256 in list(removed.items()):
        new = next((name for name, other in added.items() if other == sha256), None)
        if new is not None:
            renamed.append({"from": old, "to": new, "sha256": sha256})
            del removed[old], added[new]
    both = sorted(in_a.keys() & in_b.keys())
    changed = [name for name in both if in_a[name]["sha256"] != in_b[name]["sha256"]]
    return {
        "unchanged": len(both) - len(changed),
        "added": [_input(in_b[name]) for name in added],
        "removed": [_input(in_a[name]) for name in removed],
        "changed": [
            {"source": name, "a": _input(in_a[name]), "b": _input(in_b[name])} for name in changed
        ],
        "renamed": renamed,
    }


def _input(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry.get(name) for name in ("source", "sha256", "bytes", "rows")}


def _config(a: dict[str, Any], b: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings that differ, by dotted key; a side that lacks a key is left out of its entry."""
    flat = dict(_flat(a)), dict(_flat(b))
    return {
        key: {side: values[key] for side, values in zip("ab", flat, strict=True) if key in values}
        for key in sorted({*flat[0], *flat[1]})
        if not (key in flat[0] and key in flat[1] and flat[0][key] == flat[1][key])
    }


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value and all(isinstance(i, dict) for i in value):
        uris = [str(item.get("uri", place)) for place, item in enumerate(value)]
        for place, (uri, item) in enumerate(zip(uris, value, strict=True)):
            named = uri if uris.count(uri) == 1 else f"{uri}#{uris[:place].count(uri)}"
            yield from _flat(item, f"{key}[{named}]")
    else:
        yield key, value


def _warnings(rows: dict[str, Any], config: dict[str, Any]) -> list[str]:
    moved = rows["moved"]
    if not moved["rows"]:
        return []
    listed = ", ".join(f"{c['rows']} {c['from']} -> {c['to']}" for c in moved["changes"])
    causes = [k for k in config if k.startswith(("salt", "split.", "near_duplicates."))]
    why = f"these settings differ: {', '.join(causes)}" if causes else "no setting explains it"
    return [
        f"{moved['rows']} row(s) MOVED BETWEEN SPLITS ({listed}); {why}. A model trained on one "
        "version may have seen test rows of the other: do not compare their scores"
    ]


# --- for people ---------------------------------------------------------------------------------

_EXAMPLES = 3  # of each kind
_LONGEST = 200  # characters of a text
_LISTED = 10  # lines of a table without a fixed length; the result has them all


def diff_tables(result: dict[str, Any]) -> list[Table]:
    """What `diff` found, for people; tables without a line are left out."""
    names = [f"{result[side]['dataset']} {result[side]['version']}" for side in "ab"]
    tables = [
        _warning_table(result["warnings"]),
        _count_table(result["counts"], names),
        _row_table(result["rows"]),
        _change_table(result["rows"]),
        _mix_table(result["labels"]),
        _input_table({"input": result["inputs"], "exclude": result["exclude"]}),
        _config_table(result["config"]),
        _example_table(result["examples"]),
    ]
    return [table for table in tables if table.row_count]


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A table whose first columns are words, and the others numbers."""
    # Narrow: eight columns fit into a terminal of 80.
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=0)
    for place, name in enumerate(columns):
        table.add_column(Text(name), justify="left" if place < left else "right", overflow="fold")
    return table


def _add(table: Table, *cells: object) -> None:
    table.add_row(*(Text(str(cell)) for cell in cells))  # not markup: a name may hold brackets


def _cut(table: Table, rows: list[tuple[object, ...]]) -> Table:
    for row in rows[:_LISTED]:
        _add(table, *row)
    if len(rows) > _LISTED:
        _add(table, f"... and {len(rows) - _LISTED} more")
    return table


def _warning_table(warnings: list[str]) -> Table:
    table = Table("WARNING", style="bold red")
    for line in warnings:
        _add(table, line)
    return table


def _count_table(counts: dict[str, Any], names: list[str]) -> Table:
    table = _table("rows", "", *names, "change")
    for name, found in counts.items():
        _add(table, name, found["a"], found["b"], f"{found['change']:+d}")
    return table


def _row_table(rows: dict[str, Any]) -> Table:
    table = _table("kept rows", "", "rows", *SPLITS, *LABELS)
    _add(table, "unchanged", rows["unchanged"], *[""] * (len(SPLITS) + len(LABELS)))
    for kind in ("added", "removed"):
        found = rows[kind]["by_split"]
        by_split = [sum(found[split].values()) for split in SPLITS]
        by_label = [sum(found[split][label] for split in SPLITS) for label in LABELS]
        _add(table, kind, rows[kind]["rows"], *by_split, *by_label)
    relabeled = rows["relabeled"]
    in_split = [relabeled["by_split"][split] for split in SPLITS]
    _add(table, "relabeled", relabeled["rows"], *in_split, *[""] * len(LABELS))
    for kind in ("moved", "changed_source"):
        _add(table, kind, rows[kind]["rows"], *[""] * (len(SPLITS) + len(LABELS)))
    return table


def _change_table(rows: dict[str, Any]) -> Table:
    found: list[tuple[object, ...]] = [
        (kind, change["from"], change["to"], change["rows"])
        for kind in ("moved", "relabeled", "changed_source")
        for change in sorted(rows[kind]["changes"], key=lambda change: -change["rows"])
    ]
    return _cut(_table("from -> to", "", "from", "to", "rows", left=3), found)


def _mix_table(labels: dict[str, Any]) -> Table:
    table = _table("share of each label, and its change in points", "", *LABELS)
    for split, mix in labels.items():
        shares = [(one["share_b"], one["shift"]) for one in mix.values()]
        if any(shift for _, shift in shares):
            _add(table, split, *(f"{share:.1%} ({100 * shift:+.2f})" for share, shift in shares))
    return table


def _input_table(kinds: dict[str, Any]) -> Table:
    found: list[tuple[object, ...]] = []
    for kind, inputs in kinds.items():
        for change in ("added", "removed"):
            found += [(kind, change, one["source"], one["rows"]) for one in inputs[change]]
        for one in inputs["changed"]:
            found.append(
                (kind, "changed", one["source"], f"{one['a']['rows']} -> {one['b']['rows']}")
            )
        for one in inputs["renamed"]:
            found.append((kind, "renamed", f"{one['from']} -> {one['to']}", ""))
    return _cut(_table("sources", "", "", "name", "rows", left=3), found)


def _config_table(config: dict[str, Any]) -> Table:
    table = _table("settings", "key", "from", "to", left=3)
    for key, sides in config.items():
        _add(table, key, *(sides.get(side, "(absent)") for side in "ab"))
    return table


def _example_table(examples: dict[str, list[dict[str, Any]]]) -> Table:
    table = _table("examples", "", "row", "text", left=3)
    for kind, rows in examples.items():
        for row in rows[:_EXAMPLES]:
            sides = [side for side in (row["a"], row["b"]) if side is not None]
            seen = [
                dict.fromkeys(side[name] for side in sides) for name in ("split", "label", "source")
            ]
            text = sides[-1]["text"]
            shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
            _add(table, kind, ", ".join(" -> ".join(names) for names in seen), shown)
    return table
