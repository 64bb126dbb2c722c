"""Score files of any size with a pool of engines."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from finsent.bars import bar
from finsent.data.sources import SourceFile, find_texts
from finsent.errors import InputError
from finsent.files import digest, make_dir, read_json, sha256_file, storing, write_json
from finsent.inference.exports import EXPORTS
from finsent.modeling.layout import CALIBRATION
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main
from ray_jobs._ray import ray_session
from ray_jobs._scoring import Scorers
from ray_jobs.evaluate import locate

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_ROWS = 4096  # of one call of an engine: seconds of work, and an even load


def step(settings: Settings, model_dir: Path, files: list[SourceFile], out: Path) -> Result:
    """Score files into a directory; those that are finished there stay.

    Raises:
        InputError: a file is unusable, or the output is another's.
    """
    make_dir(out, "predict.output")
    version = model_dir.name if model_dir.parent.name == "versions" else "unpublished"
    made_by = _identity(settings, model_dir)
    records = _finished(out, files, made_by)
    todo = [file for file in files if file.name not in records]
    if records:
        log.info("predict: %d of %d file(s) are finished already", len(records), len(files))
    found = {"finished_before": len(records), "backends": [], "rows_per_second": None}
    if todo:
        with ray_session(settings), _start(settings, model_dir, version) as scorers:
            found |= _score(settings, todo, made_by, out, scorers, records)
    return {
        "model_version": version,
        "model_dir": str(model_dir),
        "output": str(out),
        "files": {name: record["output"] for name, record in records.items()},
        "rows": sum(record["rows"] for record in records.values()),
        "labels": dict(sum((Counter(record["labels"]) for record in records.values()), Counter())),
        "faults": dict(sum((Counter(record["faults"]) for record in records.values()), Counter())),
        **found,
    }


def _start(settings: Settings, model_dir: Path, version: str) -> Scorers:
    config = settings.predict
    return Scorers(model_dir, settings.engine, version, config.actors, config.start_timeout)


def _score(
    settings: Settings, todo: list[SourceFile], made_by: dict[str, Any], out: Path,
    scorers: Scorers, records: dict[str, dict[str, Any]],
) -> Result:  # fmt: skip
    """Score files one after another, and record each in the manifest when it is whole."""
    backends = sorted(set(scorers.backends))
    log.info(
        "predict: %d file(s), %d process(es), %s",
        len(todo), len(scorers.backends), ", ".join(backends),
    )  # fmt: skip
    started, rows = time.perf_counter(), 0
    with _bar(todo) as bar:
        for file in todo:
            record = _score_file(file, out, settings.predict.format, scorers, bar)
            rows += record["rows"]
            records[file.name] = {**record, "identity": digest([file.identity, made_by])}
            # What other commands scored into the same directory stays known.
            write_json(out / MANIFEST, {"files": {**_manifest(out), **records}})
    seconds = time.perf_counter() - started
    return {"backends": backends, "rows_per_second": round(rows / seconds, 1)}


def _identity(settings: Settings, model_dir: Path) -> dict[str, Any]:
    """What decides the answers: the model, how it may be computed, and how texts are cut."""
    files = [model_dir / name for name in ("model.safetensors", CALIBRATION, EXPORTS)]
    return {
        "model": [model_dir.name, *(sha256_file(path) for path in files if path.is_file())],
        "engine": settings.engine.model_dump(include={"backend", "precision", "truncate"}),
        "format": settings.predict.format,
    }


def _finished(
    out: Path, files: list[SourceFile], made_by: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Records of the files that need not be scored again."""
    known, found = _manifest(out), {}
    for file in files:
        record = known.get(file.name)
        if (
            record
            and record["identity"] == digest([file.identity, made_by])
            and (out / record["output"]).is_file()
        ):
            found[file.name] = record
    return found


def _manifest(out: Path) -> dict[str, dict[str, Any]]:
    """Records of all files that were scored into a directory."""
    path = out / MANIFEST
    if not path.is_file():
        return {}
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise InputError(
            f"predict.output={str(out)!r}: its {MANIFEST} is not one of scored files; choose "
            "another directory"
        )
    files: dict[str, dict[str, Any]] = manifest["files"]
    return files


def _score_file(
    file: SourceFile, out: Path, format: str, scorers: Scorers, bar: Any
) -> dict[str, Any]:
    from finsent.inference.score import open_writer

    name = f"{file.name.replace('/', '__')}.{format}"
    partial = out / f".{name}.partial"
    rows, faults, labels = 0, Counter[str](), Counter[str]()
    try:
        with storing(out, "predict.output"):
            writer = open_writer(partial, format)
            try:
                for table in scorers.map(_slices(file)):
                    writer.write_table(table)
                    rows += len(table)
                    bar.update(len(table))
                    faults.update(f.partition(":")[0] for f in table["fault"].to_pylist() if f)
                    labels.update(found for found in table["label"].to_pylist() if found)
            finally:
                writer.close()
            partial.rename(out / name)
    finally:
        partial.unlink(missing_ok=True)
    return {"output": name, "rows": rows, "faults": dict(faults), "labels": dict(labels)}


def _slices(file: SourceFile) -> Iterator[pa.Table]:
    """A file's records in tables of about `_ROWS`, whatever blocks they are read in."""
    for block in file.rows(0):
        for start in range(0, len(block), _ROWS):
            # Taken, so copied: a slice would carry its whole block to the actor.
            some = range(start, min(start + _ROWS, len(block)))
            yield block.take(pa.array(some))


def _bar(files: list[SourceFile]) -> Any:
    """A bar over the rows of all files, as far as they can be counted beforehand."""
    total = sum(file.count_rows() for file in files)
    return bar("predict", "row", total, live=0.2, log=10.0)


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    if not settings.predict.input:
        raise InputError("predict.input: nothing to score; name a file, a directory, a glob or URI")
    files = find_texts(settings.predict.input, settings.data, settings.sources_dir, "predict.input")
    model_dir = locate(settings, settings.predict.model, "predict.model")
    output = settings.predict.output
    out = Path(output).expanduser().absolute() if output else call.run_dir / "scored"
    make_dir(out, "predict.output")
    return step(settings, model_dir, files, out)


JOB = Job(
    name="predict",
    summary="Score files of texts (CSV, TSV, JSON Lines, Parquet, PhraseBank, or .txt with one "
    "text a line; plain, gzip or zstd; local, s3:// or gs://) with a pool of engines over the "
    "cluster. Writes one file an input file: row, text, label, score, a probability by label, "
    "abstained, truncated, model_version, and fault, which says why a row was not scored. Files "
    "that are finished are not scored again: after an interruption run the same command. The text "
    "column is the entry's `text`, else data.text_column.",
    result="model_version, model_dir, output, files (scored file by input), finished_before, rows, "
    "labels and faults (counts), backends, rows_per_second, run_dir, seconds",
    sections=("predict", "engine", "data", "registry", "storage", "run", "ray"),
    run=run,
    home="predict",
)

if __name__ == "__main__":
    main(JOB)
