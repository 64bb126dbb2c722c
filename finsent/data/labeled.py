"""Labeled files that are read into memory: benchmark sets, which are small."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from finsent.data.config import DataConfig
from finsent.data.ingest.rejections import check_rejected, count_rejected
from finsent.data.ingest.settle import SourceTraits, described, settle
from finsent.data.rows.clean import GOOD, clean
from finsent.data.sources.source_file import SourceFile

log = logging.getLogger(__name__)


def read_labeled(files: list[SourceFile], config: DataConfig) -> pa.Table:
    """Return all usable rows as one table: distinct texts, with conflicts resolved by `config`.

    Returns:
        Columns `key` (hex), `text`, `label` (name), `source`, `row` and `agreement` (a share;
        null: not known); sorted by key.

    Raises:
        InputError: a file is unusable, or too many of its rows are.
    """
    usable = [GOOD.empty_table()]
    for source, file in enumerate(files):
        row_count, rejected = 0, []
        for block in file.rows(source):
            cleaned = clean(block, file.settings, file.excluded, config)
            usable.append(cleaned.good)
            rejected.append(cleaned.rejected)
            row_count += len(block)
        reasons = count_rejected(pa.concat_tables(rejected)) if rejected else {}
        check_rejected(file.name, row_count, reasons, config)
    traits = SourceTraits.of(files)
    settled = settle(pa.concat_tables(usable), traits, config)
    rows = settled.kept
    left_out = {fate: int(count.sum()) for fate, count in settled.fates.items() if fate != "kept"}
    if any(left_out.values()):
        counts = ", ".join(f"{count} {fate}" for fate, count in left_out.items() if count)
        log.info("%s: %d rows are used; left out: %s", ", ".join(traits.names), len(rows), counts)
    columns = described(rows, rows["label"].to_numpy().astype(np.int64), traits)
    return pa.table({**columns, "agreement": rows["agreement"]})
