"""Compare two models on the same rows: is B better than A?"""

from __future__ import annotations

import logging
from pathlib import Path

from rich.table import Table

from finsent.errors import ConfigError, InputError
from finsent.modeling.layout import read_provenance
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main, table_console
from ray_jobs.evaluate import locate, select_rows, training_rows

log = logging.getLogger(__name__)

_USAGE = "A B"


def step(settings: Settings, a_dir: Path, b_dir: Path, out: Path) -> Result:
    """Compare B with A on rows that neither was trained on, and write to `out`. Needs no Ray.

    Raises:
        InputError: a model is unusable, or there are no such rows.
    """
    from finsent.evaluation.compare import (
        compare,
        comparison_line,
        flipped,
        read_answers,
        unseen,
        with_seen,
        write_comparison,
    )
    from finsent.evaluation.overlap import find_overlap, known
    from finsent.evaluation.remarks import compared_remarks
    from finsent.inference.engine import Engine

    trained_on = [read_provenance(folder)["dataset"] for folder in (a_dir, b_dir)]
    chosen = select_rows(settings, trained_on[1] or trained_on[0])
    training = [training_rows(settings, dataset) for dataset in trained_on]
    keys = [found.rows["key"] if found.rows is not None else None for found in training]
    rows, seen = unseen(chosen.rows, *keys)
    if not len(rows):
        raise InputError(
            f"compare: A or B was trained on each of the {len(chosen.rows)} rows of {chosen.what}; "
            "set evaluate.sources or evaluate.dataset to others"
        )
    log.info(
        "compare: %s with %s on %d rows of %s (left out as trained on: %s by A, %s by B)",
        b_dir, a_dir, len(rows), chosen.what, *("unknown" if n is None else n for n in seen),
    )  # fmt: skip
    engines = [Engine(folder, settings.engine.exact()) for folder in (a_dir, b_dir)]
    (all_a, cut_a), (all_b, cut_b) = (read_answers(engine, chosen.rows) for engine in engines)
    new = known(chosen.rows, rows["key"])
    a, b = all_a.where(new), all_b.where(new)
    config, near = settings.evaluate, settings.data.near_duplicates
    found = compare(a, b, config.bootstrap, config.seed)
    found |= {
        "overlap": {
            name: {**find_overlap(rows, one, near).record(), "rows": count}
            for name, one, count in zip("ab", training, seen, strict=True)
        },
        "with_seen": None if len(rows) == len(chosen.rows) else with_seen(all_a, all_b),
        "truncation": {"a": cut_a.record(), "b": cut_b.record()},
        "what": chosen.what,
        "dataset_version": chosen.version.version if chosen.version else None,
        "seen_in_training": dict(zip("ab", seen, strict=True)),
    }
    for name, folder in (("a", a_dir), ("b", b_dir)):
        found[name]["model_dir"] = str(folder)
    write_comparison(found, flipped(rows, a, b), out)
    log.info("%s", comparison_line(found))
    for remark in compared_remarks(found):
        log.warning("%s", remark)
    return {**found, "comparison_dir": str(out)}


def _table(found: Result) -> Table:
    table = Table("", "A", "B", "B - A", "95 % interval", title=f"B is: {found['verdict']}")
    for key, shown in (("macro_f1", "macro-F1"), ("accuracy", "accuracy")):
        difference = found["difference"][key]
        low, high = difference["interval"]
        table.add_row(
            shown, f"{found['a'][key]:.3f}", f"{found['b'][key]:.3f}",
            f"{difference['value']:+.3f}", f"{low:+.3f} to {high:+.3f}",
        )  # fmt: skip
    return table


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    if len(call.arguments) != 2:
        raise ConfigError(
            f"compare {' '.join(call.arguments)!r}: write {_USAGE}, two models: alias:NAME, "
            "version:ID, run:NAME or a directory, or bare names that are one of these"
        )
    a, b = (
        locate(settings, reference, f"compare {name}")
        for name, reference in zip("AB", call.arguments, strict=True)
    )
    found = step(settings, a, b, call.run_dir / "comparison")
    table_console().print(_table(found))
    return found


JOB = Job(
    name="compare",
    summary="Compare model B with model A on the same rows, by default the test split of the "
    "dataset version that B (or else A) was trained on; rows that either was trained on are left "
    "out. Verdict: better or worse when McNemar's exact test has p < 0.05 or the 95 % interval "
    "(paired bootstrap) of the macro-F1 difference leaves out 0, the two do not contradict, and "
    "at least 6 rows have another label; else no difference. A and B are "
    "alias:NAME, version:ID, run:NAME or a directory, or bare names that are one of these. Writes "
    "comparison.json and flipped.parquet.",
    result="verdict, rows, macro_over (labels with rows), a and b (accuracy, macro_f1, "
    "model_dir), difference (B - A: value, interval), mcnemar (only_a, only_b: "
    "rows that only one has right; p_value), flipped, what, "
    "dataset_version, seen_in_training, overlap (by model: rows that it was trained on, near "
    "copies of them that remain, or the reason why that is not known), with_seen (figures with "
    "the rows left out; null: none), truncation (by model), comparison_dir, run_dir, seconds",
    sections=("evaluate", "engine", "data", "registry", "storage", "run"),
    run=run,
    arguments=_USAGE,
)

if __name__ == "__main__":
    main(JOB)
