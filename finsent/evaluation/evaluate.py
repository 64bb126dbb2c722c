"""Measure a model on labelled rows, beside baselines."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.labelled import read_labelled
from finsent.data.sources import find_sources
from finsent.errors import InputError
from finsent.evaluation import baselines
from finsent.evaluation.metrics import confusion, scores
from finsent.inference.engine import Engine
from finsent.labels import LABEL2ID


def label_ids(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Ids of a table's `label` column (names)."""
    return np.array([LABEL2ID[name] for name in rows["label"].to_pylist()], np.int64)


def evaluate(
    engine: Engine, rows: pa.Table, train: pa.Table | None, seen: pa.ChunkedArray | None
) -> dict[str, Any]:
    """Score the engine, and the baselines when there are training rows to fit them on.

    Args:
        rows: with `key`, `text` and `label` columns.
        train: rows to fit the baselines on, same columns; None: no baselines.
        seen: keys of the rows that the model was trained on; None: not at hand.

    Returns:
        `finsent.evaluation.metrics.scores` of the model, `rows_per_second`, `seen_in_training`
        (rows whose text the model was trained on; None: unknown), and with `train` also `baselines`
        by name.
    """
    texts, truth = rows["text"].to_pylist(), label_ids(rows)
    started = time.perf_counter()
    every = 0.2 if sys.stderr.isatty() else 10.0
    bar = tqdm(total=len(texts), unit="row", desc="evaluate", mininterval=every, file=sys.stderr)
    with bar:
        predicted = engine.probabilities(texts, bar.update).argmax(1)
    seconds = time.perf_counter() - started
    result = scores(confusion(truth, predicted)) | {"rows_per_second": len(texts) / seconds}
    result["seen_in_training"] = (
        None if seen is None else int(pc.sum(pc.is_in(rows["key"], seen)).as_py() or 0)
    )
    if train is not None:
        fitted = label_ids(train)
        guesses = {
            "majority": baselines.majority(fitted, len(texts)),
            "tfidf_logreg": baselines.tfidf(train["text"].to_pylist(), fitted, texts),
        }
        result["baselines"] = {n: scores(confusion(truth, g)) for n, g in guesses.items()}
    return result


def read_benchmark(sources: list[SourceConfig], config: DataConfig, cache: Path) -> pa.Table:
    """Read labelled files to measure on: cleaned, distinct, conflicts dropped; all splits as one.

    Args:
        cache: directory for what hubs deliver.

    Raises:
        InputError: a file is unusable, or nothing is left.
    """
    config = config.model_copy(update={"sources": sources, "exclude": [], "conflicts": "drop"})
    table = read_labelled(find_sources(config, cache), config)
    if not len(table):
        shown = [source.uri for source in sources]
        raise InputError(f"evaluate.sources={shown}: no usable row; add labelled rows")
    return table


def write_report(result: dict[str, Any], out: Path, title: str) -> None:
    """Write `metrics.json` and `confusion.png`."""
    from finsent.evaluation.pictures import confusion_picture
    from finsent.files import write_json

    out.mkdir(parents=True, exist_ok=True)
    confusion_picture(np.array(result["confusion"]), out / "confusion.png", title)
    write_json(out / "metrics.json", result)
