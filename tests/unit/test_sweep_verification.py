"""Verification of a sweep's winner. No Ray cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.modeling.backbone import Backbone
from tests.unit import sweeps
from tune.plan import make_plan
from tune.records import (
    Trial,
    VerifiedCandidate,
    VerifiedSeed,
    read_sweep,
)
from tune.verification import _copy_model, candidates, conclude

pytestmark = pytest.mark.cost(1.5, "imports Ray Tune and Optuna")


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return sweeps.tiny_backbone(tmp_path)


def _row(trial: int | None, *values: float | None) -> VerifiedCandidate:
    reached = [value for value in values if value is not None]
    return VerifiedCandidate(
        trial=trial,
        params={"trial": trial},
        sweep=0.9,
        std=0.0,
        mean=sum(reached) / len(reached) if len(reached) == len(values) else None,
        seeds=[
            VerifiedSeed(
                seed=seed,
                validation=value,
                model_dir=f"{trial}-{seed}",
                failure=None if value is not None else "lost",
            )
            for seed, value in enumerate(values)
        ],
    )


def test_the_best_mean_is_chosen_and_luck_is_measured() -> None:
    rows = [_row(3, 0.80, 0.78), _row(5, 0.83, 0.81), _row(None, 0.79, 0.77)]
    verification = conclude(rows, "max", (0.88, Trial(3, {"a": 1})), None)
    assert (verification.chosen, verification.model_dir) == (5, "5-0")
    assert verification.verified == pytest.approx(0.82)
    assert verification.luck == pytest.approx(0.88 - 0.79)  # less its own mean
    assert verification.gain is not None and verification.gain.by_seed == pytest.approx(
        [0.04, 0.04]
    )


def test_a_lower_mean_wins_for_a_minimized_metric() -> None:
    rows = [_row(1, 0.5, 0.6), _row(None, 0.4, 0.4)]
    verification = conclude(rows, "min", (0.3, Trial(1, {})), None)
    assert verification.chosen == "default" and verification.luck == pytest.approx(0.25)


def test_unchanged_settings_win_a_tie() -> None:
    verification = conclude([_row(1, 0.5), _row(None, 0.5)], "max", (0.5, Trial(1, {})), None)
    assert verification.chosen == "default"


def test_a_candidate_with_a_failed_training_is_not_chosen() -> None:
    rows = [_row(1, 0.9, None), _row(None, 0.5, 0.5)]
    verification = conclude(rows, "max", (0.9, Trial(1, {})), None)
    assert verification.chosen == "default" and verification.luck is None
    with pytest.raises(InputError, match="no candidate could be trained"):
        conclude([_row(1, None), _row(None, None)], "max", (0.9, Trial(1, {})), None)


def test_candidates_are_the_best_configurations_each_once(
    tmp_path: Path, backbone: Backbone
) -> None:
    plan = make_plan(sweeps.tiny_settings(verify_best=2), backbone)
    params = [
        plan.default,
        {"train.learning_rate": 1e-3},
        {"train.learning_rate": 1e-3},
        {"train.learning_rate": 2e-3},
        {"train.learning_rate": 3e-3},
    ]
    values, states = [0.9, 0.8, 0.79, 0.95, 0.7], ["finished"] * 3 + ["interrupted", "finished"]
    events = []
    for number, (point, value, status) in enumerate(zip(params, values, states, strict=True)):
        events += [
            sweeps.start(number, number, point or {}),
            sweeps.end(number, number + 0.5, 4, value, status=status),
        ]
    best = candidates(plan, read_sweep(sweeps.write(tmp_path, events)))
    assert [(c.name, c.sweep_value) for c in best] == [
        ("trial-3", 0.95),
        ("trial-1", 0.8),
        ("default", 0.9),
    ]


def test_the_chosen_model_is_copied_and_not_moved(tmp_path: Path) -> None:
    # A longer sweep may choose another one, and the one after it this one again.
    for name in ("a", "b", "a"):
        trained = tmp_path / "verify" / name / "model"
        trained.mkdir(parents=True, exist_ok=True)
        (trained / "name").write_text(name)
        assert _copy_model(tmp_path, trained) == tmp_path / "model"
        assert (tmp_path / "model/name").read_text() == name
        assert (trained / "name").is_file()
