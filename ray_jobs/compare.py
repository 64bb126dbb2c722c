"""Compare two models on the same rows: is B better than A?"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rich.table import Table

from finsent.errors import ConfigError
from finsent.evaluation.results import CompareResult
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.registry.model_handle import Model
from ray_jobs._cli import Call, Job, main, table_console

if TYPE_CHECKING:
    from finsent.evaluation.compare import Comparison

log = logging.getLogger(__name__)

_USAGE = "A B"


def run(call: Call) -> CompareResult:
    """Compare the two models that the arguments name."""
    # scikit-learn, SciPy and tokenizers: two seconds that `finsent --help` does without.
    from finsent.judging.champion_gate import allowance
    from finsent.judging.model_pair import ModelPair
    from finsent.judging.selection import select_rows

    settings = call.settings
    if len(call.arguments) != 2:
        raise ConfigError(
            f"compare {' '.join(call.arguments)!r}: not two models. Write {_USAGE}: alias:NAME, "
            "version:ID, run:NAME or a directory, or bare names that are one of these."
        )
    workspace = settings.workspace
    a, b = (
        Model.find(reference, workspace, f"compare {name}").folder
        for name, reference in zip("AB", call.arguments, strict=True)
    )
    setup = EvaluationSetup.of(settings)
    pair = ModelPair(setup, a, b, allowance(settings.publish))
    selection = select_rows(setup, pair.trained_on["b"] or pair.trained_on["a"])
    out = call.run_dir / "comparison"
    judged = pair.compare(selection, out)
    table_console().print(_table(judged.comparison))
    log.info("B as a replacement of A: %s: %s", judged.judgment.outcome, judged.judgment.reason)
    return CompareResult.of(judged.record, out)


def _table(comparison: Comparison) -> Table:
    from finsent.evaluation.caveats import over_labels  # imports tokenizers, as above

    a, b, difference = comparison.a, comparison.b, comparison.difference
    macro_f1 = f"macro-F1{over_labels(comparison.macro_over)}"
    table = Table("", "A", "B", "B - A", "95 % interval", title=f"B is: {comparison.verdict}")
    for name, of_a, of_b, gain in (
        (macro_f1, a.macro_f1, b.macro_f1, difference.macro_f1),
        ("accuracy", a.accuracy, b.accuracy, difference.accuracy),
    ):
        low, high = gain.interval
        interval = f"{low:+.3f} to {high:+.3f}"
        table.add_row(name, f"{of_a:.3f}", f"{of_b:.3f}", f"{gain.value:+.3f}", interval)
    return table


JOB = Job(
    name="compare",
    summary="Compare model B with model A on the same rows, by default the test split of the "
    "dataset version that B (or else A) was trained on. Rows that either model was trained or "
    "validated on are left out. The verdict is better or worse when McNemar's exact test has p "
    "< 0.05 or the 95 % interval (paired bootstrap) of the macro-F1 difference excludes 0, the "
    "two do not contradict, and at least 6 rows have another label; else no difference. A and B "
    "are alias:NAME, version:ID, run:NAME or a directory, or bare names that are one of these. "
    "Writes comparison.json and flipped.parquet.",
    result=CompareResult,
    sections=("evaluate", "engine", "data", "registry", "publish", "storage", "run"),
    run=run,
    arguments=_USAGE,
)

if __name__ == "__main__":
    main(JOB)
