"""The settings of a sweep: the library's sections and the section `sweep`."""

from __future__ import annotations

from finsent.config import setting
from finsent.settings import Settings
from tune.config import SweepConfig


class SweepSettings(Settings):
    """The sections that a sweep uses."""

    sweep: SweepConfig = setting(SweepConfig, "hyperparameter search")
