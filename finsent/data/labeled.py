"""Labeled files read whole: for benchmarks, which are small."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from finsent.data.config import DataConfig
from finsent.data.ingest.rejections import check_rejected, count_rejected
from finsent.data.ingest.settle import SourceTraits, described, settle
from finsent.data.rows.clean import GOOD, clean
from finsent.data.sources.files import SourceFile

log = logging.getLogger(__name__)


def read_labeled(files: list[SourceFile], config: DataConfig) -> pa.Table:
    """All usable rows as one table in memory: distinct, conflicts resolved as `config` says.

    Returns:
        Columns `key` (hex), `text`, `label` (name), `source`, `row` and `agreement` (a share;
        null: not known); sorted by key.

    Raises:
        InputError: a file is unusable, or too many of its rows are.
    """
    good = [GOOD.empty_table()]
    for index, file in enumerate(files):
        rows, rejected = 0, []
        for block in file.rows(index):
            cleaned = clean(block, file.settings, file.excluded, config)
            good.append(cleaned.good)
            rejected.append(cleaned.rejected)
            rows += len(block)
        reasons = count_rejected(pa.concat_tables(rejected)) if rejected else {}
        check_rejected(file.name, rows, reasons, config)
    traits = SourceTraits.of(files)
    settled = settle(pa.concat_tables(good), traits, config)
    kept = settled.kept
    left_out = {fate: int(rows.sum()) for fate, rows in settled.fates.items() if fate != "kept"}
    if any(left_out.values()):
        shown = ", ".join(f"{rows} {fate}" for fate, rows in left_out.items() if rows)
        log.info("%s: %d rows are used; left out: %s", ", ".join(traits.names), len(kept), shown)
    columns = described(kept, kept["label"].to_numpy().astype(np.int64), traits)
    return pa.table({**columns, "agreement": kept["agreement"]})
