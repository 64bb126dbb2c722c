"""Tokenized rows in memory: two flat arrays instead of a list of lists.

Ray's processes that only tokenize import this module, so torch and transformers are imported where
they are used: each costs such a process seconds.
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

TOKENISED = pa.schema(
    [
        ("key", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("label", pa.int64()),
        ("weight", pa.float32()),
        ("agreement", pa.float32()),  # null: not known
        ("target", pa.list_(pa.float32(), len(LABELS))),  # probabilities; null: the label
    ]
)
COLUMNS = ("key", "text", "label", "weight", "agreement")  # of a split, as `tokenize` wants them
Targets = npt.NDArray[np.float32]


@functools.lru_cache(maxsize=2)
def cutting_tokenizer(source: str, revision: str | None, max_length: int) -> Tokenizer:
    """Return the tokenizer that cuts texts as training does."""
    # Loading takes longer than tokenizing a block: once a process, not once a block.
    file = plain_tokenizer_file(source)
    if file is None:
        from finsent.modeling.classifier import load_tokenizer

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
        rows: with columns `key`, `text`, `label` (name), and, where rows have them, `weight` (else
            1) and `agreement` (else unknown).
        max_length: tokens, special ones included; the rest of a text is cut off.
        targets: probabilities to learn in place of the labels, shape (rows, labels).

    Returns:
        Schema `TOKENISED`; labels as ids.
    """
    tokenizer = cutting_tokenizer(source, revision, max_length)
    encoded = tokenizer.encode_batch_fast(rows["text"].to_pylist())
    ids = pa.array([row.ids for row in encoded], pa.list_(pa.int32()))
    labels = pa.array([LABEL2ID[name] for name in rows["label"].to_pylist()], pa.int64())
    size = rows.num_rows
    weight = pa.array(np.ones(size, np.float32))
    columns = [
        rows["weight"] if "weight" in rows.column_names else weight,
        rows["agreement"] if "agreement" in rows.column_names else pa.nulls(size, pa.float32()),
    ]
    soft = pa.nulls(size, TOKENISED.field("target").type)
    if targets is not None:
        flat = pa.array(targets.astype(np.float32).ravel())
        soft = pa.FixedSizeListArray.from_arrays(flat, len(LABELS))
    return pa.table([rows["key"], ids, labels, *columns, soft], schema=TOKENISED)


def _doubles(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return found


def _targets(column: pa.ChunkedArray, labels: npt.NDArray[np.int64]) -> Targets | None:
    if column.null_count == len(column):
        return None
    targets = np.eye(len(LABELS), dtype=np.float32)[labels]
    given = column.is_valid().to_numpy()
    soft = column.drop_null().combine_chunks()
    soft = soft.chunk(0) if isinstance(soft, pa.ChunkedArray) else soft
    targets[given] = soft.flatten().to_numpy().reshape(-1, len(LABELS))
    return targets


@dataclass(frozen=True)
class Batch:
    """One rank's share of a step, padded to its longest row."""

    input_ids: torch.Tensor  # (rows, longest), int64
    attention_mask: torch.Tensor  # (rows, longest), int64
    labels: torch.Tensor  # (rows,), int64
    targets: torch.Tensor  # what to learn: the labels, or probabilities (rows, labels), float32
    tokens: int  # real ones

    @property
    def padded_tokens(self) -> int:
        """Rows times longest row."""
        return self.input_ids.numel()


class TokenRows:
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
        self.agreement = _doubles(table["agreement"])  # NaN: not known
        self.lengths: npt.NDArray[np.int64] = np.diff(offsets)
        self._keys = table["key"]
        self.targets = _targets(table["target"], self.labels)  # None: the labels

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_table(cls, table: pa.Table, pad_id: int) -> TokenRows:
        """From schema `TOKENISED`, sorted by key: the order of Ray's blocks does not matter."""
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
        """The keys of rows by index."""
        found: list[str] = self._keys.take(pa.array(rows)).to_pylist()
        return found

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Gather and pad rows by index."""
        import torch

        lengths = self.lengths[rows]
        longest = int(lengths.max())
        inside = np.arange(longest) < lengths[:, None]
        ids = np.full((len(rows), longest), self._pad_id, np.int64)
        positions = self._offsets[rows][:, None] + np.arange(longest)
        ids[inside] = self._ids[positions[inside]]
        labels = torch.from_numpy(self.labels[rows])
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(inside.astype(np.int64)),
            labels,
            labels if self.targets is None else torch.from_numpy(self.targets[rows]),
            int(lengths.sum()),
        )
