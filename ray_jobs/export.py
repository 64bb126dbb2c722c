"""Export a trained model to faster formats, each compared with the model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.export.tables import export_table
from finsent.inference.export_record import Export
from finsent.modeling.rows_origin import RowsOrigin
from finsent.modeling.trained_on import find_dataset, read_trained_on
from finsent.registry.model_handle import Model
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, main, table_console

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """Result of the job: exports of a model, compared with the model."""

    model_dir: str
    dataset_version: str
    split: str
    rows: int
    exports: Annotated[
        dict[str, Export],
        "by name: file (null: refused), bytes, max_difference of any probability, same_labels, "
        "macro_f1, macro_f1_exact, refused (why), seen (rows, same_labels, same_abstentions, "
        "score_change, accuracy, macro_f1: value, bound)",
    ]

    @property
    def kept(self) -> list[str]:
        """Names of the exports that were not refused."""
        return [name for name, export in self.exports.items() if export.refused is None]


def step(settings: Settings, model_dir: Path) -> ExportResult:
    """Export a run's model in place. Needs no Ray.

    Raises:
        InputError: the model is unusable, its dataset version is missing, or a requested backend is
            not installed.
    """
    from finsent.export.exporter import export_model  # PyTorch: 1 s; a missing model fails before

    trained_on, workspace = read_trained_on(model_dir), settings.workspace
    version = find_dataset(workspace, trained_on)
    if trained_on is None:  # adopted: exports can be compared with the model on any rows
        version = DatasetVersion.find(
            "latest", settings.workspace.versions(settings.data.name), "export.model"
        )
    elif version is None:
        raise InputError(
            f"export.model={settings.export.model!r}: dataset version {trained_on.version} is "
            f"not in {str(workspace.versions(trained_on.name))!r}, and exports are "
            "compared with the model on its validation rows. Ingest it there again."
        )
    rows = version.read("validation", ["text", "label"])
    log.info("export: %s, compared on %d rows of the validation split", model_dir, len(rows))
    origin: RowsOrigin = {"dataset_version": version.version, "split": "validation"}
    exports = export_model(model_dir, rows, settings.export, settings.engine, origin)
    table_console().print(export_table(exports))
    return ExportResult(
        model_dir=str(model_dir),
        dataset_version=version.version,
        split="validation",
        rows=len(rows),
        exports={export.name: export for export in exports},
    )


def run(call: Call) -> ExportResult:
    """Run the job."""
    settings = call.settings
    model = Model.find_unpublished(settings.export.model, settings.workspace, "export.model")
    return step(settings, model.folder)


JOB = Job(
    name="export",
    summary="Write a run's model as ONNX (fp32, and int8 with ranges computed at run time) and, "
    "where the extra `openvino` is installed, as OpenVINO in int8 calibrated on validation rows. "
    "Each export is compared with the model on the validation split: labels, abstentions, "
    "confidence, accuracy. An export whose answers differ, or that has too few rows to compare, is "
    "refused, with the numbers. `ray_jobs.publish` publishes the others with the model, and "
    "engine.backend=auto then uses the fastest.",
    result=ExportResult,
    sections=("export", "engine", "storage", "run"),
    run=run,
    home="export",
)

if __name__ == "__main__":
    main(JOB)
