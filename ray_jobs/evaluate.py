"""Measure a trained or published model on labeled rows."""

from __future__ import annotations

from pathlib import Path

from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.registry.model_handle import Model
from finsent.settings import Settings
from finsent.tracking.tracker import tracked
from ray_jobs._cli import Call, Job, Result, main, table_console


def on_own_test_split(settings: Settings) -> Settings:
    """Return settings by which a model is measured as it is, on its own test split."""
    return settings.replaced(evaluate=settings.evaluate.on_own_test_split())


def step(settings: Settings, model_dir: Path, out: Path) -> Result:
    """Measure a model and write the report to `out`. Needs no Ray."""
    # scikit-learn, SciPy and tokenizers: two seconds that `finsent --help` does without.
    from finsent.judging.model_evaluation import measure_model

    evaluation = measure_model(EvaluationSetup.of(settings), model_dir)
    evaluation.report(out, table_console())
    return {**evaluation.brief, "report_dir": str(out)}


def run(call: Call) -> Result:
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
        tracker.report(result, out)
    return result


JOB = Job(
    name="evaluate",
    summary="Measure a model on a split of its dataset version, or on labeled files: accuracy, "
    "F1, MCC, AUROC, log loss, Brier score and calibration error (ECE) with bootstrap "
    "intervals, figures by label, confusion matrix, and abstention, compared with the majority "
    "class, VADER and TF-IDF + logistic regression; accuracy by slices, and a behavior suite. "
    "Writes metrics.json and report.html with its pictures. The report on the test split of a "
    "run's model is stored in that run, where `ray_jobs.publish` reads it.",
    result="model_dir, model_version (null: not published), domain_calibration (name, id; null: "
    "the model's own), dataset_version, split, rows, accuracy, macro_f1, macro_over (labels "
    "with rows), weighted_f1, mcc, auroc, log_loss, brier, ece, labels (precision, recall, f1, "
    "support, auroc; null: no rows), confusion (rows: true, columns: predicted), intervals (95 "
    "%, by figure), noise_ceiling, agreement (accuracy by the annotators' agreement), "
    "baselines, calibration, abstention (holds: whether these rows reach the wanted accuracy; "
    "null: not known), behavior (cases, failed), seen_in_training, overlap (rows that the model "
    "was trained on, near copies of them, and figures on the other rows, or the reason why that "
    "is not known), truncation (texts cut, tokens left out), rows_per_second, report_dir, "
    "run_dir, seconds; metrics.json also has reliability, slices, mistakes, the groups of cases "
    "and the abstention's curve",
    sections=("evaluate", "engine", "data", "registry", "storage", "run", "tracking"),
    run=run,
)

if __name__ == "__main__":
    main(JOB)
