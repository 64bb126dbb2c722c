"""Counts of the texts and tokens that exceed a model's maximum length. Imports no tokenizers."""

from __future__ import annotations

from finsent.records import Record

REMEDY = "Train with a larger model.max_length, or split long texts."


class TruncationRecord(Record):
    """Counts and shares over texts, as results store them; tokens include special tokens."""

    max_length: int  # of the model, in tokens
    rows: int
    cut: int  # rows that lost tokens
    tokens: int  # of all rows before the cut
    left_out: int  # tokens
    cut_share: float  # of the rows
    left_out_share: float  # of the tokens


def truncation_line(record: TruncationRecord, remedy: str = REMEDY) -> str | None:
    """Return the line on texts that were cut, with the remedy; None: no text was cut."""
    if not record.cut:
        return None
    return (
        f"{record.cut:,} of {record.rows:,} texts ({_percent(record.cut_share)}) are longer than "
        f"the model's {record.max_length} tokens and are cut: "
        f"{_percent(record.left_out_share)} of all tokens are left out. {remedy}"
    )


def _percent(share: float) -> str:
    return "less than 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
