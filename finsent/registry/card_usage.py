"""The section of a model card on use without finsent."""

from __future__ import annotations

from pathlib import Path

from finsent.inference.export_record import read_exports
from finsent.modeling.calibration import read_calibration
from finsent.modeling.label_map import read_label_map
from finsent.modeling.provenance import read_provenance

_SNIPPET = """```python
from transformers import pipeline

classify = pipeline("text-classification", model=".")  # this directory
classify(["Operating profit rose to EUR 13.1 mn."], truncation=True, top_k=None)
```"""
_OPTIMUM = (
    '`ORTModelForSequenceClassification.from_pretrained(".", subfolder="onnx", '
    'file_name="model.onnx")`'
)


def usage_section(model_dir: Path) -> list[str]:
    """Return Markdown on how transformers and ONNX Runtime give the same answers as finsent."""
    max_length = read_provenance(model_dir).max_length
    return [
        "## Use without finsent",
        _SNIPPET,
        "",
        _scores(model_dir),
        "",
        f"`truncation=True` cuts a text of more than {max_length} tokens on the right, as finsent "
        "does. finsent first repairs HTML entities, mojibake, invisible signs and repeated spaces "
        "(`finsent.normalize`). Without these repairs, texts that need them get other scores.",
        "",
        *_onnx(model_dir),
    ]


def _scores(model_dir: Path) -> str:
    temperature = read_calibration(model_dir).temperature
    if read_label_map(model_dir) is None:
        agreement = "Labels and scores equal finsent's with torch in fp32 within 1e-5"
    else:
        agreement = (
            "The scores are those of the model's own labels. Their sums by label of "
            "`label_map.json` equal finsent's scores with torch in fp32 within 1e-5"
        )
    if temperature == 1:
        return f"{agreement}."
    return (
        f"{agreement}, except for the calibration: finsent divides the logits of its three labels "
        f"by {temperature:.4f} (`calibration.json`), which the weights do not contain."
    )


def _onnx(model_dir: Path) -> list[str]:
    names = {export.name for export in read_exports(model_dir)}
    lines = []
    if quantized := sorted(name for name in names if not name.endswith("fp32")):
        lines += [
            f"finsent uses the fastest export unless `engine.precision=fp32` is set. With "
            f"{' or '.join(quantized)} its scores, and a few labels, differ from these.",
            "",
        ]
    if "onnxruntime-fp32" in names:
        lines += [f"`onnx/model.onnx` gives the same scores, e.g. by optimum: {_OPTIMUM}.", ""]
    if "onnxruntime-int8" in names:
        lines += [
            "Run `onnx/model_int8.onnx` with one text per call and no padding, as finsent does: "
            "its int8 ranges depend on the complete batch, so in a batch each text changes the "
            "scores of the others.",
            "",
        ]
    return lines
