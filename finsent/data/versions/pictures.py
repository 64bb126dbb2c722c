"""Pictures of a dataset version, from its manifest alone."""

from __future__ import annotations

from typing import Any

from finsent.data.versions.manifest import Manifest, RowsByLabel
from finsent.labels import LABELS
from finsent.reports.pictures import COLORS, Draw

_FATE_COLORS = {
    "kept": "#009E73",
    "duplicates": "#56B4E9",
    "conflicts": "#E69F00",
    "rejected": "#CC79A7",
    "excluded": "#666666",
}
_MAX_SOURCES = 12
_MAX_REASONS = 10
_MAX_NAME_CHARS = 30
_MIN_LABELED_SHARE = 0.05  # narrower bars have no room for their number


def _draw_fates(axes: Any, manifest: Manifest) -> None:
    counts = manifest.counts.model_dump()
    fates = list(_FATE_COLORS)
    bars = axes.barh(fates, [counts[fate] for fate in fates], color=list(_FATE_COLORS.values()))
    rows_in = max(manifest.counts.rows_in, 1)
    texts = [f" {counts[fate]:,} ({counts[fate] / rows_in:.1%})" for fate in fates]
    axes.bar_label(bars, texts, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_title(f"Fates of {manifest.counts.rows_in:,} rows", loc="left", fontsize=11)
    axes.set_xlabel("rows")


def _draw_label_mixes(axes: Any, mixes: dict[str, RowsByLabel], title: str) -> None:
    """Draw one bar of label shares per mix, with the number of its rows next to it."""
    positions = range(len(mixes))  # not names: shortened ones may be equal
    starts = [0.0] * len(mixes)
    for label in LABELS:
        shares = [mix[label] / max(sum(mix.values()), 1) for mix in mixes.values()]
        bars = axes.barh(positions, shares, left=starts, color=COLORS[label], label=label)
        texts = [f"{share:.0%}" if share > _MIN_LABELED_SHARE else "" for share in shares]
        axes.bar_label(bars, texts, label_type="center", color="white", fontsize=9)
        starts = [start + share for start, share in zip(starts, shares, strict=True)]
    for position, mix in zip(positions, mixes.values(), strict=True):
        axes.text(1.01, position, f"{sum(mix.values()):,}", va="center", fontsize=9)
    axes.set_yticks(positions, [_shorten(name) for name in mixes])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)


def _shorten(name: str) -> str:
    """Cut the middle out of a long name: files of one vendor differ at their ends."""
    if len(name) <= _MAX_NAME_CHARS:
        return name
    return f"{name[:12]}…{name[13 - _MAX_NAME_CHARS :]}"


def _draw_splits(axes: Any, manifest: Manifest) -> None:
    mixes = {name: split.labels for name, split in manifest.splits.items()}
    _draw_label_mixes(axes, mixes, "Labels by split")


def source_mixes(manifest: Manifest) -> dict[str, RowsByLabel]:
    """Count kept rows by source and label. Of many sources, the smallest are summed as `others`."""
    mixes = {source.source: dict.fromkeys(LABELS, 0) for source in manifest.inputs}
    for split in manifest.splits.values():
        for name, labels in split.sources.items():
            for label, rows in labels.items():
                mixes[name][label] += rows
    ranked = sorted(mixes, key=lambda name: -sum(mixes[name].values()))
    if len(ranked) <= _MAX_SOURCES:
        return {name: mixes[name] for name in ranked}
    largest, smallest = ranked[: _MAX_SOURCES - 1], ranked[_MAX_SOURCES - 1 :]
    others = {label: sum(mixes[name][label] for name in smallest) for label in LABELS}
    return {name: mixes[name] for name in largest} | {f"{len(smallest)} others": others}


def _draw_sources(axes: Any, manifest: Manifest) -> None:
    mixes = source_mixes(manifest)
    axes.figure.set_figheight(1.6 + 0.32 * max(len(mixes), 3))
    _draw_label_mixes(axes, mixes, "Labels by source")


def _draw_lengths(axes: Any, manifest: Manifest) -> None:
    lengths = manifest.lengths
    histogram = {int(words): rows for words, rows in lengths.histogram.items()}
    axes.bar(list(histogram), list(histogram.values()), width=1.0, color="#0072B2")
    for name, length in (("p50", lengths.p50), ("p95", lengths.p95), ("max", lengths.max)):
        axes.axvline(length, color="#D55E00", linestyle="--", linewidth=1)
        transform = axes.get_xaxis_transform()
        axes.text(length, 1.0, f" {name} {length}", fontsize=9, va="top", transform=transform)
    axes.set_title("Length of the kept texts", loc="left", fontsize=11)
    axes.set_xlabel("words")
    axes.set_ylabel("rows")


def _draw_rejected(axes: Any, manifest: Manifest) -> None:
    rows_by_reason: dict[str, int] = {}
    for source in manifest.inputs:
        for reason, rejected in source.rejected_reasons.items():
            rows_by_reason[reason] = rows_by_reason.get(reason, 0) + rejected.rows
    ranked = sorted(rows_by_reason.items(), key=lambda item: -item[1])[:_MAX_REASONS]
    axes.set_title("Why rows were rejected", loc="left", fontsize=11)
    if not ranked:
        axes.text(0.5, 0.5, "no row was rejected", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.figure.set_figheight(1.2 + 0.32 * max(len(ranked), 2))
    reasons, counts = [reason for reason, _ in ranked], [rows for _, rows in ranked]
    bars = axes.barh(reasons, counts, color=_FATE_COLORS["rejected"], height=0.7)
    axes.bar_label(bars, [f" {rows:,}" for rows in counts], fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(max(len(ranked), 2) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.set_xlabel("rows")


PICTURES: dict[str, Draw[Manifest]] = {
    "fates": _draw_fates,
    "labels_by_split": _draw_splits,
    "labels_by_source": _draw_sources,
    "lengths": _draw_lengths,
    "rejected": _draw_rejected,
}
