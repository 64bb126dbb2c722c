"""What becomes of each row of a partition: kept, duplicate, conflict, or excluded.

All rows of one text lie in one partition, so each partition is settled alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.config import DataConfig, PreferPolicy
from finsent.data.sources.source_file import SourceFile
from finsent.labels import LABEL2ID, LABELS
from finsent.normalize import hex_keys, key64

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

KEPT = pa.schema(
    [
        ("key", pa.binary(16)),
        ("unit", pa.uint64()),
        ("unit_text", pa.string()),
        ("text", pa.string()),
        ("label", pa.int8()),
        ("source", pa.int32()),
        ("row", pa.int64()),
        ("raw_text", pa.string()),  # null where it equals `text`
        ("agreement", pa.float32()),
        ("weight", pa.float32()),
    ]
)


@dataclass(frozen=True)
class SourceTraits:
    """What the sources say about their rows; arrays by the position of the source file."""

    names: list[str]
    excluded: Bools
    priority: Ints
    weight: npt.NDArray[np.float64]
    agreement: npt.NDArray[np.float64]  # NaN: not known

    @classmethod
    def of(cls, files: list[SourceFile]) -> SourceTraits:
        """The traits of these files."""
        nan = float("nan")
        return cls(
            names=[file.name for file in files],
            excluded=np.array([file.excluded for file in files]),
            priority=np.array([file.settings.priority for file in files], np.int64),
            weight=np.array([file.settings.weight for file in files]),
            agreement=np.array([nan if f.agreement is None else f.agreement for f in files]),
        )


@dataclass(frozen=True)
class Settled:
    """A partition's rows by fate. Every labeled input row is in exactly one count."""

    kept: pa.Table  # schema KEPT, sorted by key
    conflicts: pa.Table  # all rows of the texts in conflict, with the decision
    excluded: pa.Table  # rows that stand in a source which must stay unseen
    texts: pa.Table  # the distinct texts, dropped and unseen ones too: the input of `near.entries`
    fates: dict[str, Ints]  # fate -> rows by source
    decisions: Counter[str]  # texts in conflict by decision
    best_votes: int  # rows that carry their text's most frequent label
    kept_best_votes: int  # the same among kept rows


def settle(rows: pa.Table, traits: SourceTraits, config: DataConfig) -> Settled:
    """Drop what must stay unseen and what stands twice, and resolve conflicts by policy.

    Args:
        rows: table of the schema `finsent.data.rows.clean.GOOD` with all rows of each text, in the
            order of the sources.
    """
    rows = rows.take(pa.array(_key_order(rows["key"]))).combine_chunks()
    group = _group_ids(rows["key"])
    source = rows["source"].to_numpy()
    unseen = traits.excluded[source]
    texts = int(group[-1]) + 1 if len(group) else 0
    unseen_text = np.zeros(texts, bool)
    unseen_text[group[unseen]] = True
    same = ~unseen & unseen_text[group]
    labeled = ~unseen & ~same

    label = pc.fill_null(rows["label"], 0).to_numpy().astype(np.int64)
    votes = np.zeros((texts, len(LABELS)))
    np.add.at(votes, (group[labeled], label[labeled]), 1)
    in_conflict = (votes > 0).sum(1) > 1
    winner = _winners(votes, group, label, labeled, traits, source, config)
    if config.conflicts == "keep":  # one row a label
        wins = labeled
        kept = _first_of(group * len(LABELS) + label, labeled)
    else:
        wins = labeled & (label == winner[group])
        kept = _first_of(group, wins)
    lost = labeled & in_conflict[group] & ~wins
    decisions = _decisions(winner, config)
    counted = np.flatnonzero(in_conflict)
    unit = _text_units(rows, group, kept)
    table = _kept(rows, kept, wins, group, unit, traits)
    return Settled(
        kept=table,
        conflicts=_conflict_rows(
            rows, labeled & in_conflict[group], decisions[group], label, traits
        ),
        excluded=_excluded_rows(
            rows, same, "same_as_excluded", _oldest(rows, group, unseen)[group[same]], label, traits
        ),
        texts=_texts(rows, group, unit, unseen_text),
        fates={
            "kept": _by_source(source[kept], traits),
            "duplicates": _by_source(source[wins & ~kept], traits),
            "conflicts": _by_source(source[lost], traits),
            "excluded": _by_source(source[same], traits),
        },
        decisions=Counter(decisions[counted].tolist()),
        best_votes=int(votes.max(1, initial=0).sum()),
        kept_best_votes=len(np.unique(group[kept])),
    )


def _key_order(keys: pa.ChunkedArray) -> Ints:
    """Sorted by key; rows of one key keep their order."""
    keys = keys.combine_chunks()
    high = key64(keys)
    order = np.argsort(high, kind="stable")
    if len(high) > 1 and (high[order][1:] == high[order][:-1]).any():
        low = np.frombuffer(keys.buffers()[1], ">u8").reshape(-1, 2)[keys.offset :][: len(keys), 1]
        order = np.lexsort((low, high))  # stable, too
    return order


def _group_ids(keys: pa.ChunkedArray) -> Ints:
    """0, 0, 1, 2, 2, ... for sorted keys."""
    if not len(keys):
        return np.zeros(0, np.int64)
    keys = keys.combine_chunks()
    values = np.frombuffer(keys.buffers()[1], ">u8").reshape(-1, 2)[keys.offset :][: len(keys)]
    return np.cumsum(np.r_[False, (values[1:] != values[:-1]).any(1)]).astype(np.int64)


def _first_of(group: Ints, among: Bools) -> Bools:
    """Marks the first row of each group among the marked ones."""
    candidates = np.flatnonzero(among)
    first = np.zeros(len(group), bool)
    first[candidates[np.unique(group[candidates], return_index=True)[1]]] = True
    return first


# --- conflicts ----------------------------------------------------------------------------------


def _winners(
    votes: npt.NDArray[np.float64],
    group: Ints,
    label: Ints,
    labeled: Bools,
    traits: SourceTraits,
    source: npt.NDArray[np.int32],
    config: DataConfig,
) -> Ints:
    """The label id that each text keeps, or -1 when its rows are dropped."""
    in_conflict = (votes > 0).sum(1) > 1
    alone = votes.argmax(1)
    if isinstance(config.conflicts, PreferPolicy):
        ranked = [LABEL2ID[name] for name in config.conflicts.prefer]
        strength = np.zeros(len(LABELS))
        strength[ranked] = np.arange(len(ranked), 0, -1)
        return np.where(in_conflict, _unique_best((votes > 0) * strength), alone)
    if config.conflicts == "majority":
        weighted = _votes(group[labeled], label[labeled], traits.weight[source[labeled]], votes)
        return np.where(in_conflict, _unique_best(weighted), alone)
    if config.conflicts == "priority":
        priority = traits.priority[source]
        highest = np.full(len(votes), np.iinfo(np.int64).min)
        np.maximum.at(highest, group[labeled], priority[labeled])
        heard = labeled & (priority == highest[group])
        weighted = _votes(group[heard], label[heard], traits.weight[source[heard]], votes)
        return np.where(in_conflict, _unique_best(weighted), alone)
    return np.where(in_conflict, -1, alone)


def _votes(
    group: Ints,
    label: Ints,
    weight: npt.NDArray[np.float64],
    like: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    votes = np.zeros_like(like)
    np.add.at(votes, (group, label), weight)
    return votes


def _unique_best(votes: npt.NDArray[np.float64]) -> Ints:
    """The position of the largest value of each row; -1 where it is not the only one, or zero."""
    most = votes.max(1, keepdims=True, initial=0)
    as_many = np.isclose(votes, most, rtol=1e-9, atol=0)  # 0.1 + 0.2 is as much as 0.3
    unique = (as_many.sum(1) == 1) & (most[:, 0] > 0)
    return np.where(unique, votes.argmax(1), -1)


def _decisions(winner: Ints, config: DataConfig) -> npt.NDArray[np.object_]:
    if config.conflicts == "keep":
        return np.full(len(winner), "kept under each label", object)
    names = np.array([*(f"kept as {label}" for label in LABELS), "dropped"], object)
    return names[winner]  # -1 is the last


# --- age ----------------------------------------------------------------------------------------

_ROW_BITS = np.uint64(40)


def orders(rows: pa.Table) -> npt.NDArray[np.uint64]:
    """The age of rows, by their sources' and their own positions: smaller is older."""
    source = rows["source"].to_numpy().astype(np.uint64)
    return np.asarray(source << _ROW_BITS | rows["row"].to_numpy().astype(np.uint64))


def _oldest(rows: pa.Table, group: Ints, among: Bools) -> npt.NDArray[np.uint64]:
    """The age of each group's first row among the marked ones; 0 where none is."""
    found = np.zeros(int(group[-1]) + 1 if len(group) else 0, np.uint64)
    first = np.flatnonzero(_first_of(group, among))
    found[group[first]] = orders(rows)[first]
    return found


# --- tables -------------------------------------------------------------------------------------


def _text_units(rows: pa.Table, group: Ints, kept: Bools) -> npt.NDArray[np.uint64]:
    """What decides the split of each text: one value, that of its first kept row, or else row.

    Rows of one text may have several companies or times; a text still stands in one split.
    """
    chosen = np.flatnonzero(_first_rows(group))
    keepers = np.flatnonzero(kept)
    groups, first = np.unique(group[keepers], return_index=True)
    chosen[groups] = keepers[first]
    return np.asarray(rows["unit"].to_numpy()[chosen])


def _first_rows(group: Ints) -> Bools:
    """Marks the first row of each group; rows are sorted by group."""
    return np.asarray(np.r_[True, group[1:] != group[:-1]][: len(group)])


def _texts(
    rows: pa.Table, group: Ints, unit: npt.NDArray[np.uint64], unseen_text: Bools
) -> pa.Table:
    """Each text once, as its oldest row. Also those that a conflict drops: the groups of near texts
    must not depend on labels, or a new label could move an old row to another split."""
    first = rows.filter(pa.array(_first_rows(group)))
    return pa.table(
        {
            "key": key64(first["key"]),
            "order": orders(first),
            "unit": unit,
            "excluded": unseen_text,
            "text": first["text"],
        }
    )


def _by_source(source: npt.NDArray[np.int32], traits: SourceTraits) -> Ints:
    return np.bincount(source, minlength=len(traits.names))


def _kept(
    rows: pa.Table,
    kept: Bools,
    wins: Bools,
    group: Ints,
    unit: npt.NDArray[np.uint64],
    traits: SourceTraits,
) -> pa.Table:
    """The kept rows; the agreement of one is the best that any row of its text and label has."""
    table, source = rows.filter(pa.array(kept)), rows["source"].to_numpy()
    known = traits.agreement[source]
    best = np.full((int(group[-1]) + 1 if len(group) else 0) * len(LABELS), -np.inf)
    said = group * len(LABELS) + pc.fill_null(rows["label"], 0).to_numpy()
    np.maximum.at(best, said[wins], np.where(np.isnan(known[wins]), -np.inf, known[wins]))
    agreement = best[said[kept]]
    return pa.table(
        {
            **{name: table[name] for name in KEPT.names if name in table.column_names},
            "unit": unit[group[kept]],
            "raw_text": table["raw_text"],
            "agreement": pa.array(agreement, pa.float32(), mask=np.isneginf(agreement)),
            "weight": pa.array(traits.weight[source[kept]], pa.float32()),
        },
        schema=KEPT,
    )


def described(rows: pa.Table, label: Ints, traits: SourceTraits) -> dict[str, pa.Array]:
    """The columns that tables for people begin with; keys in hex, labels and sources by name."""
    return {
        "key": hex_keys(rows["key"]),
        "text": rows["text"],
        "label": pa.array(LABELS, pa.string()).take(pa.array(label)),
        "source": pa.array(traits.names, pa.string()).take(rows["source"]),
        "row": rows["row"],
    }


def _conflict_rows(
    rows: pa.Table,
    which: Bools,
    decisions: npt.NDArray[np.object_],
    label: Ints,
    traits: SourceTraits,
) -> pa.Table:
    chosen = rows.filter(pa.array(which))
    return pa.table(
        {
            **described(chosen, label[which], traits),
            "raw_text": pc.coalesce(chosen["raw_text"], chosen["text"]),
            "decision": pa.array(decisions[which], pa.string()),
        }
    )


def _excluded_rows(
    rows: pa.Table,
    which: Bools,
    reason: str,
    match: npt.NDArray[np.uint64],
    label: Ints,
    traits: SourceTraits,
) -> pa.Table:
    chosen = rows.filter(pa.array(which))
    by = pa.array((match >> _ROW_BITS).astype(np.int64))
    return pa.table(
        {
            **described(chosen, label[which], traits),
            "raw_text": pc.coalesce(chosen["raw_text"], chosen["text"]),
            "reason": pa.repeat(pa.scalar(reason), len(chosen)),
            "match_source": pa.array(traits.names, pa.string()).take(by),
            "match_row": (match & ((np.uint64(1) << _ROW_BITS) - np.uint64(1))).astype(np.int64),
        }
    )


def excluded_rows(
    kept: pa.Table,
    which: Bools,
    reason: str,
    match: npt.NDArray[np.uint64],
    traits: SourceTraits,
) -> pa.Table:
    """Rows of schema `KEPT` that are excluded after all, as `excluded.parquet` shows them.

    Args:
        match: the age (see `orders`) of the text that each marked row is near to.
    """
    label = kept["label"].to_numpy().astype(np.int64)
    return _excluded_rows(kept, which, reason, match, label, traits)
