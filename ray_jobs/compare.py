"""Compare two models on the same rows: is B better than A?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.table import Table

from finsent.errors import ConfigError, InputError
from finsent.modeling.layout import read_provenance
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main, table_console
from ray_jobs._domains import calibration_of
from ray_jobs.evaluate import Selection, locate, select_rows, training_rows

if TYPE_CHECKING:
    from finsent.evaluation.noninferiority import Allowance, Judgement
    from finsent.inference.engine import Engine

log = logging.getLogger(__name__)

_USAGE = "A B"


class NoRowsError(InputError):
    """A model was trained on each row that was chosen."""


class Pair:
    """Two models that are compared on the same rows: each is loaded once, for any number of splits.

    Needs no Ray.
    """

    def __init__(self, settings: Settings, a_dir: Path, b_dir: Path) -> None:
        """Read what the models were trained on.

        Raises:
            InputError: a model or a dataset version is damaged, or has no calibration of that name.
        """
        self.settings, self.folders = settings, (a_dir, b_dir)
        self.trained_on = [read_provenance(folder)["dataset"] for folder in self.folders]
        self._training = [training_rows(settings, dataset) for dataset in self.trained_on]
        name = settings.evaluate.calibration
        self._domains = [
            calibration_of(settings, folder, name, "evaluate.calibration")
            for folder in self.folders
        ]

    @cached_property
    def _engines(self) -> list[Engine]:
        from finsent.inference.engine import Engine

        exact = self.settings.engine.exact()
        pairs = zip(self.folders, self._domains, strict=True)
        return [Engine(folder, exact, domain=domain) for folder, domain in pairs]

    def compare(self, chosen: Selection, out: Path) -> tuple[Result, Judgement]:
        """Compare B with A on rows that neither was trained on, and write to `out`.

        Raises:
            NoRowsError: there are no such rows.
            InputError: a model is unusable.
        """
        from finsent.evaluation.compare import (
            compare,
            comparison_line,
            flipped,
            read_answers,
            with_seen,
            write_comparison,
        )
        from finsent.evaluation.noninferiority import judge
        from finsent.evaluation.overlap import known
        from finsent.evaluation.remarks import compared_remarks

        rows, seen = self._unseen(chosen)
        (all_a, cut_a), (all_b, cut_b) = (
            read_answers(engine, chosen.rows) for engine in self._engines
        )
        new = known(chosen.rows, rows["key"])
        a, b = all_a.where(new), all_b.where(new)
        config = self.settings.evaluate
        found = compare(a, b, config.bootstrap, config.seed)
        line = comparison_line(found)
        judgement = judge(
            a,
            b,
            line if found["verdict"] == "worse" else None,
            allowance(self.settings),
            config.bootstrap,
            config.seed,
        )
        found |= {
            "judgement": asdict(judgement),
            "overlap": self._overlap(rows, seen),
            "with_seen": None if len(rows) == len(chosen.rows) else with_seen(all_a, all_b),
            "truncation": {"a": cut_a.record(), "b": cut_b.record()},
            "what": chosen.what,
            "calibration": config.calibration,
            "dataset_version": chosen.version.version if chosen.version else None,
            "seen_in_training": dict(zip("ab", seen, strict=True)),
        }
        for name, folder in zip("ab", self.folders, strict=True):
            found[name]["model_dir"] = str(folder)
        write_comparison(found, flipped(rows, a, b), out)
        log.info("%s", line)
        for remark in compared_remarks(found):
            log.warning("%s", remark)
        return {**found, "comparison_dir": str(out)}, judgement

    def _unseen(self, chosen: Selection) -> tuple[pa.Table, list[int | None]]:
        from finsent.evaluation.compare import unseen

        keys = [read.rows["key"] if read.rows is not None else None for read in self._training]
        calibrated_on = [
            pa.chunked_array([pa.array(domain.keys, pa.string())])
            for domain in self._domains
            if domain
        ]
        rows, counts = unseen(chosen.rows, *keys, *calibrated_on)
        seen = counts[:2]
        if any(counts[2:]):
            log.info("compare: left out rows that a calibration was fitted on: %s", counts[2:])
        if not len(rows):
            raise NoRowsError(
                f"compare: A or B was trained on each of the {len(chosen.rows)} rows of "
                f"{chosen.what}; set evaluate.sources or evaluate.dataset to others"
            )
        a_seen, b_seen = ("unknown" if count is None else count for count in seen)
        log.info(
            "compare: %s with %s on %d rows of %s (left out as trained on: %s by A, %s by B)",
            *reversed(self.folders),
            len(rows),
            chosen.what,
            a_seen,
            b_seen,
        )
        return rows, seen

    def _overlap(self, rows: pa.Table, seen: Sequence[int | None]) -> dict[str, Any]:
        from finsent.evaluation.overlap import find_overlap

        near = self.settings.data.near_duplicates
        return {
            name: {**find_overlap(rows, read, near).record(), "rows": count}
            for name, read, count in zip("ab", self._training, seen, strict=True)
        }


def allowance(settings: Settings) -> Allowance:
    """Return what a model may lose in a champion's place."""
    from finsent.evaluation.noninferiority import Allowance

    rules = settings.publish
    return Allowance(rules.margin, rules.min_rows, ("publish.margin", "publish.min_rows"))


def _table(found: Result) -> Table:
    from finsent.evaluation.remarks import over_labels

    table = Table("", "A", "B", "B - A", "95 % interval", title=f"B is: {found['verdict']}")
    shown_f1 = f"macro-F1{over_labels(found)}"
    for key, shown in (("macro_f1", shown_f1), ("accuracy", "accuracy")):
        difference = found["difference"][key]
        low, high = difference["interval"]
        table.add_row(
            shown,
            f"{found['a'][key]:.3f}",
            f"{found['b'][key]:.3f}",
            f"{difference['value']:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
        )
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
    pair = Pair(settings, a, b)
    chosen = select_rows(settings, pair.trained_on[1] or pair.trained_on[0])
    found, judgement = pair.compare(chosen, call.run_dir / "comparison")
    table_console().print(_table(found))
    log.info("B in A's place: %s: %s", judgement.outcome, judgement.reason)
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
    "rows that only one has right; p_value), flipped, judgement (outcome, reason, rows, "
    "absent_labels, accuracy, macro_f1: value and bound), what, "
    "calibration, dataset_version, seen_in_training, overlap (by model: rows that it was trained "
    "on, near copies of them that remain, or the reason why that is not known), with_seen (figures "
    "with the rows left out; null: none), truncation (by model), comparison_dir, run_dir, seconds",
    sections=("evaluate", "engine", "data", "registry", "publish", "storage", "run"),
    run=run,
    arguments=_USAGE,
)

if __name__ == "__main__":
    main(JOB)
