"""Count the texts and tokens that exceed the model's maximum length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finsent.inference.encoder import Encoded

REMEDY = "Train with a larger model.max_length, or split long texts."


@dataclass(frozen=True)
class Truncation:
    """Counts over texts; tokens include special tokens."""

    max_length: int  # of the model, in tokens
    rows: int
    cut: int  # rows that lost tokens
    tokens: int  # of all rows before the cut
    left_out: int  # tokens

    @classmethod
    def of(cls, encoded: Sequence[Encoded], max_length: int) -> Truncation:
        """Return the counts over encoded texts."""
        return cls(
            max_length=max_length,
            rows=len(encoded),
            cut=sum(text.truncated for text in encoded),
            tokens=sum(len(text.ids) + text.cut_tokens for text in encoded),
            left_out=sum(text.cut_tokens for text in encoded),
        )

    def record(self) -> dict[str, Any]:
        """Return counts and shares for a result."""
        return {
            **asdict(self),
            "cut_share": self.cut / max(self.rows, 1),
            "left_out_share": self.left_out / max(self.tokens, 1),
        }


def truncation_line(record: dict[str, Any], remedy: str = REMEDY) -> str | None:
    """Return the line on texts that were cut, with the remedy; None: no text was cut."""
    if not record["cut"]:
        return None
    cut, rows, max_length = record["cut"], record["rows"], record["max_length"]
    return (
        f"{cut:,} of {rows:,} texts ({_percent(record['cut_share'])}) are longer than the model's "
        f"{max_length} tokens and are cut: {_percent(record['left_out_share'])} of all tokens are "
        f"left out. {remedy}"
    )


def _percent(share: float) -> str:
    return "less than 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
