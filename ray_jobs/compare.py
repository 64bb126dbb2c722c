"""Compare two models on the same rows: is B better than A?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from rich.table import Table

from finsent.errors import ConfigError, InputError
from finsent.modeling.provenance import read_provenance
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main, table_console
from ray_jobs._domains import calibration_of
from ray_jobs.evaluate import Selection, locate, select_rows, training_rows, validation_keys

if TYPE_CHECKING:
    from finsent.evaluation.metrics import Answers
    from finsent.evaluation.noninferiority import Allowance, Judgment
    from finsent.inference.engine import Engine
    from finsent.inference.truncation import Truncation

log = logging.getLogger(__name__)

_USAGE = "A B"

Name = Literal["a", "b"]
NAMES: tuple[Name, Name] = ("a", "b")


class NoRowsError(InputError):
    """A model was trained or validated on each row that was chosen."""


class UnusableModelError(InputError):
    """A model cannot be loaded, or cannot answer."""

    def __init__(self, name: Name, reason: str) -> None:
        super().__init__(reason)
        self.name = name


@contextmanager
def _naming(name: Name) -> Iterator[None]:
    """Raise what is wrong in the block as an error of one of the models."""
    try:
        yield
    except InputError as error:
        raise UnusableModelError(name, str(error)) from error


class Pair:
    """Two models that are compared on the same rows: each is loaded once, for any number of splits.

    Needs no Ray.
    """

    def __init__(self, settings: Settings, a_dir: Path, b_dir: Path) -> None:
        """Read what the models were trained on.

        Raises:
            UnusableModelError: a model is damaged.
            InputError: a dataset version is damaged, or a model has no calibration of that name.
        """
        self.settings, self.folders = settings, (a_dir, b_dir)
        self.trained_on: list[dict[str, Any] | None] = []
        for name, folder in zip(NAMES, self.folders, strict=True):
            with _naming(name):
                self.trained_on.append(read_provenance(folder).dataset)
        self._training = [training_rows(settings, dataset) for dataset in self.trained_on]
        self._validation = [validation_keys(settings, dataset) for dataset in self.trained_on]
        calibration = settings.evaluate.calibration
        self._domains = [
            calibration_of(settings, folder, calibration, "evaluate.calibration")
            for folder in self.folders
        ]
        self._engines: dict[Name, Engine] = {}

    def _answers(self, name: Name, rows: pa.Table) -> tuple[Answers, Truncation]:
        from finsent.evaluation.compare import read_answers
        from finsent.inference.engine import Engine

        place = NAMES.index(name)
        with _naming(name):
            if name not in self._engines:
                exact, domain = self.settings.engine.exact(), self._domains[place]
                self._engines[name] = Engine(self.folders[place], exact, domain=domain)
            return read_answers(self._engines[name], rows)

    def compare(self, chosen: Selection, out: Path) -> tuple[Result, Judgment]:
        """Compare B with A on rows that neither was trained on, and write to `out`.

        Raises:
            NoRowsError: there are no such rows.
            UnusableModelError: a model cannot be loaded, or cannot answer.
        """
        from finsent.evaluation.compare import (
            compare,
            comparison_line,
            flipped,
            with_seen,
            write_comparison,
        )
        from finsent.evaluation.noninferiority import judge
        from finsent.evaluation.overlap import known
        from finsent.evaluation.remarks import compared_remarks

        rows, seen, validated = self._unseen(chosen)
        all_b, cut_b = self._answers("b", chosen.rows)  # first: the gate has to know a broken one
        all_a, cut_a = self._answers("a", chosen.rows)
        new = known(chosen.rows, rows["key"])
        a, b = all_a.where(new), all_b.where(new)
        config = self.settings.evaluate
        found = compare(a, b, config.bootstrap, config.seed)
        line = comparison_line(found)
        judgment = judge(
            a,
            b,
            line if found["verdict"] == "worse" else None,
            allowance(self.settings),
            config.bootstrap,
            config.seed,
        )
        found |= {
            "judgment": asdict(judgment),
            "overlap": self._overlap(rows, seen),
            "with_seen": None if len(rows) == len(chosen.rows) else with_seen(all_a, all_b),
            "truncation": {"a": cut_a.record(), "b": cut_b.record()},
            "what": chosen.what,
            "calibration": config.calibration,
            "dataset_version": chosen.version.version if chosen.version else None,
            "seen_in_training": dict(zip(NAMES, seen, strict=True)),
            "seen_in_validation": dict(zip(NAMES, validated, strict=True)),
        }
        for name, folder in zip("ab", self.folders, strict=True):
            found[name]["model_dir"] = str(folder)
        write_comparison(found, flipped(rows, a, b), out)
        log.info("%s", line)
        for remark in compared_remarks(found):
            log.warning("%s", remark)
        return {**found, "comparison_dir": str(out)}, judgment

    def _unseen(self, chosen: Selection) -> tuple[pa.Table, list[int | None], list[int | None]]:
        """Leave out the rows that a model was trained or validated on.

        Returns:
            The other rows, and how many each model was trained on and validated on.
        """
        from finsent.evaluation.compare import unseen

        training = [read.rows["key"] if read.rows is not None else None for read in self._training]
        validation = self._validation
        config = self.settings.evaluate
        if config.split == "validation" and not config.sources:
            validation = [None, None]  # or no row would be left
            log.warning(
                "compare: the validation split chose the epoch of the model that it is of, which "
                "flatters that model"
            )
        calibrated_on = [
            pa.chunked_array([pa.array(domain.keys, pa.string())])
            for domain in self._domains
            if domain
        ]
        rows, counts = unseen(chosen.rows, *training, *validation, *calibrated_on)
        seen, validated, calibrated = counts[:2], counts[2:4], counts[4:]
        if any(calibrated):
            log.info("compare: left out rows that a calibration was fitted on: %s", calibrated)
        if not len(rows):
            raise NoRowsError(
                f"compare: A or B was trained or validated on each of the {len(chosen.rows)} rows "
                f"of {chosen.what}; set evaluate.sources or evaluate.dataset to others"
            )
        log.info(
            "compare: %s with %s on %d rows of %s (left out as trained on: %s by A, %s by B; as "
            "validated on: %s by A, %s by B)",
            *reversed(self.folders),
            len(rows),
            chosen.what,
            *("unknown" if count is None else count for count in (*seen, *validated)),
        )
        return rows, seen, validated

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
    found, judgment = pair.compare(chosen, call.run_dir / "comparison")
    table_console().print(_table(found))
    log.info("B in A's place: %s: %s", judgment.outcome, judgment.reason)
    return found


JOB = Job(
    name="compare",
    summary="Compare model B with model A on the same rows, by default the test split of the "
    "dataset version that B (or else A) was trained on; rows that either was trained or "
    "validated on are left out. Verdict: better or worse when McNemar's exact test has p < 0.05 or "
    "the 95 % interval (paired bootstrap) of the macro-F1 difference leaves out 0, the two do not "
    "contradict, and at least 6 rows have another label; else no difference. A and B are "
    "alias:NAME, version:ID, run:NAME or a directory, or bare names that are one of these. Writes "
    "comparison.json and flipped.parquet.",
    result="verdict, rows, macro_over (labels with rows), a and b (accuracy, macro_f1, "
    "model_dir), difference (B - A: value, interval), mcnemar (only_a, only_b: "
    "rows that only one has right; p_value), flipped, judgment (outcome, reason, rows, "
    "absent_labels, accuracy, macro_f1: value and bound), what, "
    "calibration, dataset_version, seen_in_training and seen_in_validation (rows left out, by "
    "model; null: unknown), overlap (by model: rows that it was trained "
    "on, near copies of them that remain, or the reason why that is not known), with_seen (figures "
    "with the rows left out; null: none), truncation (by model), comparison_dir, run_dir, seconds",
    sections=("evaluate", "engine", "data", "registry", "publish", "storage", "run"),
    run=run,
    arguments=_USAGE,
)

if __name__ == "__main__":
    main(JOB)
