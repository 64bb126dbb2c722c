"""Adopt a classifier from elsewhere: check it, calibrate it, export it, publish it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from finsent.adoption.result import AdoptResult
from finsent.errors import ConfigError
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.metrics_record import StoredMetrics
from finsent.modeling.model_folder import find_model_folder
from finsent.registry.publication import Publication, Refusal, attempt
from finsent.settings import Settings
from finsent.tracking.tracker import tracked
from ray_jobs._cli import Call, Job, RefusedError, main, table_console

if TYPE_CHECKING:
    from finsent.adoption.steps import Adoption

log = logging.getLogger(__name__)

_USAGE = "SOURCE"
_REMEDY = "Give a local folder, or a hub id that you can reach."


def run(call: Call) -> AdoptResult:
    """Adopt the model that the argument names."""
    settings, setup = call.settings, EvaluationSetup.of(call.settings)
    adoption = _open(call, setup)
    model_dir, report_dir = call.run_dir / "model", call.run_dir / "evaluation"
    for folder in (model_dir, report_dir):
        # Of an earlier run of this name. Its files may be linked to a version: none is overwritten.
        shutil.rmtree(folder, ignore_errors=True)
    difference = adoption.write(model_dir)
    temperature = adoption.calibrate(model_dir)
    exports = adoption.export(model_dir)
    evaluation = adoption.measure(model_dir)
    metrics = evaluation.metrics if evaluation else StoredMetrics()
    if evaluation:
        evaluation.report(report_dir, table_console())
    with tracked(settings.tracking, call.run_dir, settings.for_records()) as tracker:
        if evaluation:
            tracker.report(metrics.split, metrics.headline, report_dir)
        publication = attempt(
            lambda: _publish(settings, setup, model_dir, metrics, call.run_dir / "comparison")
        )
        publication.track(tracker)
    foreign = adoption.foreign
    result = AdoptResult(
        source=foreign.name,
        revision=foreign.folder.commit,
        license=foreign.license,
        model_version=publication.summary.model_version,
        alias=publication.summary.alias,
        version_dir=publication.summary.version_dir,
        gate=publication.summary.gate,
        label_map=foreign.label_map.pairs,
        absent_labels=foreign.label_map.absent,
        max_length=foreign.max_length,
        macro_f1=metrics.macro_f1,
        accuracy=metrics.accuracy,
        max_difference=difference,
        temperature=temperature,
        exports=exports,
    )
    if isinstance(publication, Refusal):
        raise RefusedError(str(publication.error), result) from publication.error
    return result


def _open(call: Call, setup: EvaluationSetup) -> Adoption:
    """Find and check the foreign model and the labeled rows."""
    # torch, transformers and scikit-learn: four seconds that `finsent --help` does without.
    from finsent.adoption.adopt import open_foreign
    from finsent.adoption.labeled import read_labeled_rows
    from finsent.adoption.steps import Adoption

    if len(call.arguments) != 1:
        raise ConfigError(
            f"adopt {' '.join(call.arguments)!r}: not one model. Write one {_USAGE}, a folder in "
            "Hugging Face layout or a hub id."
        )
    setup.registry.check_writable()
    [name], config = call.arguments, call.settings.adopt
    foreign = open_foreign(name, find_model_folder(name, config.revision, _USAGE, _REMEDY), config)
    labeled = read_labeled_rows(setup, config.sources)
    return Adoption(foreign, setup, config, call.settings.export, labeled)


def _publish(
    settings: Settings, setup: EvaluationSetup, model_dir: Path, metrics: StoredMetrics, out: Path
) -> Publication:
    from finsent.judging.champion_gate import publish_behind_gate  # imports scikit-learn, as above

    alias = settings.adopt.name
    publication = publish_behind_gate(
        setup, settings.publish, model_dir, alias, metrics, out, share=True
    )
    version = publication.version
    log.info("adopted as %s: %s", alias or version.version, version.path)
    return publication


JOB = Job(
    name="adopt",
    summary="Adopt a text classifier from elsewhere as a model version: a folder in Hugging "
    "Face layout or a hub id, with safetensors or .bin weights (tensors only: pickled code is "
    "refused), and any labels that adopt.label_map maps onto ours. The job compares the model's "
    "answers with those of plain transformers. It calibrates and measures the model where "
    "adopt.sources names labeled files, exports it as `ray_jobs.export` does, and publishes it "
    "with its license and origin. Every job and the service use the version as any other.",
    result=AdoptResult,
    sections=(
        "adopt",
        "export",
        "evaluate",
        "data",
        "engine",
        "registry",
        "publish",
        "storage",
        "run",
        "tracking",
    ),
    run=run,
    arguments=_USAGE,
    home="adopt",
)

if __name__ == "__main__":
    main(JOB)
