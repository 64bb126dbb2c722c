"""Label texts with a trained or published model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated

from finsent.inference.truncation_record import TruncationRecord, truncation_line
from finsent.registry.calibration_lookup import find_calibration
from finsent.registry.model_handle import Model
from finsent.registry.registry import Registry
from finsent.scoring.records import TextPrediction
from finsent.scoring.tables import prediction_table
from finsent.scoring.texts import read_texts
from ray_jobs._cli import Call, Job, main, table_console

log = logging.getLogger(__name__)

_MAX_TABLE_ROWS = 100


@dataclass(frozen=True)
class ClassifyResult:
    """Result of the job: a prediction for each text."""

    model: str
    model_version: Annotated[str | None, "null: not published"]
    model_dir: str
    calibration: Annotated[str | None, "null: the model's own"]
    temperature: float | None
    threshold: Annotated[float | None, "null: the model never abstains"]
    truncation: Annotated[TruncationRecord, "texts cut, tokens left out"]
    predictions: Annotated[
        list[TextPrediction], "row of the input, text, label, score, probabilities, abstained"
    ]


def run(call: Call) -> ClassifyResult:
    """Run the job."""
    settings, config = call.settings, call.settings.classify
    texts = read_texts(call.arguments, settings)
    model = Model.find(config.model, settings.workspace, "classify.model")
    from finsent.inference.engine import Engine  # 0.6 s; wrong arguments fail before
    from finsent.inference.truncation import count_truncation

    registry = Registry(settings.workspace.registry)
    domain = find_calibration(registry, model.folder, config.calibration, "classify.calibration")
    engine = Engine(model.folder, settings.engine, domain=domain)
    encoded = engine.encode_checked([text.text for text in texts])
    predictions = engine.predictions(engine.logits_of_rows([text.ids for text in encoded]))
    truncation = count_truncation(encoded, engine.max_length)
    if line := truncation_line(truncation):
        log.warning("classify: %s", line)
    if len(texts) <= _MAX_TABLE_ROWS:
        table_console().print(prediction_table(texts, predictions))
    return ClassifyResult(
        model=config.model,
        model_version=model.version,
        model_dir=str(model.folder),
        calibration=engine.calibration.name,
        temperature=engine.calibration.fitted,
        threshold=engine.threshold,
        truncation=truncation,
        predictions=[
            TextPrediction.of(text.text, text.row, prediction)
            for text, prediction in zip(texts, predictions, strict=True)
        ],
    )


JOB = Job(
    name="classify",
    summary="Label texts given as arguments, as a file (classify.input=FILE: the column "
    "data.text_column of a table, or lines), or as lines of standard input. Write `--` before "
    "texts that look like key=value.",
    result=ClassifyResult,
    sections=("classify", "data", "engine", "registry", "storage"),
    run=run,
    keeps_run=False,
    arguments="[TEXT ...]",
)

if __name__ == "__main__":
    main(JOB)
