"""Settings of the engine, of exports, and of the jobs that only use a model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from finsent.config import Section, local_dir, setting
from finsent.data.config import Source
from finsent.names import NAME_PATTERN, CalibrationsByTag
from finsent.spellings import ColumnName

Truncate = Literal["right", "left", "error"]


class EngineConfig(Section):
    """How texts become probabilities."""

    backend: Literal["auto", "torch", "onnxruntime", "openvino"] = setting(
        "auto",
        "what computes; auto: the fastest that the model was exported for and that kept its "
        "quality, measured at load; evaluation takes torch in fp32 where this says auto",
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = setting(
        "auto", "number format of weights and products; auto: any that kept the model's quality"
    )
    threads: int | None = setting(
        None,
        "compute threads; null: one per CPU core that this process may use",
        unit="threads",
        ge=1,
    )
    token_budget: int = setting(
        1024, "padded tokens (rows x longest row) allowed in one micro-batch", unit="tokens", ge=16
    )
    truncate: Truncate = setting(
        "right", "side on which a text longer than the model's max_length is cut; error: refuse it"
    )
    compile: bool = setting(False, "backend torch: compile the model at load (torch.compile)")

    def exact(self) -> EngineConfig:
        """These settings with torch in fp32 where the choice is left open.

        What is measured then does not depend on which machine it is measured on.
        """
        if (self.backend, self.precision) != ("auto", "auto"):
            return self
        return self.replaced(backend="torch", precision="fp32")


class ExportConfig(Section):
    """What `ray_jobs.export` writes beside a model's weights."""

    model: str = setting(
        "latest",
        "model to export: `run:NAME`, a directory, or `latest` (the last finished training run)",
    )
    onnx: bool = setting(True, "write ONNX in fp32 and, dynamically quantized, in int8")
    openvino: bool | None = setting(
        None,
        "write OpenVINO in int8, calibrated on validation rows (extra `openvino`); null: where "
        "that is installed",
    )
    calibration_rows: int = setting(
        300, "validation rows that int8 ranges are calibrated on", unit="rows", ge=16
    )
    max_difference: float = setting(
        1e-4,
        "largest difference of any probability from torch in fp32 that an fp32 export may have",
        gt=0,
        le=1,
    )
    max_f1_loss: float = setting(
        0.04,
        "accuracy and macro-F1 that a quantized export may lose on the validation split: "
        "with 95 % confidence it must lose less, and must not be shown to be worse; 1: not judged",
        unit="fraction",
        ge=0,
        le=1,
    )
    min_same_labels: float = setting(
        0.96,
        "share of labels that a quantized export must keep, with 95 % confidence",
        unit="fraction",
        ge=0,
        le=1,
    )
    min_same_abstentions: float = setting(
        0.94,
        "share of rows on which a quantized export must abstain or answer as the model does, "
        "with 95 % confidence",
        unit="fraction",
        ge=0,
        le=1,
    )
    max_score_change: float = setting(
        0.02,
        "mean change of the confidence that a quantized export may make, with 95 % confidence",
        gt=0,
        le=1,
    )


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
