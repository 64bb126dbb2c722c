"""The gate that a model passes to become champion; each job that moves the alias uses it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.evaluation.noninferiority import CANNOT_TELL, NOT_INFERIOR, not_judged
from finsent.registry.gate import Clearance, Figures, Gate, GateSplit, Owner, overall
from finsent.registry.registry import Registry
from finsent.settings import Settings
from ray_jobs.compare import NoRowsError, Pair
from ray_jobs.evaluate import own_dataset, select_rows

log = logging.getLogger(__name__)

CHAMPION = "champion"  # the alias that only a model that is not inferior to the present one gets


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
        InputError: the model is inferior, or the rows cannot tell, and `publish.force` is not set.
    """
    if alias != CHAMPION:
        return None
    rules = settings.publish
    against = registry.aliases().get(CHAMPION)
    if against is None:
        if (measured_rows or 0) < rules.min_rows:
            log.warning(
                "the first champion was measured on %d rows; to replace it, a model must be "
                "compared with it on %d (publish.min_rows)",
                measured_rows or 0,
                rules.min_rows,
            )
        return Clearance(None)
    if against == registry.version_id(model_dir):
        return Clearance(against)
    splits = _judge_splits(settings, registry, against, model_dir, out)
    outcome, reason = overall(splits)
    is_refused = outcome != NOT_INFERIOR
    if is_refused and not rules.force:
        raise InputError(_refusal(against, outcome == CANNOT_TELL, reason))
    log.log(
        logging.WARNING if is_refused else logging.INFO,
        "gate: %s%s to the champion %s: %s",
        "by publish.force, although " if is_refused else "",
        outcome,
        against,
        reason,
    )
    gate = Gate(against, outcome, is_refused, reason, rules.margin, rules.min_rows, splits)
    return Clearance(against, gate)


def _refusal(against: str, is_open: bool, reason: str) -> str:
    what = f"inferior to the champion {against}: {reason}"
    other = "give the model another alias, e.g. challenger, or set publish.force=true"
    if is_open:
        return f"alias {CHAMPION!r}: cannot tell whether the model is {what}. Add rows, {other}."
    return f"alias {CHAMPION!r}: the model is {what}. Keep the champion, {other}."


def _judge_splits(
    settings: Settings, registry: Registry, against: str, model_dir: Path, out: Path
) -> list[GateSplit]:
    plain = settings.evaluate.model_copy(update={"dataset": None, "sources": [], "split": "test"})
    settings = settings.model_copy(update={"evaluate": plain})
    try:
        pair = Pair(settings, registry.get(against).path, model_dir)
    except InputError as error:
        return [GateSplit("neither", None, not_judged(f"they cannot be compared: {error}"))]
    places = {"champion": out.with_name(f"{out.name}-champion")}
    return [
        _judge_split(settings, pair, owner, dataset, places.get(owner, out))
        for owner, dataset in _test_splits(*pair.trained_on)
    ]


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
        found, judgement = pair.compare(chosen, out)
    except NoRowsError:
        return GateSplit(owner, version, not_judged("no row that neither model was trained on"))
    except InputError as error:
        return GateSplit(owner, version, not_judged(str(error)))
    a, b = (Figures(found[name]["accuracy"], found[name]["macro_f1"]) for name in "ab")
    seen = dict(zip(("champion", "candidate"), found["seen_in_training"].values(), strict=True))
    if seen["candidate"] is None:
        log.warning("gate: the model's training rows are unknown, and may be among those compared")
    return GateSplit(owner, version, judgement, found["verdict"], b, a, found["flipped"], seen)
