"""How much of the texts a model does not read, as they are longer than its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finsent.inference.encode import Encoded

REMEDY = "Train with a larger model.max_length, or split long texts."


@dataclass(frozen=True)
class Truncation:
    """Counts over texts; tokens include the special ones."""

    max_length: int  # tokens that the model reads
    rows: int
    cut: int  # rows that lost tokens
    tokens: int  # of all rows before the cut
    left_out: int  # tokens

    @classmethod
    def of(cls, encoded: Sequence[Encoded], max_length: int) -> Truncation:
        """Count over encoded texts."""
        return cls(
            max_length=max_length,
            rows=len(encoded),
            cut=sum(text.truncated for text in encoded),
            tokens=sum(len(text.ids) + text.left_out for text in encoded),
            left_out=sum(text.left_out for text in encoded),
        )

    def record(self) -> dict[str, Any]:
        """Return the counts with the shares, JSON-able."""
        return {
            **asdict(self),
            "cut_share": self.cut / max(self.rows, 1),
            "left_out_share": self.left_out / max(self.tokens, 1),
        }


def truncation_line(record: dict[str, Any], remedy: str = REMEDY) -> str | None:
    """Return the line on texts that were cut, with the remedy; None: none was cut."""
    if not record["cut"]:
        return None
    cut, rows, most = record["cut"], record["rows"], record["max_length"]
    return (
        f"{cut:,} of {rows:,} texts ({_share(record['cut_share'])}) are longer than the model's "
        f"{most} tokens and are cut: {_share(record['left_out_share'])} of all tokens are left "
        f"out. {remedy}"
    )


def _share(share: float) -> str:
    return "less than 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
