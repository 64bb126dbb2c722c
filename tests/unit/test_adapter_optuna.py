"""What finsent.adapters.optuna expects of Optuna; a failure names what an upgrade has changed."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
import pytest
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import TrialState

from finsent.adapters.optuna import allow_experimental, prune_as_infeasible, reopen_trial, silenced

pytestmark = pytest.mark.cost(1.5, "imports Optuna")


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    with silenced():
        return optuna.create_study(
            storage=f"sqlite:///{tmp_path}/study.db", study_name="a", direction="maximize"
        )


def test_a_running_trial_of_an_earlier_process_can_report(
    study: optuna.Study, tmp_path: Path
) -> None:
    study.ask().suggest_float("x", 0, 1)
    again = optuna.load_study(study_name="a", storage=f"sqlite:///{tmp_path}/study.db")
    [frozen] = again.get_trials(deepcopy=False)
    trial = reopen_trial(again, frozen)
    trial.report(0.5, 1)
    again.tell(trial.number, state=TrialState.PRUNED)
    [ended] = study.get_trials()
    assert (ended.state, ended.intermediate_values) == (TrialState.PRUNED, {1: 0.5}), (
        "optuna.Trial(study, trial_id) no longer reopens a running trial"
    )


def test_an_infeasible_trial_ranks_behind_a_pruned_one(study: optuna.Study) -> None:
    """Also where it had a better epoch."""
    diverged, stopped = study.ask(), study.ask()
    diverged.report(0.8, 1)
    stopped.report(0.2, 1)
    prune_as_infeasible(study, diverged, "diverged")
    study.tell(stopped.number, state=TrialState.PRUNED)
    trials = study.get_trials()
    assert (trials[0].state, trials[0].constraints) == (TrialState.PRUNED, {"diverged": 1.0})
    below, _ = _split_trials(study, trials, 1)
    assert [trial.number for trial in below] == [stopped.number], (
        "TPE no longer ranks a trial with a violated constraint last"
    )


def test_experimental_samplers_do_not_warn() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        allow_experimental()
        optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True)
        optuna.samplers.GPSampler(seed=0)
        optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.1)
    assert [str(warning.message) for warning in caught] == []


def test_studies_are_created_silently(capsys: pytest.CaptureFixture[str]) -> None:
    level = optuna.logging.get_verbosity()
    with silenced():
        optuna.create_study()
    assert capsys.readouterr().err == "" and optuna.logging.get_verbosity() == level
