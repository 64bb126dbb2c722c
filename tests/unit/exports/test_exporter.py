"""Exported models: what is written, skipped and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from finsent.adoption.adopt import adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.errors import InputError
from finsent.evaluation.calibration import calibrate
from finsent.export.config import ExportConfig
from finsent.export.exporter import configured_forms, export_model
from finsent.files import link_or_copy, read_json, sha256_file
from finsent.inference.engine import Engine
from finsent.inference.export_record import ExportError, read_exports
from finsent.labels import LABELS
from finsent.modeling.model_dir import EXPORTS
from finsent.modeling.model_folder import find_model_folder
from tests.unit.exports.engines import ALL, ANY, EXACT, engine
from tests.unit.foreign import classifier, saved
from tests.unit.models import TEXTS

pytestmark = [
    pytest.mark.cost(8, "loads and measures backends"),
    pytest.mark.usefixtures("keep_threads"),
]


# --- what is written ------------------------------------------------------------------------------


def test_all_are_written_with_their_numbers(exported: Path, rows: pa.Table) -> None:
    exports = {export.name: export for export in read_exports(exported)}
    assert exports.keys() == ALL
    fp32 = exports["onnxruntime-fp32"]
    assert fp32.max_difference < 1e-4
    assert (fp32.same_labels, fp32.macro_f1, fp32.macro_f1_exact) == (1, 1, 1)
    assert all(export.max_difference > 0 for export in exports.values())
    record = read_json(exported / EXPORTS)
    assert (record["rows"], record["split"]) == (len(rows), "validation")
    assert not [*exported.parent.glob(".staging*")]
    for export in exports.values():
        assert export.bytes == sum(file.stat().st_size for file in export.files(exported))


def test_numbers_are_those_of_the_answers(exported: Path, rows: pa.Table) -> None:
    texts = rows["text"].to_pylist()
    exact = Engine(exported, EXACT).probabilities(texts)
    for export in read_exports(exported):
        probabilities = engine(exported, export.name).probabilities(texts)
        assert np.abs(probabilities - exact).max() == pytest.approx(export.max_difference, abs=1e-5)


def test_one_that_answers_otherwise_is_refused(
    own: Path, rows: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    strict = ANY.replaced(max_difference=1e-12, openvino=False)
    exports = {export.name: export for export in export_model(own, rows, strict, EXACT, {})}
    refused = exports["onnxruntime-fp32"]
    assert refused.file is None
    assert "1.0e-12" in str(refused.refused)
    assert "onnxruntime-fp32 is refused" in caplog.text
    assert [export.name for export in read_exports(own)] == ["onnxruntime-int8"]
    assert not (own / "onnx" / "model.onnx").exists()
    with pytest.raises(InputError, match="exported to onnxruntime-int8"):
        engine(own, "onnxruntime-fp32")


def test_a_failed_trace_is_one_line_and_a_lack_of_memory_is_not_taken_for_it(
    own: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_operator(*_: Any, **__: Any) -> None:
        raise torch.onnx.errors.UnsupportedOperatorError("aten::odd", 17, None)

    def no_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for module, name, fail, error in (
        (torch.onnx, "export", no_operator, ExportError),
        (Engine, "model_logits_of_rows", no_memory, torch.OutOfMemoryError),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, fail)
            with pytest.raises(error) as caught:
                export_model(own, rows, ANY, EXACT, {})
        if error is ExportError:
            assert "bert cannot be exported to ONNX (" in str(caught.value)
            assert "aten::odd" in str(caught.value)
        assert not (own / "exports.json").exists()


def fail(*_: Any, **__: Any) -> None:
    """What a library does with a graph that it does not expect."""
    raise RuntimeError("Port for tensor name attention_mask\nwas not found.")


def test_form_that_a_library_cannot_write_is_left_out_with_a_line(
    own: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("finsent.adapters.onnxruntime.quantize_dynamic", fail)
    config = ANY.replaced(openvino=False)
    assert [export.name for export in export_model(own, rows, config, EXACT, {})] == [
        "onnxruntime-fp32"
    ]
    lines = [record.getMessage() for record in caplog.records]
    assert (
        "export: without onnxruntime-int8: RuntimeError: Port for tensor name attention_mask was "
        "not found." in lines
    )
    assert [export.name for export in read_exports(own)] == ["onnxruntime-fp32"]
    assert [*(own / "onnx").iterdir()] == [own / "onnx" / "model.onnx"]


def test_graph_that_cannot_be_fused_is_exported_as_it_is(
    own: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("finsent.adapters.onnxruntime.optimize_model", fail)
    config = ANY.replaced(openvino=False)
    exports = {export.name: export for export in export_model(own, rows, config, EXACT, {})}
    assert exports["onnxruntime-fp32"].max_difference < 1e-5
    assert "export: operators are not fused (RuntimeError: Port" in caplog.text


def test_model_that_no_library_computes_has_no_exports(tiny: Path, tmp_path: Path) -> None:
    """MRA's graph loses its mask, and its answers with it."""
    folder = saved(classifier("mra"), tmp_path / "source", tiny)
    folder_of_model = find_model_folder(str(folder), None, "SOURCE", "")
    adopt(open_foreign("mra", folder_of_model, AdoptConfig()), tmp_path / "model")
    rows = pa.table({"text": TEXTS, "label": ["neutral"] * len(TEXTS)})
    with pytest.raises(ExportError, match="none of its exports can be computed") as caught:
        export_model(tmp_path / "model", rows, ANY, EXACT, {})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model" / EXPORTS).exists()


def test_exporting_again_leaves_nothing_of_before(copied: Path, rows: pa.Table) -> None:
    assert (copied / "openvino").is_dir()
    export_model(copied, rows, ANY.replaced(openvino=False), EXACT, {})
    assert not (copied / "openvino").exists()
    assert {export.backend for export in read_exports(copied)} == {"onnxruntime"}


def test_nothing_to_export_to_is_said() -> None:
    with pytest.raises(InputError, match=r"export\.onnx=false"):
        configured_forms(ExportConfig(onnx=False, openvino=False))


# --- the engine -----------------------------------------------------------------------------------


def test_writers_never_write_through_a_hard_link(
    copied: Path, rows: pa.Table, tmp_path: Path
) -> None:
    """The registry shares files with a run, whose next start trains, calibrates and exports."""
    published = tmp_path / "published"
    digests = {}
    for path in sorted(copied.rglob("*")):
        if path.is_file():
            name = path.relative_to(copied)
            (published / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, published / name)
            digests[name] = sha256_file(path)
    assert all((published / name).samefile(copied / name) for name in digests)
    labels = rows["label"].to_pylist()
    doubted = pa.array([LABELS[i % 3] if i % 4 == 0 else label for i, label in enumerate(labels)])
    calibrate(
        Engine(copied, EXACT), rows.set_column(1, "label", doubted), 0.9, {"split": "validation"}
    )
    assert not (copied / EXPORTS).exists()  # of the weights before
    assert not (copied / "onnx").exists()
    export_model(copied, rows, ANY, EXACT, {"split": "test"})
    assert {name: sha256_file(published / name) for name in digests} == digests
    rewritten = {name for name in digests if not (published / name).samefile(copied / name)}
    assert {Path(EXPORTS), Path("onnx/model.onnx"), Path("model.safetensors")} <= rewritten
