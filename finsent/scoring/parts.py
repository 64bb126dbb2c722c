"""Score one file in parts that are stored one by one, so that a killed run resumes in the file."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.sources.source_file import SourceFile
from finsent.files import staged_file, write_text
from finsent.scoring.records import Counts
from finsent.scoring.score import scored_schema
from finsent.scoring.writers import open_writer

# Rows of a part and of one call of an engine: seconds of work, and an even load. Int8 answers
# depend slightly on the rows of their micro-batch, so a resumed run must cut where the first did.
PART_ROWS = 4096
_IDENTITY = "identity"

Score = Callable[[Iterable[pa.Table]], Iterator[pa.Table]]


def slices(file: SourceFile, size: int) -> Iterator[pa.Table]:
    """Return a file's records in tables of at most `size` rows, in order."""
    for block in file.rows(0):
        for start in range(0, len(block), size):
            # `take` copies. A slice would carry its complete block to another process.
            indices = range(start, min(start + size, len(block)))
            yield block.take(pa.array(indices)).combine_chunks()


@dataclass(frozen=True)
class Parts:
    """The scored parts of one file: an existing directory with one Parquet file per slice."""

    folder: Path
    rows: int = PART_ROWS  # of a part, at most

    def open(self, identity: str) -> None:
        """Keep the parts of an identity, and remove the parts of any other.

        Args:
            identity: digest of all that decides the answers.
        """
        record = self.folder / _IDENTITY
        if not record.is_file() or record.read_text() != identity:
            for path in self.folder.iterdir():
                path.unlink()
            write_text(record, identity)

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def score(self, file: SourceFile, score: Score) -> Iterator[tuple[int, bool]]:
        """Score the slices that have no part yet, and store each.

        Args:
            score: tables in, scored tables out, in the same order.

        Yields:
            Rows of each part, and whether the part existed.
        """
        pending = slices(file, self.rows)
        number = 0
        for rows in pending:
            if not self._holds(number, rows):
                pending = chain([rows], pending)
                break
            yield len(rows), True
            number += 1
        for path in self._paths()[number:]:
            path.unlink()
        for table in score(pending):
            self._write(number, table)
            yield len(table), False
            number += 1

    def merge(self, file: SourceFile, target: Path, format: str) -> Counts:
        """Write all parts into one file, which appears in one step, and return what it holds."""
        schema = scored_schema(file.columns.schema)
        rows, truncated, faults, labels = 0, 0, Counter[str](), Counter[str]()
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            staged_file(target, self.folder) as staged,  # removed with the parts of a killed run
            closing(open_writer(staged, format, schema)) as writer,
        ):
            for path in self._paths():
                table = pq.read_table(path, page_checksum_verification=True).cast(schema)
                writer.write_table(table)
                rows += len(table)
                faults.update(
                    fault.partition(":")[0] for fault in table["fault"].to_pylist() if fault
                )
                labels.update(label for label in table["label"].to_pylist() if label)
                truncated += table["truncated"].to_pylist().count(True)
        return Counts(rows=rows, truncated=truncated, labels=dict(labels), faults=dict(faults))

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.parquet"

    def _holds(self, number: int, rows: pa.Table) -> bool:
        """Return whether the part of a number is valid and holds the answers for these rows."""
        path = self._path(number)
        if not path.is_file():
            return False
        try:
            table = pq.read_table(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError):  # a power cut
            return False
        return bool(table["row"].equals(rows["row"]))

    def _write(self, number: int, table: pa.Table) -> None:
        with staged_file(self._path(number)) as staged:
            pq.write_table(table, staged, compression="zstd", write_page_checksum=True)
