"""Settings of evaluation."""

from __future__ import annotations

from typing import Literal

from finsent.config import Section, setting
from finsent.data.config import Source
from finsent.names import CalibrationName

SHIPPED = "shipped"


class EvaluateConfig(Section):
    """Which model is measured on which rows."""

    model: str = setting(
        "latest",
        "model to measure: `alias:NAME`, `version:ID`, `run:NAME`, a directory, `latest` (the last "
        "finished training run), or a bare name that is one of these",
    )
    dataset: str | None = setting(
        None,
        "dataset version: `version:ID`, a directory, `latest`, or an id; null: the dataset version "
        "that the model was trained on",
    )
    calibration: CalibrationName | None = setting(
        None,
        "name of a calibration for a domain, published by `ray_jobs.calibrate`, e.g. tweets. Rows "
        "that the calibration was fitted on are left out, near copies of these rows are kept. "
        "`ray_jobs.compare` uses the calibration of this name of each model; null: the model's own",
    )
    split: Literal["train", "validation", "test"] = setting("test", "split to measure on")
    sources: list[Source] = setting(
        list,
        "labeled files to measure on in place of a split, read by the rules of the section data. "
        "Texts that are also in the training split are reported",
    )
    baselines: bool = setting(
        True, "also measure the majority class, VADER, and TF-IDF + logistic regression"
    )
    behavior: str | None = setting(
        SHIPPED,
        "behavior suite that is run on the model: `shipped`, or a directory of your own YAML "
        "files; null: none",
        min_length=1,
    )
    bootstrap: int = setting(
        1000,
        "resamples of the rows for each 95 % interval",
        unit="resamples",
        ge=100,
        le=100_000,
    )
    seed: int = setting(0, "seed of the resamples", ge=0, lt=2**63)
    wanted_accuracy: float = setting(
        0.9,
        "accuracy that the answered rows of the validation split must reach. At the end of "
        "training, this accuracy determines the confidence below which the model abstains",
        unit="fraction",
        gt=0,
        le=1,
    )

    def on_own_test_split(self) -> EvaluateConfig:
        """Return these settings for the rows and the calibration that are a model's own."""
        return self.replaced(dataset=None, calibration=None, split="test", sources=[])


class CalibrateConfig(Section):
    """How `ray_jobs.calibrate` fits a published version to a domain."""

    model: str = setting("champion", "published version to calibrate: an alias or a version")
    name: CalibrationName | None = setting(None, "name of the calibration, e.g. tweets; required")
    sources: list[Source] = setting(
        list,
        "labeled files of the domain with about 200 rows, read by the rules of the section data. "
        "Texts that the model was trained on are left out",
    )
    min_rows: int = setting(
        100, "minimum number of rows, where near copies count as one", unit="rows", ge=20
    )
    min_label_rows: int = setting(
        5,
        "minimum number of rows of each label that the model can answer, where near copies count "
        "as one",
        unit="rows",
        ge=0,
    )
    folds: int = setting(
        10,
        "parts of the cross-validation. Each part is measured by a calibration that was fitted on "
        "the other parts. Near copies are in the same part",
        ge=2,
        le=100,
    )
    force: bool = setting(
        False,
        "publish the calibration even if the rows are too few or the log loss does not clearly "
        "fall. The calibration records the reason against it",
    )
