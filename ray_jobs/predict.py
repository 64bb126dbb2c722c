"""Score files of any size with a pool of engines."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from finsent.data.sources.carried_columns import with_all_rows
from finsent.data.sources.files import find_texts
from finsent.data.sources.source_file import SourceFile
from finsent.disk import translate_disk_errors
from finsent.errors import InputError
from finsent.files import digest, make_dir
from finsent.inference.truncation import REMEDY
from finsent.modeling.model_dir import fingerprint
from finsent.progress import progress_bar
from finsent.scoring.score import Tagged
from finsent.scoring.scored import Record, ScoredDir, choose_inputs, output_names
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main
from ray_jobs._domains import calibration_of
from ray_jobs._ray import ray_session
from ray_jobs._scoring import Scorers
from ray_jobs.evaluate import locate

log = logging.getLogger(__name__)

Files = dict[str, SourceFile]  # by the path of the scored file in the output


def step(settings: Settings, model_dir: Path, files: Files, out: Path) -> Result:
    """Score files into a directory; those that are finished there stay.

    Raises:
        InputError: a file is unusable, or the output is another's.
    """
    make_dir(out, "predict.output")
    version = model_dir.name if model_dir.parent.name == "versions" else "unpublished"
    model, scored = fingerprint(model_dir), ScoredDir(out)
    domain = calibration_of(
        settings, model_dir, settings.predict.calibration, "predict.calibration"
    )
    tagged = _tagged(settings, model_dir)
    decides = {
        **model,
        "calibration": domain and domain.id,
        "tagged": tagged and [tagged.column, {t: d and d.id for t, d in tagged.domains.items()}],
    }
    identities = {name: _identity(settings, decides, file) for name, file in files.items()}
    records = {
        name: record
        for name, identity in identities.items()
        if (record := scored.finished(name, identity)) is not None
    }
    todo = {name: file for name, file in files.items() if name not in records}
    for name, file in todo.items():
        scored.check_free(name, file)
    if records:
        log.info("predict: %d of %d file(s) are finished already", len(records), len(files))
    found = {"finished_before": len(records), "backends": [], "rows_per_second": None}
    if todo:
        backend = _begun_with(scored.records(), identities)
        with (
            ray_session(settings),
            Scorers(
                model_dir,
                settings.engine,
                version,
                model,
                backend,
                settings.predict.actors,
                settings.predict.start_timeout,
                domain,
                tagged,
            ) as scorers,
        ):
            found |= _score(settings, todo, identities, scored, scorers, records)
    rows, cut = (sum(r.get(key, 0) for r in records.values()) for key in ("rows", "truncated"))
    if cut:
        log.warning(
            "predict: %s of %s rows (%.1f%%) are longer than the model's maximum length and are "
            "cut: see the column truncated. %s",
            f"{cut:,}",
            f"{rows:,}",
            100 * cut / rows,
            REMEDY,
        )
    return {
        "model_version": version,
        "calibration": settings.predict.calibration,
        "model_dir": str(model_dir),
        "output": str(out),
        "files": {files[name].name: name for name in records},
        "rows": rows,
        "truncated": cut,
        "labels": dict(sum((Counter(record["labels"]) for record in records.values()), Counter())),
        "faults": dict(sum((Counter(record["faults"]) for record in records.values()), Counter())),
        **found,
    }


def _tagged(settings: Settings, model_dir: Path) -> Tagged | None:
    config, field = settings.predict, "predict.calibrations"
    if config.source_column is None:
        return None
    domains = {
        tag: calibration_of(settings, model_dir, name, field)
        for tag, name in config.calibrations.items()
    }
    return Tagged(config.source_column, domains)


def _identity(settings: Settings, model: dict[str, Any], file: SourceFile) -> str:
    """Digest what decides a scored file: rows, model, how it may be computed, and the columns."""
    engine = settings.engine.model_dump(include={"backend", "precision", "truncate"})
    carried = [field.name for field in file.columns.carried]
    return digest([file.identity, carried, model, engine, settings.predict.format])


def _begun_with(records: dict[str, Record], identities: dict[str, str]) -> str | None:
    """Return the backend of a file that an earlier run left unfinished, or None."""
    return next(
        (
            str(record["backend"])
            for name, record in records.items()
            if not record["finished"] and record["identity"] == identities.get(name)
        ),
        None,
    )


def _score(
    settings: Settings,
    todo: Files,
    identities: dict[str, str],
    scored: ScoredDir,
    scorers: Scorers,
    records: dict[str, Record],
) -> Result:
    """Score files one after another, and record each in the manifest when it is complete."""
    log.info("predict: %d file(s), %d process(es), %s", len(todo), scorers.count, scorers.backend)
    started, rows = time.perf_counter(), 0
    with (
        _bar(todo.values()) as progress_bar,
        translate_disk_errors(scored.path, "predict.output", reads=True),
    ):
        for name, file in todo.items():
            record = {
                "input": file.origin,
                "identity": identities[name],
                "backend": scorers.backend,
                "finished": False,
            }
            records[name], new_rows = _score_file(
                settings, scored, name, file, record, scorers, progress_bar
            )
            rows += new_rows
    seconds = time.perf_counter() - started
    return {"backends": [scorers.backend], "rows_per_second": round(rows / seconds, 1)}


def _score_file(
    settings: Settings,
    scored: ScoredDir,
    name: str,
    file: SourceFile,
    record: Record,
    scorers: Scorers,
    progress_bar: Any,
) -> tuple[Record, int]:
    """Score a file and record it as finished.

    Returns:
        The file's record, and the rows that were scored by this run.
    """
    new_rows = old_rows = 0
    with scored.parts(name) as parts:
        done = scored.finished(name, record["identity"])  # by another process, meanwhile
        if done is not None:
            parts.remove()
            return done, 0
        scored.check_free(name, file)
        scored.update(name, record)
        parts.open(digest([record["identity"], record["backend"]]))
        try:
            for rows, was_there in parts.score(file, scorers.map):
                progress_bar.update(rows)
                if was_there:
                    old_rows += rows
                else:
                    new_rows += rows
        except InputError:  # the file must change, and its parts with it
            parts.remove()
            raise
        if old_rows:
            log.info("predict: %s resumed after %d row(s)", file.name, old_rows)
        counts = parts.merge(file, scored.path / name, settings.predict.format)
        record = {**record, "finished": True, **counts}
        # Before the parts go and the lock with them: a run that ends here scores no row again.
        scored.update(name, record)
        parts.remove()
    return record, new_rows


def _bar(files: Any) -> Any:
    """A progress_bar over the rows of all files, as far as they can be counted beforehand."""
    total = sum(file.count_rows() for file in files)
    return progress_bar("predict", "row", total, terminal_seconds=0.2, log_seconds=10.0)


def find_files(settings: Settings, out: Path) -> Files:
    """Return the files to score by the paths of their scored files in the output.

    Raises:
        InputError: a file is unusable, lacks a column, or two would be scored into one.
    """
    config = settings.predict
    files = find_texts(
        config.input, settings.data, settings.sources_dir, "predict.input", choose_inputs(out)
    )
    columns, field = config.columns, "predict.columns"
    if config.source_column is not None and columns != "all":
        field = field if columns else "predict.source_column"
        columns = [*columns, config.source_column]
    files = [with_all_rows(file, columns, field) for file in files]
    names = output_names(files, config.format)
    return {
        name: replace(file, name=name.removesuffix(f".{config.format}"))
        for name, file in zip(names, files, strict=True)
    }


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    if not settings.predict.input:
        raise InputError("predict.input: nothing to score; name a file, a directory, a glob or URI")
    output = settings.predict.output
    place = Path(output).expanduser() if output else call.run_dir / "scored"
    out = Path(os.path.normpath(place.absolute()))
    files = find_files(settings, out)
    model_dir = locate(settings, settings.predict.model, "predict.model")
    return step(settings, model_dir, files, out)


JOB = Job(
    name="predict",
    summary="Score files of texts (CSV, TSV, JSON Lines, JSON, Parquet, Arrow, a workbook, "
    "PhraseBank, or .txt with one text per line; plain or compressed; local, s3:// or gs://) with "
    "a pool of engines over the cluster. Writes one file per input file with its rows in their "
    "order: row, the columns of predict.columns, text, label, score, a probability by label, "
    "abstained, truncated, model_version, calibration (for a domain), and fault, the reason why a "
    "row was not scored. What is scored is not scored again: after an interruption run the same "
    "command, with predict.output or run.name set, as the default output is new in each "
    "run. Directories and globs leave out what predict wrote. The text column is the "
    "entry's `text`, else data.text_column.",
    result="model_version, calibration (null: the model's own), model_dir, output, files (scored "
    "file by input), finished_before, rows, truncated (rows), labels and faults (counts), "
    "backends, rows_per_second, run_dir, seconds",
    sections=("predict", "engine", "data", "registry", "storage", "run", "ray"),
    run=run,
    resumes=True,
    home="predict",
)

if __name__ == "__main__":
    main(JOB)
