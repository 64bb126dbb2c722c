"""Settings of evaluation."""

from __future__ import annotations

from typing import Literal

from finsent.config import Section, setting
from finsent.data.config import Source


class EvaluateConfig(Section):
    """Which model is measured on which rows."""

    model: str = setting(
        "latest",
        "model to measure: an alias, a model version, a run's or a model's directory, or `latest` "
        "(the last finished training run)",
    )
    dataset: str | None = setting(
        None, "dataset version (id, directory or `latest`); null: the one the model was trained on"
    )
    split: Literal["train", "validation", "test"] = setting("test", "split to measure on")
    sources: list[Source] = setting(
        list,
        "labelled files to measure on in place of a split; read by the rules of the section "
        "data, and texts of the training split among them are reported",
    )
    baselines: bool = setting(
        True, "also measure the majority class and TF-IDF + logistic regression"
    )
