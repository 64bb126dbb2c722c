"""From raw rows to normalised, labelled, keyed rows; bad ones carry a reason."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.config import DataConfig
from finsent.labels import LABELS

CLEAN = pa.schema(
    [
        ("source", pa.int32()),
        ("row", pa.int64()),
        ("raw_text", pa.string()),
        ("raw_label", pa.string()),
        ("text", pa.string()),
        ("label", pa.int8()),  # position in LABELS; null when the row is rejected
        ("key", pa.string()),  # 32 hex digits: what makes two texts the same
        ("reason", pa.string()),  # why the row is rejected; null when it is good
    ]
)


def normalise(text: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """One spelling for texts that look alike: NFC, single spaces, no control or invisible marks.

    Idempotent. Letters keep their case: readers of the data want it, and cased backbones too.
    """
    text = pc.utf8_normalize(text, form="NFC")
    text = pc.replace_substring_regex(
        text, pattern=r"[\s\x{0b}\x{1c}-\x{1f}\x{85}\p{Z}]+", replacement=" "
    )
    text = pc.replace_substring_regex(text, pattern=r"[\p{Cc}\p{Cf}]+", replacement="")
    # Removing an invisible mark may bring two spaces, or a letter and its accent, together.
    text = pc.replace_substring_regex(text, pattern=" {2,}", replacement=" ")
    return pc.utf8_trim_whitespace(pc.utf8_normalize(text, form="NFC"))


def text_keys(text: pa.ChunkedArray | pa.Array) -> pa.Array:
    """BLAKE2b-128 of each normalised text in lower case, as hex: equal for duplicates."""
    blake2b = hashlib.blake2b
    lowered = pc.utf8_lower(text).to_pylist()
    return pa.array([blake2b(t.encode(), digest_size=16).hexdigest() for t in lowered], pa.string())


def clean(rows: pa.Table, config: DataConfig) -> pa.Table:
    """Normalise texts, map labels to ids, and give each bad row its reason.

    Args:
        rows: schema `finsent.data.sources.ROWS`.

    Returns:
        The same rows, schema `CLEAN`.
    """
    text = normalise(rows["raw_text"])
    raw_label = pc.utf8_lower(pc.utf8_trim_whitespace(rows["raw_label"]))
    label = pc.index_in(raw_label, pa.array(LABELS))
    reason = pc.case_when(
        pc.make_struct(
            pc.is_valid(rows["fault"]),
            pc.equal(text, ""),
            pc.greater(pc.utf8_length(text), config.max_chars),
            pc.fill_null(pc.equal(raw_label, ""), True),
            pc.is_null(label),
        ),
        rows["fault"],
        pa.scalar("missing_text"),
        pa.scalar("text_too_long"),
        pa.scalar("missing_label"),
        pa.scalar("unknown_label"),
        pa.scalar(None, pa.string()),
    )
    label = pc.if_else(pc.is_null(reason), label, None)
    columns = [rows[c] for c in ("source", "row", "raw_text", "raw_label")]
    return pa.table(
        [*columns, text, pc.cast(label, pa.int8()), text_keys(text), reason], schema=CLEAN
    )
