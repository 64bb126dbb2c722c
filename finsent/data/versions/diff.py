"""Compare two dataset versions: rows, counts, inputs and settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from finsent.data.readers.json_values import is_json_object
from finsent.data.rows.split import SPLITS
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.diff_records import (
    ChangedInput,
    CountChange,
    InputChanges,
    InputVersion,
    LabelChange,
    RenamedInput,
    RowChanges,
    VersionDiff,
    VersionIdentity,
)
from finsent.data.versions.manifest import ExcludedSource, InputSource
from finsent.data.versions.row_changes import find_row_changes
from finsent.labels import LABELS
from finsent.records import JsonObject

_SPLIT_SETTINGS = ("salt", "split.", "near_duplicates.")  # decide the split of a row


def diff(a: DatasetVersion, b: DatasetVersion, examples: int = 5) -> VersionDiff:
    """Compare two versions; `diff(b, a)` is the mirror image.

    Args:
        examples: rows to return of each kind of change, those with the smallest keys.

    Raises:
        InputError: a file of a split was not written by ingest.
    """
    rows, example_pairs = find_row_changes(a, b, examples)
    config = _diff_settings(a.manifest.config, b.manifest.config)
    counts_a, counts_b = a.manifest.counts.model_dump(), b.manifest.counts.model_dump()
    return VersionDiff(
        a=_identify(a),
        b=_identify(b),
        identical=rows.unchanged == rows.a == rows.b,
        warnings=_warn_of_moves(rows, config),
        rows=rows,
        labels=_diff_label_mixes(a, b),
        counts={name: _change(count, counts_b[name]) for name, count in counts_a.items()},
        inputs=_diff_inputs(a.manifest.inputs, b.manifest.inputs),
        exclude=_diff_inputs(a.manifest.exclude, b.manifest.exclude),
        config=config,
        examples=example_pairs,
    )


def _identify(version: DatasetVersion) -> VersionIdentity:
    manifest = version.manifest
    return VersionIdentity(
        dataset=manifest.name,
        version=manifest.version,
        created=manifest.created,
        dir=str(version.path),
    )


def _change(a: int, b: int) -> CountChange:
    return CountChange(a=a, b=b, change=b - a)


def _diff_label_mixes(a: DatasetVersion, b: DatasetVersion) -> dict[str, dict[str, LabelChange]]:
    """Compare rows and shares of each label, over all splits and in each."""
    return {
        name: _diff_label_mix(*(_count_labels(version, splits) for version in (a, b)))
        for name, splits in {"all": SPLITS, **{split: (split,) for split in SPLITS}}.items()
    }


def _count_labels(version: DatasetVersion, splits: Sequence[str]) -> dict[str, int]:
    return {
        label: sum(version.manifest.splits[split].labels[label] for split in splits)
        for label in LABELS
    }


def _diff_label_mix(a: dict[str, int], b: dict[str, int]) -> dict[str, LabelChange]:
    total_a, total_b = max(sum(a.values()), 1), max(sum(b.values()), 1)
    changes = {}
    for label in LABELS:
        share_a, share_b = round(a[label] / total_a, 6), round(b[label] / total_b, 6)
        changes[label] = LabelChange(
            a=a[label],
            b=b[label],
            change=b[label] - a[label],
            share_a=share_a,
            share_b=share_b,
            shift=round(share_b - share_a, 6),
        )
    return changes


def _diff_inputs(
    a: Sequence[InputSource | ExcludedSource], b: Sequence[InputSource | ExcludedSource]
) -> InputChanges:
    """Match sources by name; of the others, those with the same bytes are `renamed`."""
    inputs_a, inputs_b = (
        {
            each.source: InputVersion(
                source=each.source, sha256=each.sha256, bytes=each.bytes, rows=each.rows
            )
            for each in inputs
        }
        for inputs in (a, b)
    )
    removed = {name: each for name, each in sorted(inputs_a.items()) if name not in inputs_b}
    added = {name: each for name, each in sorted(inputs_b.items()) if name not in inputs_a}
    renamed = []
    for old_name, old in list(removed.items()):
        new_name = next((name for name, new in added.items() if new.sha256 == old.sha256), None)
        if new_name is not None:
            renamed.append(RenamedInput(old=old_name, new=new_name, sha256=old.sha256))
            del removed[old_name], added[new_name]
    common = sorted(inputs_a.keys() & inputs_b.keys())
    changed = [name for name in common if inputs_a[name].sha256 != inputs_b[name].sha256]
    return InputChanges(
        unchanged=len(common) - len(changed),
        added=list(added.values()),
        removed=list(removed.values()),
        changed=[ChangedInput(source=name, a=inputs_a[name], b=inputs_b[name]) for name in changed],
        renamed=renamed,
    )


def _diff_settings(a: JsonObject, b: JsonObject) -> dict[str, JsonObject]:
    """Return the settings that differ, by dotted key; a side that lacks a key is left out."""
    flat = {"a": dict(_flatten(a)), "b": dict(_flatten(b))}
    differences = {}
    for key in sorted({*flat["a"], *flat["b"]}):
        sides = {side: values[key] for side, values in flat.items() if key in values}
        if len(sides) < 2 or sides["a"] != sides["b"]:
            differences[key] = sides
    return differences


def _flatten(value: JsonValue, key: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Yield settings by dotted key; the items of a list of sources by their URIs."""
    if is_json_object(value) and value:
        for name, item in value.items():
            yield from _flatten(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value and all(map(is_json_object, value)):
        sources = [item for item in value if is_json_object(item)]
        uris = [str(source.get("uri", index)) for index, source in enumerate(sources)]
        for index, (uri, item) in enumerate(zip(uris, sources, strict=True)):
            name = uri if uris.count(uri) == 1 else f"{uri}#{uris[:index].count(uri)}"
            yield from _flatten(item, f"{key}[{name}]")
    else:
        yield key, value


def _warn_of_moves(rows: RowChanges, config: Mapping[str, JsonObject]) -> list[str]:
    moved = rows.moved
    if not moved.rows:
        return []
    moves = ", ".join(f"{each.rows} {each.old} -> {each.new}" for each in moved.changes)
    causes = [key for key in config if key.startswith(_SPLIT_SETTINGS)]
    cause = f"these settings differ: {', '.join(causes)}" if causes else "no setting explains it"
    return [
        f"{moved.rows} row(s) MOVED BETWEEN SPLITS ({moves}); {cause}. A model trained on one "
        "version may have seen test rows of the other. Do not compare their scores."
    ]
