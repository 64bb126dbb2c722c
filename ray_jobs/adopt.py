"""Adopt a classifier from elsewhere: check it, calibrate it, export it, publish it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsent.errors import ConfigError, InputError
from finsent.evaluation.metrics import brief
from finsent.files import staged_dir
from finsent.modeling.model_folder import find_model_folder
from finsent.modeling.provenance import read_provenance
from finsent.registry.registry import Registry
from finsent.runs import code_identity
from finsent.settings import Settings
from ray_jobs import publish
from ray_jobs._cli import Call, Job, RefusedError, Result, main
from ray_jobs._domains import warn_of_lost_calibrations
from ray_jobs._gate import check_gate
from ray_jobs._tracking import tracking
from ray_jobs.evaluate import report, training_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from finsent.adoption.adopt import ForeignModel
    from finsent.inference.engine import Engine

log = logging.getLogger(__name__)

_USAGE = "SOURCE"
_REMEDY = "give a local folder, or a hub id that you can reach"
_PARITY_ROWS = 500  # of the sample corpus, where no labeled file is given


def run(call: Call) -> Result:
    """The job."""
    from finsent.adoption.adopt import adopt, open_foreign
    from finsent.evaluation.calibration import fitted_temperature

    settings, config = call.settings, call.settings.adopt
    if len(call.arguments) != 1:
        raise ConfigError(
            f"adopt {' '.join(call.arguments)!r}: write one {_USAGE}, a folder in Hugging Face "
            "layout or a hub id"
        )
    [name] = call.arguments
    registry = Registry(settings.registry_dir)
    registry.check_writable()
    foreign = open_foreign(name, find_model_folder(name, config.revision, _USAGE, _REMEDY), config)
    rows = _labeled(settings)
    model_dir, report_dir = call.run_dir / "model", call.run_dir / "evaluation"
    for folder in (model_dir, report_dir):
        # Of an earlier run of this name. Its files may be linked to a version: none is overwritten.
        shutil.rmtree(folder, ignore_errors=True)
    with staged_dir(model_dir) as staged:  # no job may use a model that is not checked
        for note in adopt(foreign, staged):
            log.warning("adopt: %s", note)
        difference = _check(settings, foreign, staged)
    calibration = _calibrate(settings, foreign, model_dir, rows)
    exports = _export(settings, model_dir, rows)
    metrics = _measure(settings, model_dir, rows, report_dir)
    with tracking(settings, call.run_dir) as tracker:
        if metrics:
            tracker.report(metrics, report_dir)
        published, refusal = publish.attempt(
            lambda: _publish(settings, registry, model_dir, metrics, call.run_dir / "comparison")
        )
        if refusal is None:
            publish.track(tracker, published)
    result = {
        "source": foreign.name,
        "revision": foreign.folder.commit,
        "license": foreign.license,
        **published,
        "label_map": foreign.label_map.pairs,
        "absent_labels": foreign.label_map.absent,
        "max_length": foreign.max_length,
        "macro_f1": metrics.get("macro_f1"),
        "accuracy": metrics.get("accuracy"),
        "max_difference": difference,
        "temperature": fitted_temperature(calibration) if calibration else None,
        "exports": exports,
    }
    if refusal is not None:
        raise RefusedError(str(refusal), result) from refusal
    return result


def _publish(
    settings: Settings, registry: Registry, model_dir: Path, metrics: Result, out: Path
) -> Result:
    """Publish the model behind the gate.

    Args:
        out: see `check_gate`.

    Raises:
        InputError: the gate stops it.
    """
    alias = settings.adopt.name
    clearance = check_gate(settings, registry, model_dir, alias, out, metrics.get("rows"))
    gate = clearance.gate if clearance else None
    version = registry.publish(model_dir, brief(metrics), code_identity(), gate, share=True)
    warn_of_lost_calibrations(registry, alias, version.version)
    if alias:
        registry.promote(version.version, alias, clearance)
    log.info("adopted as %s: %s", alias or version.version, version.path)
    return {
        "model_version": version.version,
        "alias": alias,
        "version_dir": str(version.path),
        "gate": gate.as_json() if gate else None,
    }


def _labeled(settings: Settings) -> pa.Table | None:
    """Return the rows of `adopt.sources`; None where the setting is empty.

    Raises:
        InputError: a file is unusable, or the rows are too few to calibrate and to measure on.
    """
    from finsent.evaluation.calibration import LEAST_ROWS
    from finsent.evaluation.evaluate import read_benchmark

    sources = settings.adopt.sources
    if not sources:
        return None
    rows = read_benchmark(sources, settings.data, settings.sources_dir, "adopt.sources")
    first, second = _halves(rows)
    if min(len(first), len(second)) < LEAST_ROWS:
        raise InputError(
            f"adopt.sources={[source.uri for source in sources]}: {len(first)} rows to calibrate "
            f"on and {len(second)} to measure on are too few; {LEAST_ROWS} of each are needed. "
            "Add labeled rows, or leave adopt.sources empty."
        )
    return rows


def _halves(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Split rows by their keys, which are hashes of the texts: to calibrate, to measure."""
    import pyarrow.compute as pc

    first = pc.less(pc.utf8_slice_codeunits(rows["key"], 0, 1), "8")
    return rows.filter(first), rows.filter(pc.invert(first))


def _engine(settings: Settings, model_dir: Path) -> Engine:
    from finsent.inference.engine import Engine

    return Engine(model_dir, settings.engine.replaced(backend="torch", precision="fp32"))


def _check(settings: Settings, foreign: ForeignModel, model_dir: Path) -> float:
    from finsent.adoption.fidelity import check_same

    found = check_same(_engine(settings, model_dir), foreign, settings.adopt.max_difference)
    log.info("adopt: probabilities equal those of transformers within %.1e", found)
    return found


def _calibrate(
    settings: Settings, foreign: ForeignModel, model_dir: Path, rows: pa.Table | None
) -> Result | None:
    """Fit temperature and abstention threshold on the first half of the labeled rows."""
    if rows is None:
        log.info("adopt: not calibrated, as adopt.sources is empty")
        return None
    from finsent.evaluation.calibration import calibrate, calibration_line

    half, absent = _halves(rows)[0], foreign.label_map.absent
    unanswerable = sum(label in absent for label in half["label"].to_pylist())
    if unanswerable:
        log.warning(
            "adopt: %d of %d rows to calibrate on are %s, which the model never answers",
            unanswerable,
            len(half),
            " or ".join(absent),
        )
    origin = {"dataset_version": None, "split": None, "sources": _names(settings)}
    engine, wanted = _engine(settings, model_dir), settings.evaluate.wanted_accuracy
    found = calibrate(engine, half, wanted, origin)
    log.info("%s", calibration_line(found))
    return found


def _names(settings: Settings) -> list[str]:
    return [source.name or Path(source.uri).name for source in settings.adopt.sources]


def _export(settings: Settings, model_dir: Path, rows: pa.Table | None) -> Result:
    """Export behind the parity gate; compared on the labeled rows, else on the sample corpus."""
    if not settings.adopt.export:
        return {}
    from finsent.data.config import SAMPLE, DataConfig, SourceConfig
    from finsent.evaluation.evaluate import read_benchmark
    from finsent.export.exporter import export_model
    from finsent.inference.export_record import ExportError

    names = _names(settings)
    if rows is None:
        sample, names = [SourceConfig(uri=SAMPLE)], [SAMPLE]
        rows = read_benchmark(sample, DataConfig(), settings.sources_dir).slice(0, _PARITY_ROWS)
    origin = {"dataset_version": None, "split": None, "sources": names}
    try:
        found = export_model(model_dir, rows, settings.export, settings.engine, origin)
    except ExportError as error:
        log.warning("adopt: not exported: %s", error)
        return {}
    return {one.name: one.model_dump(mode="json") for one in found}


def _measure(
    settings: Settings, model_dir: Path, rows: pa.Table | None, out: Path
) -> dict[str, Any]:
    """Measure on the half that did not calibrate, and write the report to `out`."""
    if rows is None:
        log.info("adopt: not measured; `python -m ray_jobs.evaluate` measures it")
        return {}
    from finsent.evaluation.evaluate import evaluate

    half, near = _halves(rows)[1], settings.data.near_duplicates
    seen = training_rows(settings, read_provenance(model_dir).dataset)
    result = {
        "model_dir": str(model_dir),
        "model_version": Registry(settings.registry_dir).version_id(model_dir),
        "dataset_version": None,
        "split": None,
        "sources": [source.uri for source in settings.adopt.sources],
        **evaluate(_engine(settings, model_dir), half, None, seen, settings.evaluate, near=near),
    }
    report(result, ", ".join(_names(settings)), out)
    return result


JOB = Job(
    name="adopt",
    summary="Take over a text classifier from elsewhere as a model version: a folder in Hugging "
    "Face layout or a hub id, with safetensors or .bin weights (tensors only: pickled code is "
    "refused), and any labels that adopt.label_map maps onto ours. Its answers are compared with "
    "those of plain transformers; then it is calibrated and measured where adopt.sources names "
    "labeled files, exported as by `ray_jobs.export`, and published with its license and origin. "
    "Every job and the service use it as any version.",
    result="source, revision, license, model_version, alias, version_dir, label_map, "
    "absent_labels (never answered), max_length, macro_f1 and accuracy (null: not measured), "
    "max_difference (from transformers, of any probability), temperature (null: not calibrated), "
    "exports (as of `ray_jobs.export`), gate (as of `ray_jobs.publish`), run_dir, seconds",
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
