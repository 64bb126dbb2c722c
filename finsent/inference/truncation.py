"""Count the texts and tokens that exceed the model's maximum length."""

from __future__ import annotations

from collections.abc import Sequence

from finsent.inference.encoder import Encoded
from finsent.inference.truncation_record import TruncationRecord


def count_truncation(encoded: Sequence[Encoded], max_length: int) -> TruncationRecord:
    """Return the counts over encoded texts.

    Args:
        max_length: of the model, in tokens.
    """
    rows, cut = len(encoded), sum(text.truncated for text in encoded)
    tokens = sum(len(text.ids) + text.cut_tokens for text in encoded)
    left_out = sum(text.cut_tokens for text in encoded)
    return TruncationRecord(
        max_length=max_length,
        rows=rows,
        cut=cut,
        tokens=tokens,
        left_out=left_out,
        cut_share=cut / max(rows, 1),
        left_out_share=left_out / max(tokens, 1),
    )
