"""Pictures of a dataset version, from its manifest alone."""

from __future__ import annotations

from typing import Any

from finsent.labels import LABELS
from finsent.reports.pictures import COLORS, Draw

FATES = {
    "kept": "#009E73",
    "duplicates": "#56B4E9",
    "conflicts": "#E69F00",
    "rejected": "#CC79A7",
    "excluded": "#666666",
}
_MOST_SOURCES = 12
_LONGEST_NAME = 30

Manifest = dict[str, Any]


def _fates(axes: Any, manifest: Manifest) -> None:
    counts = manifest["counts"]
    names = list(FATES)
    bars = axes.barh(names, [counts[n] for n in names], color=[FATES[n] for n in names])
    whole = max(counts["rows_in"], 1)
    shown = [f" {counts[n]:,} ({counts[n] / whole:.1%})" for n in names]
    axes.bar_label(bars, shown, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_title(f"What became of {counts['rows_in']:,} rows", loc="left", fontsize=11)
    axes.set_xlabel("rows")


def _stacked(axes: Any, mixes: dict[str, dict[str, int]], title: str) -> None:
    """One bar of shares for each mix; its rows beside it."""
    places = range(len(mixes))  # not names: cut ones may be equal
    left = [0.0] * len(mixes)
    for label in LABELS:
        shares = [mix[label] / max(sum(mix.values()), 1) for mix in mixes.values()]
        bars = axes.barh(places, shares, left=left, color=COLORS[label], label=label)
        texts = [f"{share:.0%}" if share > 0.05 else "" for share in shares]
        axes.bar_label(bars, texts, label_type="center", color="white", fontsize=9)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    for place, mix in zip(places, mixes.values(), strict=True):
        axes.text(1.01, place, f"{sum(mix.values()):,}", va="center", fontsize=9)
    axes.set_yticks(places, [_cut(name) for name in mixes])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)


def _cut(name: str) -> str:
    """A long name without its middle: files of one vendor differ at their ends."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:12]}…{name[13 - _LONGEST_NAME :]}"


def _splits(axes: Any, manifest: Manifest) -> None:
    _stacked(axes, {n: s["labels"] for n, s in manifest["splits"].items()}, "Labels by split")


def source_mixes(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Kept rows by source and label; of many sources the smallest are one, `others`."""
    mixes = {file["source"]: dict.fromkeys(LABELS, 0) for file in manifest["inputs"]}
    for split in manifest["splits"].values():
        for source, labels in split["sources"].items():
            for label, rows in labels.items():
                mixes[source][label] += rows
    ranked = sorted(mixes, key=lambda source: -sum(mixes[source].values()))
    if len(ranked) <= _MOST_SOURCES:
        return {source: mixes[source] for source in ranked}
    rest = ranked[_MOST_SOURCES - 1 :]
    others = {label: sum(mixes[source][label] for source in rest) for label in LABELS}
    return {s: mixes[s] for s in ranked[: _MOST_SOURCES - 1]} | {f"{len(rest)} others": others}


def _sources(axes: Any, manifest: Manifest) -> None:
    mixes = source_mixes(manifest)
    axes.figure.set_figheight(1.6 + 0.32 * max(len(mixes), 3))
    _stacked(axes, mixes, "Labels by source")


def _lengths(axes: Any, manifest: Manifest) -> None:
    lengths = manifest["lengths"]
    histogram = {int(words): rows for words, rows in lengths["histogram"].items()}
    axes.bar(list(histogram), list(histogram.values()), width=1.0, color="#0072B2")
    for name in ("p50", "p95", "max"):
        axes.axvline(lengths[name], color="#D55E00", linestyle="--", linewidth=1)
        axes.text(
            lengths[name],
            1.0,
            f" {name} {lengths[name]}",
            fontsize=9,
            va="top",
            transform=axes.get_xaxis_transform(),
        )
    axes.set_title("Length of the kept texts", loc="left", fontsize=11)
    axes.set_xlabel("words")
    axes.set_ylabel("rows")


def _rejects(axes: Any, manifest: Manifest) -> None:
    reasons: dict[str, int] = {}
    for file in manifest["inputs"]:
        for reason, entry in file["rejected_reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + entry["rows"]
    ranked = sorted(reasons.items(), key=lambda item: -item[1])[:10]
    axes.set_title("Why rows were rejected", loc="left", fontsize=11)
    if not ranked:
        axes.text(0.5, 0.5, "no row was rejected", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.figure.set_figheight(1.2 + 0.32 * max(len(ranked), 2))
    names, rows = [r for r, _ in ranked], [n for _, n in ranked]
    bars = axes.barh(names, rows, color=FATES["rejected"], height=0.7)
    axes.bar_label(bars, [f" {n:,}" for n in rows], fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(max(len(ranked), 2) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.set_xlabel("rows")


PICTURES: dict[str, Draw[Manifest]] = {
    "fates": _fates,
    "labels_by_split": _splits,
    "labels_by_source": _sources,
    "lengths": _lengths,
    "rejected": _rejects,
}
