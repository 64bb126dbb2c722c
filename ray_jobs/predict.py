"""Score files of any size with a pool of engines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from finsent.errors import InputError
from finsent.job_metrics import JobMetrics
from finsent.ray_session import ray_session
from finsent.registry.model_handle import Model
from finsent.registry.registry import Registry
from finsent.scoring.batch import Batch, find_files
from finsent.scoring.model import ScoringModel
from ray_jobs._cli import Call, Job, main


@dataclass(frozen=True)
class PredictResult:
    """Result of the job: the scored files."""

    model_version: str
    calibration: Annotated[str | None, "null: the model's own"]
    model_dir: str
    output: str
    files: Annotated[dict[str, str], "scored file by input"]
    finished_before: Annotated[int, "files"]
    rows: int
    truncated: Annotated[int, "rows"]
    labels: Annotated[dict[str, int], "rows by label"]
    faults: Annotated[dict[str, int], "rows by reason"]
    backends: list[str]
    rows_per_second: Annotated[float | None, "null: nothing was left to score"]


def run(call: Call) -> PredictResult:
    """Score the files of `predict.input` that are not finished."""
    settings, config = call.settings, call.settings.predict
    if not config.input:
        raise InputError("predict.input: nothing to score. Name a file, directory, glob or URI.")
    output = Path(config.output).expanduser() if config.output else call.run_dir / "scored"
    out, workspace = Path(os.path.normpath(output.absolute())), settings.workspace
    files = find_files(config, settings.data, workspace.sources_dir, out)
    model_dir = Model.find(config.model, workspace, "predict.model").folder
    model = ScoringModel.of(model_dir, Registry(workspace.registry), config, settings.engine)
    batch = Batch(model, config, files, out)
    backends, rows_per_second = list[str](), None
    if batch.pending:
        from finsent.scoring.pool import EnginePool  # imports Ray, which takes a second

        backend = batch.earlier_backend()
        with (
            ray_session(settings),
            EnginePool(model, backend, config.actors, config.start_timeout) as pool,
            JobMetrics(run=call.run_dir.name) as metrics,
        ):
            rows_per_second = round(batch.score(pool, metrics), 1)
            backends = [pool.backend]
    summary = batch.summary()
    return PredictResult(
        model_version=model.version,
        calibration=config.calibration,
        model_dir=str(model_dir),
        output=str(out),
        files=summary.files,
        finished_before=batch.finished_before,
        rows=summary.rows,
        truncated=summary.truncated,
        labels=summary.labels,
        faults=summary.faults,
        backends=backends,
        rows_per_second=rows_per_second,
    )


JOB = Job(
    name="predict",
    summary="Score files of texts (CSV, TSV, JSON Lines, JSON, Parquet, Arrow, a workbook, "
    "PhraseBank, or .txt with one text per line; plain or compressed; local, s3:// or gs://) "
    "with a pool of engines over the cluster. Writes one file per input file with the input's "
    "rows in order: row, the columns of predict.columns, text, label, score, a probability by "
    "label, abstained, truncated, model_version, calibration (for a domain), and fault, the "
    "reason why a row was not scored. Re-run the same command to resume, with predict.output or "
    "run.name set, as the default output is new in each run: finished files and parts are not "
    "scored again. Directories and globs leave out files that predict wrote. The text column is "
    "the entry's `text`, else data.text_column.",
    result=PredictResult,
    sections=("predict", "engine", "data", "registry", "storage", "run", "ray"),
    run=run,
    resumes=True,
    home="predict",
)

if __name__ == "__main__":
    main(JOB)
