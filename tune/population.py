"""The members of a population: Ray Tune's population-based training accepts no searcher."""

from __future__ import annotations

from ray.tune.search import Searcher

from finsent.adapters.ray_tune import flat_key
from tune.records import TrialConfig
from tune.search import StudySearch
from tune.trial_events import Event, TrialEnded, TrialStarted
from tune.trial_report import CAUSE, FAILURE, FINAL


class Population:
    """All configurations of a searcher at once, and the study's view of their trials."""

    def __init__(self, searcher: StudySearch) -> None:
        self._searcher = searcher
        self._exchanged: set[int] = set()  # numbers of trials with settings of another trial
        self.configs: list[TrialConfig] = []
        while (config := searcher.suggest(str(len(self.configs)))) != Searcher.FINISHED:
            self.configs.append(config)
        self._ids = {config["number"]: str(i) for i, config in enumerate(self.configs)}

    def on_event(self, event: Event) -> None:
        """Tell the study the outcome of a trial that ended with its first settings."""
        if isinstance(event, TrialStarted) and event.source == "pbt":
            self._exchanged.add(event.trial)
        elif isinstance(event, TrialEnded) and event.status != "interrupted":
            self._searcher.on_trial_complete(self._ids[event.trial], self._result(event))

    def _result(self, event: TrialEnded) -> dict[str, object]:
        if event.trial not in self._exchanged:
            if event.status == "finished":
                return {flat_key(FINAL, name): value for name, value in event.values.items()}
            if event.cause:
                return {FAILURE: event.reason, CAUSE: event.cause}
        return {FAILURE: "ended with settings of another trial"}
