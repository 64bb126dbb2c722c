"""Tokenized rows equal those of the backbone's tokenizer, in any order of Ray's blocks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer

from finsent.labels import LABEL2ID, LABELS
from finsent.modeling.backbone import plain_tokenizer_file, resolve_backbone
from finsent.modeling.classifier import load_tokenizer
from finsent.modeling.config import ModelConfig
from finsent.training.tokens import TOKENIZED_SCHEMA, TokenizedRows, tokenize

pytestmark = pytest.mark.cost(1, "starts a process")

TEXTS = [
    "Profit rose.",
    "The board of Halvorsen Plc proposes a dividend of EUR 0.45 a share, up 12 % on the year.",
    "¥ fell — Zürich's traders shrugged; naïve bets lost 5½ bn",
    "利益は増加した 📈",
    "sales " * 90,
    "",
    "!",
]


def table(texts: list[str]) -> pa.Table:
    keys = [f"{i:04d}" for i in range(len(texts))]
    labels = [LABELS[i % 3] for i in range(len(texts))]
    return pa.table({"key": keys, "text": texts, "label": labels})


def tokenized(ids: list[list[int]], keys: list[str] | None = None) -> pa.Table:
    labels = [i % 3 for i in range(len(ids))]
    keys = keys or [f"{i:04d}" for i in range(len(ids))]
    columns = [keys, ids, labels, [1.0] * len(ids), [None] * len(ids), [None] * len(ids)]
    return pa.table(columns, schema=TOKENIZED_SCHEMA)


def row_ids(rows: TokenizedRows, index: int) -> list[int]:
    ids: list[int] = rows.batch(np.array([index])).input_ids[0].tolist()
    return ids


# --- tokenizing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("max_length", [8, 16, 512])
def test_ids_are_those_of_the_transformers_tokenizer(tiny: Path, max_length: int) -> None:
    tokenized_rows = tokenize(table(TEXTS), str(tiny), None, max_length)
    assert tokenized_rows.schema == TOKENIZED_SCHEMA
    expected = load_tokenizer(str(tiny))(TEXTS, truncation=True, max_length=max_length).input_ids
    assert tokenized_rows["input_ids"].to_pylist() == expected
    assert tokenized_rows["key"].to_pylist() == table(TEXTS)["key"].to_pylist()


TRICKY = [
    *TEXTS,
    "[CLS] [MASK] [SEP][PAD]",
    "a\u0301 \u00c5 \ufb01 \u0130",
    "\x00\ufffd\u200b",
    "東京 \uff21\uff22\uff23",
    "x" * 300,
]


@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_plain_tokenizer_is_that_of_transformers(tiny: Path, name: str) -> None:
    config = ModelConfig(backbone=name)
    source = resolve_backbone(config, tiny.parent).source
    file = plain_tokenizer_file(source)
    assert file is not None
    plain, full = Tokenizer.from_file(str(file)), load_tokenizer(source).backend_tokenizer
    for tokenizer in (plain, full):
        tokenizer.no_padding()
        tokenizer.enable_truncation(64)
    assert plain.to_str() == full.to_str()
    ids = [[row.ids for row in tokenizer.encode_batch(TRICKY)] for tokenizer in (plain, full)]
    assert ids[0] == ids[1]


def test_tokenizer_that_transformers_changes_is_loaded_by_transformers(
    tiny: Path, tmp_path: Path
) -> None:
    assert plain_tokenizer_file("somebody/model") is None
    folder = shutil.copytree(tiny, tmp_path / "cased")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert plain_tokenizer_file(str(folder)) is None
    ids = tokenize(table(["PROFIT"]), str(folder), None, 16)["input_ids"].to_pylist()
    assert ids == load_tokenizer(str(folder))(["PROFIT"]).input_ids
    assert ids != tokenize(table(["PROFIT"]), str(tiny), None, 16)["input_ids"].to_pylist()


def test_tokenizing_imports_neither_torch_nor_transformers(tiny: Path) -> None:
    code = (
        "import sys, pyarrow as pa; from finsent.training.tokens import tokenize; "
        "tokenize(pa.table({'key': ['a'], 'text': ['Up'], 'label': ['neutral']}), sys.argv[1], "
        "None, 8); sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny)], check=True)


def test_labels_become_ids(tiny: Path) -> None:
    rows = table(TEXTS)
    ids = tokenize(rows, str(tiny), None, 16)["label"].to_pylist()
    assert ids == [LABEL2ID[name] for name in rows["label"].to_pylist()]


def test_only_long_texts_are_truncated(tiny: Path) -> None:
    long = tokenize(table(TEXTS), str(tiny), None, 512)["input_ids"].to_pylist()
    cut = tokenize(table(TEXTS), str(tiny), None, 16)["input_ids"].to_pylist()
    assert max(map(len, long)) > 16
    assert [len(row) for row in cut] == [min(len(row), 16) for row in long]


def test_cached_tokenizers_keep_their_own_limits(tiny: Path) -> None:
    """Tokenizers are cached, and each has its own limit."""
    tokens = tokenize(table(TEXTS), str(tiny), None, 16)
    tokenize(table(TEXTS), str(tiny), None, 8)
    assert tokenize(table(TEXTS), str(tiny), None, 16) == tokens


def test_ids_of_a_text_do_not_depend_on_its_block(tiny: Path) -> None:
    one_block = tokenize(table(TEXTS), str(tiny), None, 64)
    parts = [tokenize(table(TEXTS).slice(i, 1), str(tiny), None, 64) for i in range(len(TEXTS))]
    assert pa.concat_tables(parts).combine_chunks() == one_block.combine_chunks()


def test_empty_block_keeps_its_columns(tiny: Path) -> None:
    tokenized_rows = tokenize(table(TEXTS).slice(0, 0), str(tiny), None, 16)
    assert tokenized_rows.schema == TOKENIZED_SCHEMA
    assert tokenized_rows.num_rows == 0


# --- rows -----------------------------------------------------------------------------------------

IDS = [[5, 6, 7], [8], [], [9, 10, 11, 12], [13, 14]]


def shuffled(rows: pa.Table, seed: int) -> pa.Table:
    return rows.take(np.random.default_rng(seed).permutation(rows.num_rows))


def in_blocks(rows: pa.Table, size: int) -> pa.Table:
    parts = [rows.slice(i, size) for i in range(0, rows.num_rows, size)]
    return pa.concat_tables(parts)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_order_and_size_of_blocks_do_not_matter(seed: int, size: int) -> None:
    rows = TokenizedRows.from_table(in_blocks(shuffled(tokenized(IDS), seed), size), pad_id=0)
    assert [row_ids(rows, i) for i in range(len(rows))] == IDS
    assert rows.lengths.tolist() == [3, 1, 0, 4, 2]
    assert rows.labels.tolist() == [0, 1, 2, 0, 1]


def test_part_of_a_table_holds_only_its_own_rows() -> None:
    rows = TokenizedRows.from_table(tokenized(IDS).slice(1, 3), pad_id=0)
    assert [row_ids(rows, i) for i in range(len(rows))] == IDS[1:4]


def test_empty_split_has_no_rows() -> None:
    rows = TokenizedRows.from_table(TOKENIZED_SCHEMA.empty_table(), pad_id=0)
    assert len(rows) == 0
    assert rows.lengths.tolist() == []


# --- batches --------------------------------------------------------------------------------------


def indices(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def test_batch_is_padded_to_its_longest_row_and_masked() -> None:
    batch = TokenizedRows.from_table(tokenized(IDS), pad_id=3).batch(indices(4, 0, 1))
    assert batch.input_ids.tolist() == [[13, 14, 3], [5, 6, 7], [8, 3, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [1, 0, 1]
    assert (batch.tokens, batch.padded_tokens) == (6, 9)
    tensors = (batch.input_ids, batch.attention_mask, batch.labels)
    assert {tensor.dtype for tensor in tensors} == {torch.int64}


def test_real_token_that_equals_the_padding_is_not_masked() -> None:
    batch = TokenizedRows.from_table(tokenized([[0, 4], [0]]), pad_id=0).batch(indices(0, 1))
    assert batch.attention_mask.tolist() == [[1, 1], [1, 0]]


def test_row_without_tokens_is_all_padding() -> None:
    batch = TokenizedRows.from_table(tokenized(IDS), pad_id=3).batch(indices(2, 1))
    assert batch.input_ids.tolist() == [[3], [8]]
    assert batch.attention_mask.tolist() == [[0], [1]]


def test_batch_may_repeat_a_row() -> None:
    batch = TokenizedRows.from_table(tokenized(IDS), pad_id=3).batch(indices(1, 1))
    assert batch.input_ids.tolist() == [[8], [8]]


def test_batch_equals_the_padding_of_transformers(tiny: Path) -> None:
    tokenizer = load_tokenizer(str(tiny))
    rows = TokenizedRows.from_table(
        tokenize(table(TEXTS), str(tiny), None, 32), tokenizer.pad_token_id
    )
    expected = tokenizer(TEXTS, truncation=True, max_length=32, padding=True, return_tensors="pt")
    batch = rows.batch(np.arange(len(TEXTS)))
    assert torch.equal(batch.input_ids, expected.input_ids)
    assert torch.equal(batch.attention_mask, expected.attention_mask)
