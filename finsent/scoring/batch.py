"""Score files by one model into one directory; a restart keeps finished files and parts."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from finsent import metric_list
from finsent.data.config import DataConfig
from finsent.data.sources.carried_columns import with_all_rows
from finsent.data.sources.files import find_texts
from finsent.data.sources.source_file import SourceFile
from finsent.disk import translate_disk_errors
from finsent.errors import InputError
from finsent.files import digest, make_dir
from finsent.inference.truncation_record import REMEDY
from finsent.job_metrics import JobMetrics
from finsent.progress import progress_bar
from finsent.scoring.config import PredictConfig
from finsent.scoring.model import ScoringModel
from finsent.scoring.records import ScoredFile
from finsent.scoring.scored import ScoredDir, choose_inputs, output_names

log = logging.getLogger(__name__)

Files = dict[str, SourceFile]  # by the path of the scored file in the output


class Pool(Protocol):
    """Engines that score tables."""

    backend: str
    count: int

    def map(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Score tables, and yield the results in their order."""


@dataclass(frozen=True)
class Summary:
    """What the scored files of a batch hold."""

    files: dict[str, str]  # path of the scored file by name of the input
    rows: int
    truncated: int
    labels: dict[str, int]
    faults: dict[str, int]


class Batch:
    """Files that one model scores into one directory."""

    def __init__(self, model: ScoringModel, config: PredictConfig, files: Files, out: Path) -> None:
        """Find the files that are finished already.

        Raises:
            InputError: the output cannot be written, or holds other files of these names.
        """
        make_dir(out, "predict.output")
        self._config, self._files, self._scored = config, files, ScoredDir(out)
        self._identities = {
            output: _identity(model, config, file) for output, file in files.items()
        }
        self._records: dict[str, ScoredFile] = {}
        for output, identity in self._identities.items():
            record = self._scored.finished(output, identity)
            if record is not None:
                self._records[output] = record
        self.finished_before = len(self._records)
        for output, file in self.pending.items():
            self._scored.check_free(output, file)
        if self._records:
            log.info("predict: %d of %d file(s) are finished", len(self._records), len(files))

    @property
    def pending(self) -> Files:
        """The files that are not finished."""
        return {name: file for name, file in self._files.items() if name not in self._records}

    def earlier_backend(self) -> str | None:
        """Return the backend of a file that an earlier run left unfinished, or None."""
        for output, record in self._scored.records().items():
            if not record.finished and record.identity == self._identities.get(output):
                return record.backend
        return None

    def score(self, pool: Pool, metrics: JobMetrics) -> float:
        """Score the pending files one after another.

        Args:
            metrics: of the run.

        Returns:
            Rows per second.

        Raises:
            InputError: a file is unusable, or its output is another file's.
        """
        pending, rows = self.pending, 0
        log.info("predict: %d file(s), %d process(es), %s", len(pending), pool.count, pool.backend)
        started = time.perf_counter()
        total = sum(file.count_rows() for file in pending.values())
        with (
            progress_bar("predict", "row", total, terminal_seconds=0.2, log_seconds=10.0) as bar,
            translate_disk_errors(self._scored.path, "predict.output", reads=True),
        ):
            progress = _Progress(bar, total, metrics)
            for output, file in pending.items():
                rows += self.score_file(output, file, pool, progress)
        return rows / (time.perf_counter() - started)

    def score_file(self, output: str, file: SourceFile, pool: Pool, progress: _Progress) -> int:
        """Score a file, and record it in the manifest when it is complete.

        Returns:
            The rows that this run scored.
        """
        scored, identity = self._scored, self._identities[output]
        with scored.parts(output) as parts:
            finished = scored.finished(output, identity)  # by another process, meanwhile
            if finished is not None:
                parts.remove()
                self._records[output] = finished
                return 0
            scored.check_free(output, file)
            record = ScoredFile(
                input=file.origin, identity=identity, backend=pool.backend, finished=False
            )
            scored.update(output, record)
            parts.open(digest([identity, pool.backend]))
            new_rows = old_rows = 0
            try:
                for rows, existed in parts.score(file, pool.map):
                    progress.add(rows, is_new=not existed)
                    old_rows, new_rows = old_rows + rows * existed, new_rows + rows * (not existed)
            except InputError:  # the file must change, and its parts with it
                parts.remove()
                raise
            if old_rows:
                log.info("predict: %s resumed after %d row(s)", file.name, old_rows)
            counts = parts.merge(file, scored.path / output, self._config.format)
            record = record.finish(counts)
            # Before the parts go and the lock with them: a run that ends here scores no row again.
            scored.update(output, record)
            self._records[output] = record
            parts.remove()
        return new_rows

    def summary(self) -> Summary:
        """Return what the scored files hold, and warn of texts that were cut."""
        records = self._records.values()
        rows, truncated = sum(r.rows for r in records), sum(r.truncated for r in records)
        if truncated:
            log.warning(
                "predict: %s of %s rows (%.1f%%) are longer than the model's maximum length and "
                "are cut: see the column truncated. %s",
                f"{truncated:,}",
                f"{rows:,}",
                100 * truncated / rows,
                REMEDY,
            )
        return Summary(
            {self._files[output].name: output for output in self._records},
            rows,
            truncated,
            _total(record.labels for record in records),
            _total(record.faults for record in records),
        )


class _Progress:
    """Progress over the rows of all files: on a bar, and in Prometheus."""

    def __init__(self, bar: Any, total_rows: int, metrics: JobMetrics) -> None:
        self._bar, self._total, self._metrics = bar, total_rows, metrics

    def add(self, rows: int, *, is_new: bool) -> None:
        """Add finished rows.

        Args:
            is_new: whether this run scored the rows.
        """
        self._bar.update(rows)
        if is_new:
            self._metrics.add(metric_list.PREDICT_ROWS, rows)
        self._metrics.set(metric_list.PREDICT_PROGRESS, self._bar.n / max(self._total, 1))


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return dict(total)


def _identity(model: ScoringModel, config: PredictConfig, file: SourceFile) -> str:
    """Return the digest of all that determines a scored file: rows, model, engine, columns."""
    engine = model.config.model_dump(include={"backend", "precision", "truncate"})
    carried = [field.name for field in file.columns.carried]
    return digest([file.identity, carried, model.identity(), engine, config.format])


def find_files(config: PredictConfig, data: DataConfig, cache: Path, out: Path) -> Files:
    """Return the files to score by the paths of their scored files in the output.

    Args:
        cache: directory for files that hubs deliver.

    Raises:
        InputError: a file is unusable, lacks a column, or two would be scored into one.
    """
    files = find_texts(config.input, data, cache, "predict.input", choose_inputs(out))
    columns, field = config.columns, "predict.columns"
    if config.source_column is not None and columns != "all":
        field = field if columns else "predict.source_column"
        columns = [*columns, config.source_column]
    files = [with_all_rows(file, columns, field) for file in files]
    outputs = output_names(files, config.format)
    return {
        output: replace(file, name=output.removesuffix(f".{config.format}"))
        for output, file in zip(outputs, files, strict=True)
    }
