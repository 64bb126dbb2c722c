"""The gate of the alias `champion`: whether a model may replace the present champion."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from finsent.errors import InputError
from finsent.evaluation.config import EvaluateConfig
from finsent.evaluation.noninferiority import Allowance
from finsent.inference.engine import Engine
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.judging.model_pair import JudgedPair, ModelPair, NoRowsError, UnusableModelError
from finsent.judging.selection import select_rows
from finsent.judgments import (
    CANNOT_TELL,
    NOT_INFERIOR,
    Outcome,
    not_judged,
)
from finsent.metrics_record import StoredMetrics
from finsent.modeling.trained_on import TrainedOn, find_dataset
from finsent.registry.calibration_lookup import warn_of_lost_calibrations
from finsent.registry.config import PublishConfig
from finsent.registry.gate import Clearance, Gate, GateSplit, Obstacle, Owner, overall
from finsent.registry.publication import Publication
from finsent.runs import code_identity

log = logging.getLogger(__name__)

CHAMPION = "champion"  # the alias with a gate
# The gate ignores the settings of `evaluate`: it judges on the test splits of the models, each
# model with its own calibration, with fixed resamples and seed.
_OWN_SPLIT = EvaluateConfig()


def check_gate(
    setup: EvaluationSetup,
    rules: PublishConfig,
    model_dir: Path,
    alias: str | None,
    out: Path,
    measured_rows: int | None,
) -> Clearance | None:
    """Judge by the answers of model and champion whether the model may become champion.

    Args:
        alias: requested for the model.
        out: directory of the comparison on the model's own test split. The comparison on the
            champion's test split, if that is another, is in `OUT-champion`.
        measured_rows: number of rows of the model's metrics; None: not measured.

    Returns:
        None: the alias has no gate. A clearance without a gate: there is no champion, or the model
        is the champion.

    Raises:
        InputError: the model is inferior, or the rows are inconclusive, and `publish.force` is not
            set; or the model is unusable.
    """
    if alias != CHAMPION:
        return None
    registry = setup.registry
    against = registry.aliases().get(CHAMPION)
    if against is None:
        _warn_of_few_rows(rules, measured_rows or 0)
        return Clearance(None)
    if against == registry.version_id(model_dir):
        return Clearance(against)
    splits = _judge_splits(setup.with_evaluate(_OWN_SPLIT), rules, against, model_dir, out)
    return Clearance(against, _decide(rules, against, splits))


def publish_behind_gate(
    setup: EvaluationSetup,
    rules: PublishConfig,
    model_dir: Path,
    alias: str | None,
    metrics: StoredMetrics,
    out: Path,
    *,
    license: str | None = None,
    share: bool = False,
) -> Publication:
    """Publish a model, and point the alias at the version, if the gate permits.

    Args:
        metrics: of the test split; without a key: the model was not measured.
        out: see `check_gate`.
        license: see `Registry.publish`, as `share`.

    Raises:
        InputError: the model is unusable, or the gate refuses it.
    """
    registry = setup.registry
    clearance = check_gate(setup, rules, model_dir, alias, out, metrics.rows)
    gate = clearance.gate if clearance else None
    version = registry.publish(
        model_dir, metrics.brief(), code_identity(), gate, license=license, share=share
    )
    warn_of_lost_calibrations(registry, alias, version.version)
    if alias:
        registry.promote(version.version, alias, clearance)
    return Publication(version, alias, gate)


def _warn_of_few_rows(rules: PublishConfig, rows: int) -> None:
    if rows < rules.min_rows:
        log.warning(
            "the first champion was measured on %d rows; to replace it, a model must be compared "
            "with it on %d (publish.min_rows)",
            rows,
            rules.min_rows,
        )


def _decide(rules: PublishConfig, against: str, splits: list[GateSplit]) -> Gate:
    """Return the record of a gate that the model passes.

    Raises:
        InputError: the model does not pass.
    """
    outcome, reason = overall(splits)
    is_refused = outcome != NOT_INFERIOR
    if is_refused and not rules.force:
        raise InputError(_refusal(against, outcome, reason, splits))
    log.log(
        logging.WARNING if is_refused else logging.INFO,
        "gate: %s%s to the champion %s: %s",
        "by publish.force, although " if is_refused else "",
        outcome,
        against,
        reason,
    )
    weakened = rules.weakened()
    if weakened:
        log.warning("gate: rules weaker than the defaults: %s", ", ".join(weakened))
    return Gate(
        against,
        outcome,
        is_refused,
        reason,
        rules.margin,
        rules.min_rows,
        weakened,
        _OWN_SPLIT.bootstrap,
        _OWN_SPLIT.seed,
        splits,
    )


_REMEDIES = {
    None: "Add rows",
    "dataset": "Ingest the dataset again",
    "champion": "Restore the champion, or roll the alias back (registry rollback champion)",
}


def _refusal(against: str, outcome: Outcome, reason: str, splits: Sequence[GateSplit]) -> str:
    finding = f"inferior to the champion {against}: {reason}"
    others = "give the model another alias, e.g. challenger, or set publish.force=true"
    if outcome != CANNOT_TELL:
        return f"alias {CHAMPION!r}: the model is {finding}. Keep the champion, {others}."
    open_splits = [split for split in splits if split.judgment.outcome == CANNOT_TELL]
    remedies = dict.fromkeys(_REMEDIES[split.unusable] for split in open_splits)
    return (
        f"alias {CHAMPION!r}: cannot tell whether the model is {finding}. {', '.join(remedies)}, "
        f"{others}."
    )


def allowance(rules: PublishConfig) -> Allowance:
    """Return what a model may lose when it replaces the champion."""
    return Allowance(rules.margin, rules.min_rows, ("publish.margin", "publish.min_rows"))


def _judge_splits(
    setup: EvaluationSetup, rules: PublishConfig, against: str, model_dir: Path, out: Path
) -> list[GateSplit]:
    """Judge the model on each test split.

    Raises:
        InputError: the model is unusable.
    """
    splits = _compare_with_champion(setup, rules, against, model_dir, out)
    if all(split.judgment.accuracy is None for split in splits):
        # No comparison has loaded the model.
        Engine(model_dir, setup.engine.exact()).warm_up()
    return splits


def _compare_with_champion(
    setup: EvaluationSetup, rules: PublishConfig, against: str, model_dir: Path, out: Path
) -> list[GateSplit]:
    try:
        champion = setup.registry.get(against).path
    except InputError as error:
        return [_unusable("neither", None, "champion", error)]
    try:
        pair = ModelPair(setup, champion, model_dir, allowance(rules))
    except InputError as error:
        return [_unusable("neither", None, _obstacle(error), error)]
    folders = {"champion": out.with_name(f"{out.name}-champion")}
    return [
        _judge_split(setup, pair, owner, dataset, folders.get(owner, out))
        for owner, dataset in _test_splits(pair.trained_on["a"], pair.trained_on["b"])
    ]


def _obstacle(error: InputError) -> Obstacle:
    """Return what is unusable.

    Raises:
        UnusableModelError: the candidate is unusable.
    """
    if not isinstance(error, UnusableModelError):
        return "dataset"
    if error.name == "b":
        raise error
    return "champion"


def _unusable(
    owner: Owner, version: str | None, obstacle: Obstacle, error: InputError
) -> GateSplit:
    reason = str(error).rstrip(".")
    if obstacle == "champion":
        reason = f"the champion is unusable: {reason}"
    return GateSplit(owner, version, not_judged(reason), unusable=obstacle)


def _test_splits(
    champion: TrainedOn | None, candidate: TrainedOn | None
) -> list[tuple[Owner, TrainedOn | None]]:
    """Return whose test splits the model is judged on, with the dataset versions of the splits.

    A model that was trained outside finsent has no test split. Where both models were, the model
    is judged on the newest version of `data.name`.

    Args:
        champion: None: the champion was trained outside finsent.
        candidate: None: the candidate was trained outside finsent.
    """
    if champion is None and candidate is None:
        return [("neither", None)]
    if champion == candidate:
        return [("both", candidate)]
    owners: list[tuple[Owner, TrainedOn | None]] = [
        ("candidate", candidate),
        ("champion", champion),
    ]
    return [(owner, dataset) for owner, dataset in owners if dataset is not None]


def _judge_split(
    setup: EvaluationSetup, pair: ModelPair, owner: Owner, dataset: TrainedOn | None, out: Path
) -> GateSplit:
    version = dataset.version if dataset else None
    try:
        if dataset and find_dataset(setup.workspace, dataset) is None:
            _raise_missing(dataset)
        selection = select_rows(setup, dataset)
        version = selection.version.version if selection.version else version
        judged = pair.compare(selection, out)
    except NoRowsError:
        reason = "no row that neither model was trained or validated on"
        return GateSplit(owner, version, not_judged(reason))
    except InputError as error:
        return _unusable(owner, version, _obstacle(error), error)
    return _record(owner, version, judged)


def _raise_missing(dataset: TrainedOn) -> NoReturn:
    raise InputError(
        f"its rows are not found. Ingest the dataset {dataset.name!r} again under storage.root."
    )


def _record(owner: Owner, version: str | None, judged: JudgedPair) -> GateSplit:
    """Return the record of a comparison, where A is the champion and B the candidate."""
    training, validation = (
        {"champion": counts["a"], "candidate": counts["b"]}
        for counts in (judged.used.training, judged.used.validation)
    )
    if training["candidate"] is None:
        log.warning("gate: the model's training rows are unknown, and may be among those compared")
    comparison = judged.comparison
    return GateSplit(
        owner,
        version,
        judged.judgment,
        comparison.verdict,
        candidate=comparison.b,
        champion=comparison.a,
        flipped=comparison.flipped,
        seen_in_training=training,
        seen_in_validation=validation,
    )
