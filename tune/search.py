"""Which configuration comes next: an Optuna study behind Ray Tune's searcher interface.

Ray's own `OptunaSearch` is not used: it tells a study what a trial reported last even where the
scheduler stopped it, leaves a trial with a NaN running for ever, and cannot take up a trial of a
driver that was killed. Here a stopped trial is told as pruned, with its value after each epoch,
which TPE ranks as such (Bergstra et al. 2011; Optuna's `TPESampler`).


A configuration whose settings a trial has had already is not trained again: the study is told what
became of that trial (when it has ended), and asked again. That is what Optuna's maintainers advise,
as its samplers do repeat themselves (github.com/optuna/optuna/issues/2021).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tune.config import SweepConfig
from tune.records import Trial
from tune.space import Space, encoded
from tune.trial_outcome import (
    CAUSE,
    FAILED,
    FAILURE,
    FINAL,
    Outcome,
    failure,
    finite,
    recorded,
    tell,
)

_MAX_ASKS = 20  # times that the study may repeat itself; then another configuration is drawn
MAX_LISTED = 2000  # configurations of a space that are listed to see which are left
_MAX_DRAWS = 1000  # from a larger space, all repeated: it counts as exhausted


@dataclass(frozen=True)
class Suggestion:
    """A configuration on its way."""

    number: int  # of the trial in the sweep
    params: dict[str, Any]
    source: str  # known, search or resumed
    study_trial: int


class StudySearch(Searcher):
    """Ray Tune's view of the study.

    A trial's config is `{"number": int, "params": {...}, "source": str}`.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        config: SweepConfig,
        trials: Sequence[Trial],
        first: Sequence[Mapping[str, Any]],
        on_repeat: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Args:
            trials: what the sweep has already; those without an end are taken up.
            first: configurations to try before any other.
            on_repeat: called with a trial's number when its settings were suggested again.
        """
        super().__init__(metric=config.metric, mode=config.mode)
        self._study, self._space, self._config = study, space, config
        self._on_repeat = on_repeat
        self.exhausted = False  # no configuration is left
        self._open = [t for t in trials if t.status in ("running", "interrupted")]
        self._next = max((t.number for t in trials), default=-1) + 1
        self._numbers: dict[str, int] = {}  # of trials, by identity
        self._outcomes: dict[int, Outcome] = {}  # of trials that have ended, by number
        for trial in trials:
            self._numbers.setdefault(space.identity(trial.params), trial.number)
            if outcome := recorded(trial, config):
                self._outcomes[trial.number] = outcome
        self._first = [dict(params) for params in first]
        self._grid = space.grid() if config.search == "grid" else None
        self._points: dict[str, dict[str, Any]] | None = None  # when it is `_listed`
        self._listed = False
        self._live: dict[str, tuple[int, optuna.Trial]] = {}  # by Tune's id
        self._waiting: dict[int, list[optuna.Trial]] = {}  # repeats, until that trial has ended
        self._study_trials: dict[int, int] = {}  # places in the study by number
        self._take_up()
        self._closing = False

    def _take_up(self) -> None:
        """Settle what the driver before has left open in the study."""
        going_on = {trial.number for trial in self._open}
        for one in self._study.get_trials(deepcopy=False):
            number, repeated = one.user_attrs.get("number"), one.user_attrs.get("repeats")
            if number is not None:
                self._study_trials[number] = one.number
            if one.state == TrialState.WAITING:  # else `ask` returns it for another configuration
                self._study.tell(self._study.ask(), state=TrialState.FAIL)
            if one.state != TrialState.RUNNING or number in going_on:
                continue
            trial = optuna.Trial(self._study, one._trial_id)
            if repeated in going_on:
                self._waiting.setdefault(repeated, []).append(trial)
            else:  # a trial that was not recorded has not begun
                ended = repeated if number is None else number
                outcome = FAILED if ended is None else self._outcomes.get(ended, FAILED)
                tell(self._study, trial, outcome, self._config)

    def close(self) -> None:
        """From now on trials are interrupted, not ended: the study is to hear nothing of it."""
        self._closing = True

    # --- suggestions ------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> Any:
        """See `Searcher.suggest`."""
        found = self._suggest(trial_id)
        if found is None:
            return Searcher.FINISHED
        return {"number": found.number, "params": found.params, "source": found.source}

    def _suggest(self, trial_id: str) -> Suggestion | None:
        if self._open:
            return self._resume(trial_id, self._open.pop(0))
        if self._next >= self._config.trials:
            return None
        trial, source = self._asked(self._known()), "known"
        if trial is None:
            trial, source = self._asked(self._of_grid()) if self._grid else self._new(), "search"
        if trial is None:
            self.exhausted = True
            return None
        number, self._next = self._next, self._next + 1
        trial.set_user_attr("number", number)
        params = self._space.sample(trial)
        self._numbers[self._space.identity(params)] = number
        self._live[trial_id] = number, trial
        return Suggestion(number, params, source, trial.number)

    def _number_of(self, params: Mapping[str, Any]) -> int | None:
        return self._numbers.get(self._space.identity(params))

    def _known(self) -> dict[str, Any] | None:
        while self._first:
            params = self._first.pop(0)
            if self._number_of(params) is None:
                return params
        return None

    def _of_grid(self) -> dict[str, Any] | None:
        assert self._grid is not None
        return next((params for params in self._grid if self._number_of(params) is None), None)

    def _asked(self, params: Mapping[str, Any] | None) -> optuna.Trial | None:
        """A configuration of our own as a trial of the study."""
        if params is None:
            return None
        self._study.enqueue_trial({key: encoded(value) for key, value in params.items()})
        return self._study.ask()

    def _new(self) -> optuna.Trial | None:
        """The study's next trial, with a configuration that is new; None where none is left."""
        for _ in range(_MAX_ASKS):
            trial = self._study.ask()
            number = self._number_of(self._space.sample(trial))
            if number is None:
                return trial
            trial.set_user_attr("repeats", number)
            self._on_repeat(number)
            if number in self._outcomes:
                tell(self._study, trial, self._outcomes[number], self._config)
            else:
                self._waiting.setdefault(number, []).append(trial)
            if self._left() == []:
                return None
        return self._asked(self._drawn())

    def _left(self) -> list[dict[str, Any]] | None:
        """Configurations that were not tried; None where they are too many to be listed."""
        if not self._listed:
            self._points, self._listed = self._space.points(MAX_LISTED), True
        if self._points is None:
            return None
        return [point for key, point in self._points.items() if key not in self._numbers]

    def _drawn(self) -> dict[str, Any] | None:
        """A new configuration at random."""
        seed, left = self._config.seed + self._next, self._left()
        if left is not None:
            return random.Random(seed).choice(left) if left else None
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        draws = (self._space.sample(study.ask()) for _ in range(_MAX_DRAWS))
        return next((params for params in draws if self._number_of(params) is None), None)

    def _resume(self, trial_id: str, past: Trial) -> Suggestion:
        place = self._study_trials.get(past.number)
        frozen = None if place is None else self._study.get_trials(deepcopy=False)[place]
        if frozen is not None and frozen.state == TrialState.RUNNING:
            trial = optuna.Trial(self._study, frozen._trial_id)
        else:  # the study was lost, or ended the trial when the driver could not record it
            self._study.enqueue_trial({key: encoded(v) for key, v in past.params.items()})
            trial = self._study.ask()
            trial.set_user_attr("number", past.number)
            self._space.sample(trial)
        self._live[trial_id] = past.number, trial
        return Suggestion(past.number, past.params, "resumed", trial.number)

    # --- what became of them ----------------------------------------------------------------------

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch's value, so that a trial that is stopped later counts for something."""
        epoch, value = result.get("epoch"), result.get(self._config.metric)
        ended = FAILURE in result or f"{FINAL}/{self._config.metric}" in result
        if epoch is None or not finite(value) or ended or self._config.objectives:
            return
        _, trial = self._live[trial_id]
        if int(epoch) not in self._values(trial):
            trial.report(float(value), int(epoch))

    def _values(self, trial: optuna.Trial) -> dict[int, float]:
        return self._study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how a trial ended; see `tune.trial_outcome` for the failed ones."""
        if self._closing:
            return
        result = result or {}
        values = [result.get(f"{FINAL}/{name}") for name in self._config.modes]
        if error or result.get(FAILURE):
            outcome = failure(None if error else result.get(CAUSE))
        elif all(map(finite, values)):
            outcome = Outcome(TrialState.COMPLETE, [v for v in values if finite(v)])
        elif self._config.objectives:
            outcome = FAILED
        else:
            self.on_trial_result(trial_id, result)
            epochs = self._values(self._live[trial_id][1])
            outcome = Outcome(TrialState.PRUNED, epochs=dict(epochs))
        number, trial = self._live.pop(trial_id)
        self._outcomes[number] = outcome
        for each in (trial, *self._waiting.pop(number, [])):
            tell(self._study, each, outcome, self._config)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study and the sweep's records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


class Population:
    """All configurations of a searcher at once: Ray Tune's PBT takes no searcher."""

    def __init__(self, searcher: StudySearch) -> None:
        self._searcher, self._changed = searcher, set[int]()
        self.configs: list[dict[str, Any]] = []
        while (found := searcher.suggest(str(len(self.configs)))) != Searcher.FINISHED:
            self.configs.append(found)
        self._ids = {config["number"]: str(i) for i, config in enumerate(self.configs)}

    def event(self, event: str, number: int, fields: Mapping[str, Any]) -> None:
        """Tell the study what a trial came to that ended with the settings it began with."""
        if event == "start" and fields["source"] == "pbt":
            self._changed.add(number)
        elif event == "end" and fields["status"] != "interrupted":
            result = {FAILURE: "not with its own settings"}
            if number not in self._changed and fields["status"] == "finished":
                result = {f"{FINAL}/{name}": value for name, value in fields["values"].items()}
            elif number not in self._changed and fields["cause"]:
                result = {FAILURE: fields["reason"], CAUSE: fields["cause"]}
            self._searcher.on_trial_complete(self._ids[number], result)
