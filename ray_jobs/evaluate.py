"""Measure a trained or published model on labeled rows."""

from __future__ import annotations

from pathlib import Path

from finsent.evaluation.results import EvaluateResult
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.registry.model_handle import Model
from finsent.settings import Settings
from finsent.tracking.tracker import tracked
from ray_jobs._cli import Call, Job, main, table_console


def on_own_test_split(settings: Settings) -> Settings:
    """Return settings that measure a model without a domain calibration on its own test split."""
    return settings.replaced(evaluate=settings.evaluate.on_own_test_split())


def step(settings: Settings, model_dir: Path, out: Path) -> EvaluateResult:
    """Measure a model and write the report to `out`. Needs no Ray."""
    # scikit-learn, SciPy and tokenizers: two seconds that `finsent --help` does without.
    from finsent.judging.model_evaluation import measure_model

    evaluation = measure_model(EvaluationSetup.of(settings), model_dir)
    evaluation.report(out, table_console())
    return EvaluateResult.of(evaluation.metrics, out)


def run(call: Call) -> EvaluateResult:
    """Measure the model of `evaluate.model`, and track the report of a run's own test split."""
    settings = call.settings
    model_dir = Model.find(settings.evaluate.model, settings.workspace, "evaluate.model").folder
    run_of_model = model_dir.parent
    is_own = settings.evaluate == settings.evaluate.on_own_test_split()
    if not (is_own and model_dir.name == "model"):
        return step(settings, model_dir, call.run_dir / "evaluation")
    out = run_of_model / "evaluation"  # where publish looks
    with tracked(settings.tracking, run_of_model, settings.for_records()) as tracker:
        result = step(settings, model_dir, out)
        tracker.report(result.split, result.headline, out)
    return result


JOB = Job(
    name="evaluate",
    summary="Measure a model on a split of its dataset version, or on labeled files: accuracy, "
    "F1, MCC, AUROC, log loss, Brier score and calibration error (ECE) with bootstrap "
    "intervals, figures by label, confusion matrix, and abstention, compared with the majority "
    "class, VADER and TF-IDF + logistic regression; accuracy by slices, and a behavior suite. "
    "Writes metrics.json and report.html with its pictures. The report on the test split of a "
    "run's model is stored in that run, where `ray_jobs.publish` reads it.",
    result=EvaluateResult,
    sections=("evaluate", "engine", "data", "registry", "storage", "run", "tracking"),
    run=run,
)

if __name__ == "__main__":
    main(JOB)
