"""Settings of exports."""

from __future__ import annotations

from finsent.config import Section, setting


class ExportConfig(Section):
    """The forms that `ray_jobs.export` writes, and the limits of the parity gate."""

    model: str = setting(
        "latest",
        "model to export: `run:NAME`, a directory, or `latest` (the last finished training run)",
    )
    onnx: bool = setting(True, "write ONNX in fp32 and, dynamically quantized, in int8")
    openvino: bool | None = setting(
        None,
        "write OpenVINO in int8, calibrated on validation rows (extra `openvino`); null: if "
        "OpenVINO is installed",
    )
    calibration_rows: int = setting(
        300, "validation rows to calibrate int8 ranges on", unit="rows", ge=16
    )
    max_difference: float = setting(
        1e-4,
        "largest allowed difference of any probability of an fp32 export from torch in fp32",
        gt=0,
        le=1,
    )
    max_f1_loss: float = setting(
        0.04,
        "allowed loss of accuracy and macro-F1 of a quantized export on the validation split: "
        "it must lose less with 95 % confidence, and must not be shown to be worse; 1: not judged",
        unit="fraction",
        ge=0,
        le=1,
    )
    min_same_labels: float = setting(
        0.96,
        "least share of labels that a quantized export keeps, with 95 % confidence",
        unit="fraction",
        ge=0,
        le=1,
    )
    min_same_abstentions: float = setting(
        0.94,
        "least share of rows on which a quantized export abstains or answers as the model does, "
        "with 95 % confidence",
        unit="fraction",
        ge=0,
        le=1,
    )
    max_score_change: float = setting(
        0.02,
        "largest mean change of the confidence by a quantized export, with 95 % confidence",
        gt=0,
        le=1,
    )
