"""Settings of the jobs that answer with a model: `classify` and `predict`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from finsent.config import Section, local_dir, setting
from finsent.data.config import Source
from finsent.names import NAME_PATTERN, CalibrationsByTag
from finsent.spellings import ColumnName


class AnsweringConfig(Section):
    """Which model answers, and by which calibration."""

    model: str = setting(
        "champion",
        "model to use: `alias:NAME`, `version:ID`, `run:NAME`, a directory, `latest`, or a bare "
        "name that is one of these",
    )
    calibration: str | None = setting(
        None,
        "calibration of the model for a domain, made by `ray_jobs.calibrate`, e.g. tweets; null: "
        "the model's own",
        pattern=NAME_PATTERN,
    )


class ClassifyConfig(AnsweringConfig):
    """What `ray_jobs.classify` reads."""

    input: str | None = setting(
        None,
        "file of texts: CSV, TSV, JSON, JSON Lines, Parquet, Arrow or a workbook, of which the "
        "column data.text_column is read, PhraseBank, or any other file with one text per line; "
        "`-`: standard input; null: texts from the arguments",
    )


def _sources(value: object) -> object:
    # One place may be written by itself.
    return [value] if isinstance(value, str | dict) else value


def _columns(value: object) -> object:
    # One name may be written by itself.
    return [value] if isinstance(value, str | int) and value != "all" else value


class PredictConfig(AnsweringConfig):
    """What `ray_jobs.predict` scores."""

    input: Annotated[list[Source], BeforeValidator(_sources)] = setting(
        list,
        "files of texts, as data.sources names them, labels not needed; also .txt, one text a line",
    )
    source_column: ColumnName | None = setting(
        None,
        "column with the tag of each row's source, which picks a calibration of "
        "predict.calibrations; it is copied as those of predict.columns are; null: none",
    )
    calibrations: CalibrationsByTag = setting(
        dict,
        "with source_column: calibration by tag, e.g. {x.com: tweets, news: null}; null: the "
        "model's own, which rows without a tag have; a row with another tag is not scored",
    )
    output: Annotated[str | None, AfterValidator(local_dir)] = setting(
        None,
        "directory for one scored file per input file, under the input's path from the working "
        "directory or else from the directory or glob that names it, and manifest.json; null: "
        "RUN_DIR/scored",
    )
    columns: Annotated[Literal["all"] | list[ColumnName], BeforeValidator(_columns)] = setting(
        list,
        "columns of the input that are copied to the scored file, e.g. id; all: each but the text; "
        "one whose name is taken gets `input_` before it",
    )
    format: Literal["parquet", "csv", "jsonl"] = setting("parquet", "format of the scored files")
    actors: int | None = setting(
        None,
        "processes that score side by side, each with its share of the cluster's CPUs; null: one a "
        "machine, or one a GPU",
        ge=1,
    )
    start_timeout: int = setting(
        300, "time for the processes to find room and load the model", unit="seconds", ge=1
    )

    @model_validator(mode="after")
    def _one_way_to_calibrate(self) -> PredictConfig:
        if self.calibration is not None and self.source_column is not None:
            raise ValueError(
                f"source_column={self.source_column!r}: calibration={self.calibration!r} is for "
                "all rows. Leave one of the two out."
            )
        if bool(self.calibrations) != (self.source_column is not None):
            raise ValueError("calibrations: goes with source_column. Set both, or neither.")
        return self
