"""Export a trained model to faster forms, each checked against the model itself."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.modeling.trained_on import read_trained_on
from finsent.runs import find_model
from finsent.settings import Settings
from finsent.workspace import Workspace
from ray_jobs._cli import Call, Job, Result, main, table_console

log = logging.getLogger(__name__)


def step(settings: Settings, model_dir: Path) -> Result:
    """Export a run's model in place. Needs no Ray.

    Raises:
        InputError: the model is unusable, its dataset version is not at hand, or what is asked for
            is not installed.
    """
    from finsent.export.export import export

    trained_on, workspace = read_trained_on(model_dir), Workspace.of(settings)
    version = workspace.find_dataset(trained_on)
    if trained_on is None:  # adopted: any rows show whether exports answer as the model does
        version = DatasetVersion.find("latest", settings.datasets_dir, "export.model")
    elif version is None:
        raise InputError(
            f"export.model={settings.export.model!r}: dataset version {trained_on.version} is "
            f"not in {str(workspace.dataset_dir(trained_on.name))!r}, and exports are "
            "compared with the model on its validation rows; ingest it there again"
        )
    rows = version.read("validation", ["text", "label"])
    log.info("export: %s, compared on %d rows of the validation split", model_dir, len(rows))
    origin = {"dataset_version": version.version, "split": "validation"}
    found = export(model_dir, rows, settings.export, settings.engine, origin)
    table = Table("export", "MB", "same labels", "macro-F1", "largest difference", "")
    for one in found:
        table.add_row(
            one.name,
            f"{one.bytes / 1e6:.0f}",
            f"{one.same_labels:.1%}",
            f"{one.macro_f1:.4f}",
            f"{one.max_difference:.1e}",
            one.refused or "kept",
        )
    table_console().print(table)
    return {
        "model_dir": str(model_dir),
        **origin,
        "rows": len(rows),
        "exports": {one.name: asdict(one) for one in found},
    }


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    return step(settings, find_model(settings.export.model, settings.runs_dir, "export.model"))


JOB = Job(
    name="export",
    summary="Write a run's model as ONNX (fp32, and int8 with ranges found at run time) and, where "
    "the extra `openvino` is installed, as OpenVINO in int8 calibrated on validation rows. Each is "
    "compared with the model itself on the validation split: labels, abstentions, confidence, "
    "accuracy. One that does not answer alike, or on too few rows to tell, is refused, with the "
    "numbers. `ray_jobs.publish` takes them along, and engine.backend=auto then uses the fastest.",
    result="model_dir, dataset_version, split, rows, exports (by name: file (null: refused), bytes,"
    " max_difference of any probability, same_labels, macro_f1, macro_f1_exact, refused (why), "
    "seen (rows, same_labels, same_abstentions, score_change, accuracy, macro_f1: value, bound)), "
    "run_dir, seconds",
    sections=("export", "engine", "storage", "run"),
    run=run,
    home="export",
)

if __name__ == "__main__":
    main(JOB)
