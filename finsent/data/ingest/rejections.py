"""Rejected rows: how many for which reason, and when a source has too many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.config import DataConfig
from finsent.data.ingest.task_results import RejectedBlockRows
from finsent.data.rows.clean import DROPPED, LEFT_OUT
from finsent.data.versions.manifest import RejectedRows, left_out_rows
from finsent.errors import InputError
from finsent.labels import LABELS

_HINTS = {
    "unknown_label": f"labels are {', '.join(LABELS)}; others need the source's label_map, and "
    "scores its thresholds, with a decimal point",
    "missing_label": "the label column is empty there",
    "missing_text": "the text column is empty there",
    "text_too_long": "or raise data.max_chars",
    "malformed_row": "a text that contains the delimiter must be quoted; see also the source's "
    "delimiter, quote and escape",
    "refused_label": "an annotator refused these labels in Prodigy; where: {answer: accept} leaves "
    "such rows out, and where: {answer: [accept, reject, ignore]} accepts them",
    "damaged_text": "a character of the text was lost; bad_bytes: keep accepts such rows",
    "swallowed_rows": "double a quote that belongs to a text",
    "missing_time": "every row needs a time in data.split.time.column",
    "unknown_time": "times are ISO, e.g. 2024-07-01 or 2024-07-01T09:30:00Z",
    "missing_group": "every row needs a value in data.split.group_by",
}
_MAX_LISTED_REASONS = 3
_MAX_LABEL_CHARS = 40

RejectedByReason = Mapping[str, RejectedRows]


def count_rejected(rejected: pa.Table) -> dict[str, RejectedBlockRows]:
    """Count the rejected rows of one source by reason.

    Args:
        rejected: schema `finsent.data.rows.clean.REJECTED`.
    """
    reasons = pc.replace_substring_regex(rejected["reason"], "(?s):.*", "").to_pylist()
    return {
        reason: _describe(reason, rows, rejected.slice(reasons.index(reason), 1))
        for reason, rows in Counter(reasons).items()
    }


def _describe(reason: str, rows: int, first_row: pa.Table) -> RejectedBlockRows:
    [row] = first_row.to_pylist()
    description = f"record {row['row']}"
    detail = row["reason"].partition(": ")[2]
    if reason == "unknown_label":
        description += f", {row['raw_label'][:_MAX_LABEL_CHARS]!r}"
    elif detail:
        description += f", {detail!r}" if reason == "unknown_time" else f", {detail}"
    return RejectedBlockRows(rows=rows, first=description, row=row["row"])


def sum_rows(reasons: RejectedByReason) -> int:
    """Return the number of rows over all reasons."""
    return sum(entry.rows for entry in reasons.values())


def rank_reasons(reasons: RejectedByReason) -> list[tuple[str, RejectedRows]]:
    """Sort reasons by their number of rows, the largest first."""
    return sorted(reasons.items(), key=lambda item: -item[1].rows)


def check_rejected(source: str, rows: int, reasons: RejectedByReason, config: DataConfig) -> None:
    """Refuse a source that loses too many rows.

    Args:
        rows: all rows of the source.
        reasons: the rejected ones.

    Raises:
        InputError: the source is above `data.max_rejected_fraction`, or its own settings leave out
            all of its rows.
    """
    left_out = left_out_rows(reasons)
    if rows and left_out == rows:
        raise InputError(
            f"data.sources: {source!r}: where and drop_labels leave out all of its {rows} rows "
            f"({_list_reasons(reasons)}). Correct these settings."
        )
    reasons = _without_left_out(reasons)
    rejected, rows = sum_rows(reasons), rows - left_out
    if rejected > config.max_rejected_fraction * rows:
        hint = _HINTS.get(rank_reasons(reasons)[0][0], "")
        raise InputError(
            f"data.sources: {source!r}: {rejected} of {rows} rows are unusable, above "
            f"data.max_rejected_fraction={config.max_rejected_fraction}: "
            f"{_list_reasons(reasons)}. Correct them{hint and f' ({hint})'}, or raise the limit."
        )


def check_excluded_source(
    source: str, rows: int, reasons: RejectedByReason, config: DataConfig
) -> None:
    """Refuse a source of `data.exclude` with unreadable rows: they cannot be excluded.

    A row without a text has nothing to exclude. It counts against the limit only.

    Raises:
        InputError: a row with a text cannot be read, or too many rows have no text.
    """
    reasons = _without_left_out(reasons)
    rejected = sum_rows(reasons)
    without_text = reasons["missing_text"].rows if "missing_text" in reasons else 0
    if rejected > without_text or rejected > config.max_rejected_fraction * rows:
        raise InputError(
            f"data.exclude: {source!r}: {rejected} of {rows} rows cannot be read, so their texts "
            f"cannot be excluded: {_list_reasons(reasons)}. Correct the file, or set the source's "
            "text column and format."
        )


def _without_left_out(reasons: RejectedByReason) -> dict[str, RejectedRows]:
    return {name: entry for name, entry in reasons.items() if name not in (LEFT_OUT, DROPPED)}


def _list_reasons(reasons: RejectedByReason) -> str:
    return "; ".join(
        f"{reason}: {entry.rows} (first: {entry.first})"
        for reason, entry in rank_reasons(reasons)[:_MAX_LISTED_REASONS]
    )
