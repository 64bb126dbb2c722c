"""The gate that a model passes to become champion; each job that moves the alias uses it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.evaluation.config import EvaluateConfig
from finsent.evaluation.noninferiority import CANNOT_TELL, NOT_INFERIOR, Outcome, not_judged
from finsent.registry.config import PublishConfig
from finsent.registry.gate import Clearance, Figures, Gate, GateSplit, Obstacle, Owner, overall
from finsent.registry.registry import Registry
from finsent.settings import Settings
from ray_jobs.compare import NoRowsError, Pair, UnusableModelError
from ray_jobs.evaluate import own_dataset, select_rows

log = logging.getLogger(__name__)

CHAMPION = "champion"  # the alias that only a model that is not inferior to the present one gets
# Whatever the caller evaluates on, the gate judges on the models' own test splits, each model as it
# is published, with one bootstrap for all.
OWN_SPLIT = EvaluateConfig()


def check_gate(
    settings: Settings,
    registry: Registry,
    model_dir: Path,
    alias: str | None,
    out: Path,
    measured_rows: int | None,
) -> Clearance | None:
    """Judge a model that is to be champion by its answers and those of the present champion.

    Args:
        alias: that the model is to get.
        out: directory of the comparison on the model's own test split; `OUT-champion` gets the one
            on the champion's, where that is another.
        measured_rows: rows that the model's metrics are of; None: not measured.

    Returns:
        None where the alias has no gate. The clearance has no gate where nothing is to be compared:
        there is no champion, or the model is the champion.

    Raises:
        InputError: the model is inferior, or the rows cannot tell, and `publish.force` is not set;
            or the model is unusable.
    """
    if alias != CHAMPION:
        return None
    against = registry.aliases().get(CHAMPION)
    if against is None:
        _warn_of_few(settings.publish, measured_rows or 0)
        return Clearance(None)
    if against == registry.version_id(model_dir):
        return Clearance(against)
    splits = _judge_splits(settings, registry, against, model_dir, out)
    return Clearance(against, _decide(settings.publish, against, splits))


def _warn_of_few(rules: PublishConfig, rows: int) -> None:
    if rows < rules.min_rows:
        log.warning(
            "the first champion was measured on %d rows; to replace it, a model must be compared "
            "with it on %d (publish.min_rows)",
            rows,
            rules.min_rows,
        )


def _decide(rules: PublishConfig, against: str, splits: list[GateSplit]) -> Gate:
    """Return the record of a gate that lets the model pass.

    Raises:
        InputError: it does not.
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
        OWN_SPLIT.bootstrap,
        OWN_SPLIT.seed,
        splits,
    )


_REMEDIES = {
    None: "Add rows",
    "dataset": "Ingest the dataset again",
    "champion": "Restore the champion, or roll the alias back (registry rollback champion)",
}


def _refusal(against: str, outcome: Outcome, reason: str, splits: Sequence[GateSplit]) -> str:
    what = f"inferior to the champion {against}: {reason}"
    other = "give the model another alias, e.g. challenger, or set publish.force=true"
    if outcome != CANNOT_TELL:
        return f"alias {CHAMPION!r}: the model is {what}. Keep the champion, {other}."
    open_splits = [split for split in splits if split.judgment.outcome == CANNOT_TELL]
    remedies = dict.fromkeys(_REMEDIES[split.unusable] for split in open_splits)
    return (
        f"alias {CHAMPION!r}: cannot tell whether the model is {what}. {', '.join(remedies)}, "
        f"{other}."
    )


def _judge_splits(
    settings: Settings, registry: Registry, against: str, model_dir: Path, out: Path
) -> list[GateSplit]:
    """Judge on each test split.

    Raises:
        InputError: the model is unusable.
    """
    settings = settings.replaced(evaluate=OWN_SPLIT)
    splits = _judge_champion(settings, registry, against, model_dir, out)
    if all(split.judgment.accuracy is None for split in splits):
        from finsent.inference.engine import Engine

        Engine(model_dir, settings.engine.exact())  # as no comparison has loaded it
    return splits


def _judge_champion(
    settings: Settings, registry: Registry, against: str, model_dir: Path, out: Path
) -> list[GateSplit]:
    try:
        champion = registry.get(against).path
    except InputError as error:
        return [_unusable("neither", None, "champion", error)]
    try:
        pair = Pair(settings, champion, model_dir)
    except InputError as error:
        return [_unusable("neither", None, _obstacle(error), error)]
    places = {"champion": out.with_name(f"{out.name}-champion")}
    return [
        _judge_split(settings, pair, owner, dataset, places.get(owner, out))
        for owner, dataset in _test_splits(*pair.trained_on)
    ]


def _obstacle(error: InputError) -> Obstacle:
    """Return what an error is of.

    Raises:
        UnusableModelError: it is of the model that is to become champion.
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
    champion: dict[str, Any] | None, candidate: dict[str, Any] | None
) -> list[tuple[Owner, dict[str, Any] | None]]:
    """Return whose test splits are judged on, with the datasets that they are of.

    A model that was trained elsewhere has none. Where both were, the newest version of `data.name`
    is judged on.

    Args:
        champion: `dataset` of the model's provenance; None: it was trained elsewhere.
        candidate: likewise.
    """
    if champion is None and candidate is None:
        return [("neither", None)]
    if champion and candidate:
        names = ("name", "version")
        if [champion[key] for key in names] == [candidate[key] for key in names]:
            return [("both", candidate)]
    own: list[tuple[Owner, dict[str, Any] | None]] = [
        ("candidate", candidate),
        ("champion", champion),
    ]
    return [(owner, dataset) for owner, dataset in own if dataset is not None]


def _judge_split(
    settings: Settings, pair: Pair, owner: Owner, dataset: dict[str, Any] | None, out: Path
) -> GateSplit:
    version = dataset["version"] if dataset else None
    try:
        if dataset and own_dataset(settings, dataset) is None:
            raise InputError(
                f"its rows are not at hand; ingest the dataset {dataset['name']!r} again under "
                "storage.root"
            )
        chosen = select_rows(settings, dataset)
        version = chosen.version.version if chosen.version else version
        found, judgment = pair.compare(chosen, out)
    except NoRowsError:
        reason = "no row that neither model was trained or validated on"
        return GateSplit(owner, version, not_judged(reason))
    except InputError as error:
        return _unusable(owner, version, _obstacle(error), error)
    a, b = (Figures(found[name]["accuracy"], found[name]["macro_f1"]) for name in "ab")
    seen, validated = (
        dict(zip(("champion", "candidate"), found[key].values(), strict=True))
        for key in ("seen_in_training", "seen_in_validation")
    )
    if seen["candidate"] is None:
        log.warning("gate: the model's training rows are unknown, and may be among those compared")
    verdict, flipped = found["verdict"], found["flipped"]
    return GateSplit(owner, version, judgment, verdict, b, a, flipped, seen, validated)
