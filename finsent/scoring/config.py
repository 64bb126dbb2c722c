"""Settings of the jobs that answer with a model: `classify` and `predict`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from finsent.config import Section, local_dir, setting
from finsent.data.config import Source
from finsent.names import CalibrationName, CalibrationsByTag
from finsent.spellings import ColumnName


class AnsweringConfig(Section):
    """The model and the calibration that a job answers with."""

    model: str = setting(
        "champion",
        "model to use: `alias:NAME`, `version:ID`, `run:NAME`, a directory, `latest`, or a bare "
        "name that is one of these",
    )
    calibration: CalibrationName | None = setting(
        None,
        "calibration of the model for a domain, made by `ray_jobs.calibrate`, e.g. tweets; null: "
        "the model's own",
    )


class ClassifyConfig(AnsweringConfig):
    """The model and the texts of `ray_jobs.classify`."""

    input: str | None = setting(
        None,
        "file of texts: the column data.text_column of CSV, TSV, JSON, JSON Lines, Parquet, Arrow "
        "or a workbook; PhraseBank; any other file with one text per line; `-`: standard input; "
        "null: texts from the arguments",
    )


def _sources(value: object) -> object:
    # A single source may be written without a list.
    return [value] if isinstance(value, str | dict) else value


def _columns(value: object) -> object:
    # A single name may be written without a list.
    return [value] if isinstance(value, str | int) and value != "all" else value


class PredictConfig(AnsweringConfig):
    """The model, the files and the processes of `ray_jobs.predict`."""

    input: Annotated[list[Source], BeforeValidator(_sources)] = setting(
        list,
        "files of texts, written as in data.sources; labels are not needed; also .txt with one "
        "text per line",
    )
    source_column: ColumnName | None = setting(
        None,
        "column with the tag of each row's source, which picks a calibration of "
        "predict.calibrations; the scored file has a copy; null: none",
    )
    calibrations: CalibrationsByTag = setting(
        dict,
        "with source_column: calibration by tag, e.g. {x.com: tweets, news: null}; null: the "
        "model's own, which rows without a tag use; a row with another tag is not scored",
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
        "a name that the scored file has already gets the prefix `input_`",
    )
    format: Literal["parquet", "csv", "jsonl"] = setting("parquet", "format of the scored files")
    actors: int | None = setting(
        None,
        "processes that score in parallel, each with its share of the cluster's CPUs; null: one "
        "per machine, or one per GPU",
        ge=1,
    )
    start_timeout: int = setting(
        300, "time for the processes to be placed and to load the model", unit="seconds", ge=1
    )

    @model_validator(mode="after")
    def _one_way_to_calibrate(self) -> PredictConfig:
        if self.calibration is not None and self.source_column is not None:
            raise ValueError(
                f"source_column={self.source_column!r}: calibration={self.calibration!r} is for "
                "all rows. Leave out one of the two."
            )
        if bool(self.calibrations) != (self.source_column is not None):
            raise ValueError("calibrations: goes with source_column. Set both, or neither.")
        return self
