"""Decide the fate of each row of a partition: kept, duplicate, conflict, or excluded.

All rows of one text are in one partition, so partitions are settled independently.
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
    """Settings of the sources that apply to all of their rows, by the position of the source."""

    names: list[str]
    excluded: Bools
    priority: Ints
    weight: npt.NDArray[np.float64]
    agreement: npt.NDArray[np.float64]  # of the annotators, as a fraction; NaN: unknown

    @classmethod
    def of(cls, files: list[SourceFile]) -> SourceTraits:
        """Collect the traits of files."""
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
    """A partition's rows by fate. Every labeled row is in exactly one count of `fates`."""

    kept: pa.Table  # schema KEPT, sorted by key
    conflicts: pa.Table  # all rows of the texts in conflict, with the decision
    excluded: pa.Table  # rows whose text is in a source that must stay unseen
    texts: pa.Table  # all distinct texts, also dropped and unseen ones; input of `near.entries`
    fates: dict[str, Ints]  # fate -> rows by source
    decisions: Counter[str]  # texts in conflict by decision
    best_votes: int  # rows that carry their text's most frequent label
    kept_best_votes: int  # the same among kept rows


def settle(rows: pa.Table, traits: SourceTraits, config: DataConfig) -> Settled:
    """Exclude texts that must stay unseen, drop duplicates, and resolve conflicts by policy.

    Args:
        rows: table of the schema `finsent.data.rows.clean.GOOD` with all rows of each text, in the
            order of the sources.
    """
    rows = rows.take(pa.array(_key_order(rows["key"]))).combine_chunks()
    text_ids = _text_ids(rows["key"])
    source = rows["source"].to_numpy()
    is_unseen = traits.excluded[source]
    is_unseen_text = np.zeros(_count_texts(text_ids), bool)
    is_unseen_text[text_ids[is_unseen]] = True
    is_excluded = ~is_unseen & is_unseen_text[text_ids]
    is_labeled = ~is_unseen & ~is_excluded

    label = pc.fill_null(rows["label"], 0).to_numpy().astype(np.int64)
    votes = np.zeros((len(is_unseen_text), len(LABELS)))
    np.add.at(votes, (text_ids[is_labeled], label[is_labeled]), 1)
    in_conflict = (votes > 0).sum(1) > 1
    labeled = _LabeledRows(
        text_ids[is_labeled], label[is_labeled], source[is_labeled], len(is_unseen_text)
    )
    winners = _winning_labels(votes, labeled, traits, config)
    if config.conflicts == "keep":  # one row per label
        wins = is_labeled
        is_kept = _mark_first(text_ids * len(LABELS) + label, wins)
    else:
        wins = is_labeled & (label == winners[text_ids])
        is_kept = _mark_first(text_ids, wins)
    lost = is_labeled & in_conflict[text_ids] & ~wins
    decisions = _decisions(winners, config)
    unit = _split_units(rows, text_ids, is_kept)
    matches = _oldest_orders(rows, text_ids, is_unseen)[text_ids[is_excluded]]
    return Settled(
        kept=_kept_table(rows, is_kept, wins, text_ids, unit, traits),
        conflicts=_conflict_table(
            rows, is_labeled & in_conflict[text_ids], decisions[text_ids], label, traits
        ),
        excluded=_excluded_table(rows, is_excluded, "same_as_excluded", matches, label, traits),
        texts=_distinct_texts(rows, text_ids, unit, is_unseen_text),
        fates={
            "kept": _count_by_source(source[is_kept], traits),
            "duplicates": _count_by_source(source[wins & ~is_kept], traits),
            "conflicts": _count_by_source(source[lost], traits),
            "excluded": _count_by_source(source[is_excluded], traits),
        },
        decisions=Counter(decisions[in_conflict].tolist()),
        best_votes=int(votes.max(1, initial=0).sum()),
        kept_best_votes=len(np.unique(text_ids[is_kept])),
    )


def _key_order(keys: pa.ChunkedArray) -> Ints:
    """Return the order of the keys. Rows of one key keep their order."""
    keys = keys.combine_chunks()
    high = key64(keys)
    order = np.argsort(high, kind="stable")
    if len(high) > 1 and (high[order][1:] == high[order][:-1]).any():
        order = np.lexsort((_key_halves(keys)[:, 1], high))  # stable, too
    return order


def _key_halves(keys: pa.Array) -> npt.NDArray[np.uint64]:
    """Return the two 64-bit halves of each key, shape (rows, 2)."""
    halves = np.frombuffer(keys.buffers()[1], ">u8").reshape(-1, 2)
    return halves[keys.offset :][: len(keys)]


def _text_ids(sorted_keys: pa.ChunkedArray) -> Ints:
    """Number the distinct keys: 0, 0, 1, 2, 2, ..."""
    if not len(sorted_keys):
        return np.zeros(0, np.int64)
    halves = _key_halves(sorted_keys.combine_chunks())
    return np.cumsum(np.r_[False, (halves[1:] != halves[:-1]).any(1)]).astype(np.int64)


def _count_texts(text_ids: Ints) -> int:
    return int(text_ids[-1]) + 1 if len(text_ids) else 0


def _mark_first(groups: Ints, candidates: Bools) -> Bools:
    """Mark the first candidate of each group."""
    indices = np.flatnonzero(candidates)
    is_first = np.zeros(len(groups), bool)
    is_first[indices[np.unique(groups[indices], return_index=True)[1]]] = True
    return is_first


# --- conflicts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LabeledRows:
    """The rows that vote on the label of their text."""

    text_ids: Ints
    label: Ints
    source: npt.NDArray[np.int32]
    text_count: int

    def weigh(self, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum the weights of the rows by text and label, shape (texts, labels)."""
        votes = np.zeros((self.text_count, len(LABELS)))
        np.add.at(votes, (self.text_ids, self.label), weight)
        return votes


def _winning_labels(
    votes: npt.NDArray[np.float64], rows: _LabeledRows, traits: SourceTraits, config: DataConfig
) -> Ints:
    """Return the label id that each text keeps, or -1 if its rows are dropped.

    Args:
        votes: rows by text and label.
    """
    weight = traits.weight[rows.source]
    if isinstance(config.conflicts, PreferPolicy):
        preferred = [LABEL2ID[name] for name in config.conflicts.prefer]
        strength = np.zeros(len(LABELS))
        strength[preferred] = np.arange(len(preferred), 0, -1)
        winners = _unique_best((votes > 0) * strength)
    elif config.conflicts == "majority":
        winners = _unique_best(rows.weigh(weight))
    elif config.conflicts == "priority":
        priority = traits.priority[rows.source]
        highest = np.full(rows.text_count, np.iinfo(np.int64).min)
        np.maximum.at(highest, rows.text_ids, priority)
        winners = _unique_best(rows.weigh(weight * (priority == highest[rows.text_ids])))
    else:
        winners = np.full(len(votes), -1)
    return np.where((votes > 0).sum(1) > 1, winners, votes.argmax(1))


def _unique_best(votes: npt.NDArray[np.float64]) -> Ints:
    """Return the position of the largest value of each row; -1 at a tie, or if all are zero."""
    most = votes.max(1, keepdims=True, initial=0)
    is_most = np.isclose(votes, most, rtol=1e-9, atol=0)  # 0.1 + 0.2 equals 0.3
    is_unique = (is_most.sum(1) == 1) & (most[:, 0] > 0)
    return np.where(is_unique, votes.argmax(1), -1)


def _decisions(winners: Ints, config: DataConfig) -> npt.NDArray[np.object_]:
    if config.conflicts == "keep":
        return np.full(len(winners), "kept under each label", object)
    names = np.array([*(f"kept as {label}" for label in LABELS), "dropped"], object)
    return names[winners]  # -1 is the last


# --- order --------------------------------------------------------------------------------------

_ROW_BITS = np.uint64(40)


def orders(rows: pa.Table) -> npt.NDArray[np.uint64]:
    """Return the positions of rows in all sources as one number: smaller is older."""
    source = rows["source"].to_numpy().astype(np.uint64)
    return np.asarray(source << _ROW_BITS | rows["row"].to_numpy().astype(np.uint64))


def _oldest_orders(rows: pa.Table, text_ids: Ints, candidates: Bools) -> npt.NDArray[np.uint64]:
    """Return the order of the first candidate of each text, or 0 if there is none."""
    oldest = np.zeros(_count_texts(text_ids), np.uint64)
    first_rows = np.flatnonzero(_mark_first(text_ids, candidates))
    oldest[text_ids[first_rows]] = orders(rows)[first_rows]
    return oldest


# --- tables -------------------------------------------------------------------------------------


def _split_units(rows: pa.Table, text_ids: Ints, is_kept: Bools) -> npt.NDArray[np.uint64]:
    """Return the unit that decides each text's split: of its first kept row, or else first row.

    The rows of one text may have several companies or times. A text is still in one split only.
    """
    chosen = np.flatnonzero(_is_first_row(text_ids))
    kept_rows = np.flatnonzero(is_kept)
    texts, first_rows = np.unique(text_ids[kept_rows], return_index=True)
    chosen[texts] = kept_rows[first_rows]
    return np.asarray(rows["unit"].to_numpy()[chosen])


def _is_first_row(text_ids: Ints) -> Bools:
    """Mark the first row of each text; rows are sorted by text."""
    return np.asarray(np.r_[True, text_ids[1:] != text_ids[:-1]][: len(text_ids)])


def _distinct_texts(
    rows: pa.Table, text_ids: Ints, unit: npt.NDArray[np.uint64], is_unseen_text: Bools
) -> pa.Table:
    """Return each text once, as its oldest row.

    Texts that a conflict drops are included: the groups of near texts must not depend on labels, or
    a new label could move an old row to another split.
    """
    first_rows = rows.filter(pa.array(_is_first_row(text_ids)))
    return pa.table(
        {
            "key": key64(first_rows["key"]),
            "order": orders(first_rows),
            "unit": unit,
            "excluded": is_unseen_text,
            "text": first_rows["text"],
        }
    )


def _count_by_source(source: npt.NDArray[np.int32], traits: SourceTraits) -> Ints:
    return np.bincount(source, minlength=len(traits.names))


def _kept_table(
    rows: pa.Table,
    is_kept: Bools,
    wins: Bools,
    text_ids: Ints,
    unit: npt.NDArray[np.uint64],
    traits: SourceTraits,
) -> pa.Table:
    """Return the kept rows, each with the best agreement of all rows of its text and label."""
    table, source = rows.filter(pa.array(is_kept)), rows["source"].to_numpy()
    agreement = traits.agreement[source]
    best = np.full(_count_texts(text_ids) * len(LABELS), -np.inf)  # by text and label
    cells = text_ids * len(LABELS) + pc.fill_null(rows["label"], 0).to_numpy()
    np.maximum.at(best, cells[wins], np.where(np.isnan(agreement), -np.inf, agreement)[wins])
    kept_agreement = best[cells[is_kept]]
    return pa.table(
        {
            **{name: table[name] for name in KEPT.names if name in table.column_names},
            "unit": unit[text_ids[is_kept]],
            "raw_text": table["raw_text"],
            "agreement": pa.array(kept_agreement, pa.float32(), mask=np.isneginf(kept_agreement)),
            "weight": pa.array(traits.weight[source[is_kept]], pa.float32()),
        },
        schema=KEPT,
    )


def described(rows: pa.Table, label: Ints, traits: SourceTraits) -> dict[str, pa.Array]:
    """Return the first columns of published tables: hex keys, and labels and sources by name."""
    return {
        "key": hex_keys(rows["key"]),
        "text": rows["text"],
        "label": pa.array(LABELS, pa.string()).take(pa.array(label)),
        "source": pa.array(traits.names, pa.string()).take(rows["source"]),
        "row": rows["row"],
    }


def _conflict_table(
    rows: pa.Table,
    in_conflict: Bools,
    decisions: npt.NDArray[np.object_],
    label: Ints,
    traits: SourceTraits,
) -> pa.Table:
    chosen = rows.filter(pa.array(in_conflict))
    return pa.table(
        {
            **described(chosen, label[in_conflict], traits),
            "raw_text": pc.coalesce(chosen["raw_text"], chosen["text"]),
            "decision": pa.array(decisions[in_conflict], pa.string()),
        }
    )


def _excluded_table(
    rows: pa.Table,
    is_excluded: Bools,
    reason: str,
    matches: npt.NDArray[np.uint64],
    label: Ints,
    traits: SourceTraits,
) -> pa.Table:
    chosen = rows.filter(pa.array(is_excluded))
    match_source = pa.array((matches >> _ROW_BITS).astype(np.int64))
    match_row = matches & ((np.uint64(1) << _ROW_BITS) - np.uint64(1))
    return pa.table(
        {
            **described(chosen, label[is_excluded], traits),
            "raw_text": pc.coalesce(chosen["raw_text"], chosen["text"]),
            "reason": pa.repeat(pa.scalar(reason), len(chosen)),
            "match_source": pa.array(traits.names, pa.string()).take(match_source),
            "match_row": match_row.astype(np.int64),
        }
    )


def excluded_rows(
    kept_rows: pa.Table,
    is_excluded: Bools,
    reason: str,
    matches: npt.NDArray[np.uint64],
    traits: SourceTraits,
) -> pa.Table:
    """Return rows of schema `KEPT` that are excluded after all, as `excluded.parquet` has them.

    Args:
        matches: for each excluded row, the order (see `orders`) of the text that it is near to.
    """
    label = kept_rows["label"].to_numpy().astype(np.int64)
    return _excluded_table(kept_rows, is_excluded, reason, matches, label, traits)
