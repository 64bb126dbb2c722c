"""Settings of exports."""

from __future__ import annotations

from finsent.config import Section, setting


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
