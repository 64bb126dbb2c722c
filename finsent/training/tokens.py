"""Tokenized rows in memory: two flat arrays instead of a list of lists.

Ray's processes that only tokenize import this module, so torch (1.2 CPU seconds) and transformers
(3 CPU seconds) are imported inside functions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from finsent.labels import LABEL2ID, LABELS
from finsent.modeling.backbone import plain_tokenizer_file

if TYPE_CHECKING:
    import torch

TOKENIZED_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("label", pa.int64()),
        ("weight", pa.float32()),
        ("agreement", pa.float32()),  # null: unknown
        ("target", pa.list_(pa.float32(), len(LABELS))),  # probabilities; null: learn the label
    ]
)
SPLIT_COLUMNS = ("key", "text", "label", "weight", "agreement")  # that `tokenize` reads
Targets = npt.NDArray[np.float32]


@functools.lru_cache(maxsize=2)
def truncating_tokenizer(source: str, revision: str | None, max_length: int) -> Tokenizer:
    """Return the tokenizer that truncates texts as training does."""
    # Cached: loading takes longer than tokenizing a block.
    file = plain_tokenizer_file(source)
    if file is None:
        from finsent.modeling.classifier import load_tokenizer  # see the docstring

        tokenizer = load_tokenizer(source, revision).backend_tokenizer
    else:
        tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


def tokenize(
    rows: pa.Table,
    source: str,
    revision: str | None,
    max_length: int,
    targets: Targets | None = None,
) -> pa.Table:
    """Tokenize a block of a split.

    Args:
        rows: with columns `key`, `text`, `label` (name), and optionally `weight` (default 1) and
            `agreement` (default unknown).
        max_length: tokens of a row with special ones; longer texts are truncated.
        targets: probabilities to learn instead of the labels, shape (rows, labels).

    Returns:
        A table of `TOKENIZED_SCHEMA`; labels are ids.
    """
    tokenizer = truncating_tokenizer(source, revision, max_length)
    encodings = tokenizer.encode_batch_fast(rows["text"].to_pylist())
    ids = pa.array([encoding.ids for encoding in encodings], pa.list_(pa.int32()))
    labels = pa.array([LABEL2ID[name] for name in rows["label"].to_pylist()], pa.int64())
    row_count, columns = rows.num_rows, rows.column_names
    weight = rows["weight"] if "weight" in columns else pa.array(np.ones(row_count, np.float32))
    agreement = rows["agreement"] if "agreement" in columns else pa.nulls(row_count, pa.float32())
    target = pa.nulls(row_count, TOKENIZED_SCHEMA.field("target").type)
    if targets is not None:
        flat = pa.array(targets.astype(np.float32).ravel())
        target = pa.FixedSizeListArray.from_arrays(flat, len(LABELS))
    return pa.table([rows["key"], ids, labels, weight, agreement, target], schema=TOKENIZED_SCHEMA)


def _doubles(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return values


def _targets(column: pa.ChunkedArray, labels: npt.NDArray[np.int64]) -> Targets | None:
    if column.null_count == len(column):
        return None
    targets = np.eye(len(LABELS), dtype=np.float32)[labels]
    has_target = column.is_valid().to_numpy()
    lists = column.drop_null().combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    targets[has_target] = lists.flatten().to_numpy().reshape(-1, len(LABELS))
    return targets


@dataclass(frozen=True)
class Batch:
    """Rows of a micro-batch, padded to the longest row."""

    input_ids: torch.Tensor  # (rows, longest), int64
    attention_mask: torch.Tensor  # (rows, longest), int64
    labels: torch.Tensor  # (rows,), int64
    targets: torch.Tensor  # to learn: the labels, or probabilities (rows, labels), float32
    tokens: int  # without padding

    @property
    def padded_tokens(self) -> int:
        """Tokens with padding: rows times longest row."""
        return self.input_ids.numel()


class TokenizedRows:
    """All rows of a split, in an order that depends on the rows alone."""

    def __init__(
        self,
        ids: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        table: pa.Table,
        pad_id: int,
    ) -> None:
        self._ids, self._offsets, self._pad_id = ids, offsets, pad_id
        self.labels: npt.NDArray[np.int64] = table["label"].to_numpy()
        self.weight: npt.NDArray[np.float64] = _doubles(table["weight"].fill_null(1.0))
        self.agreement = _doubles(table["agreement"])  # NaN: unknown
        self.lengths: npt.NDArray[np.int64] = np.diff(offsets)
        self._keys = table["key"]
        self.targets = _targets(table["target"], self.labels)  # None: learn the labels

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_table(cls, table: pa.Table, pad_id: int) -> TokenizedRows:
        """Read a table of `TOKENIZED_SCHEMA`, and sort by key: the order of blocks varies."""
        table = table.sort_by("key").combine_chunks()
        lists = table["input_ids"].combine_chunks()
        lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
        return cls(
            lists.flatten().to_numpy(),
            np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())]).astype(np.int64),
            table,
            pad_id,
        )

    def keys(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the keys of rows by index."""
        keys: list[str] = self._keys.take(pa.array(rows)).to_pylist()
        return keys

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Gather and pad rows by index."""
        import torch  # see the module's docstring

        lengths = self.lengths[rows]
        longest = int(lengths.max())
        is_token = np.arange(longest) < lengths[:, None]
        ids = np.full((len(rows), longest), self._pad_id, np.int64)
        positions = self._offsets[rows][:, None] + np.arange(longest)
        ids[is_token] = self._ids[positions[is_token]]
        labels = torch.from_numpy(self.labels[rows])
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(is_token.astype(np.int64)),
            labels,
            labels if self.targets is None else torch.from_numpy(self.targets[rows]),
            int(lengths.sum()),
        )
