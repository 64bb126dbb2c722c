"""Exports answer as the model does, or are refused; the engine uses no other model's."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import binom

from finsent.adoption.adopt import adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.errors import InputError
from finsent.evaluation.calibration import calibrate
from finsent.export.config import ExportConfig
from finsent.export.exporter import configured_forms, export_model
from finsent.export.parity import Parity, compare, refusal, share
from finsent.files import link_or_copy, read_json, sha256_file, write_json
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.inference.export_record import ExportError, read_exports
from finsent.labels import LABELS
from finsent.metrics_record import StoredMetrics
from finsent.modeling.model_dir import EXPORTS
from finsent.modeling.model_folder import find_model_folder
from finsent.registry.registry import Registry
from tests.unit.foreign import classifier, saved
from tests.unit.models import MAX_LENGTH, TEXTS, saved_model

pytestmark = [
    pytest.mark.cost(8, "loads and measures backends"),
    pytest.mark.usefixtures("keep_threads"),
]

ALL = {"onnxruntime-fp32", "onnxruntime-int8", "openvino-int8"}
EXACT = EngineConfig(threads=1).exact()
# A tiny model with random weights loses more in int8 than one that was trained.
ANY = ExportConfig(max_f1_loss=1, min_same_labels=0, max_score_change=1, min_same_abstentions=0)


def corpus(count: int = 60) -> list[str]:
    words = [
        "profit",
        "loss",
        "rose",
        "fell",
        "bank",
        "shares",
        "outlook",
        "the",
        "of",
        "in",
        "8",
        "%",
        "weak",
        "strong",
        "order",
        "May",
    ]
    draw = random.Random(5)
    return [" ".join(draw.choices(words, k=draw.randint(1, 60))) for _ in range(count)]


@pytest.fixture(scope="module")
def rows(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Texts with the labels that the model gives them."""
    engine = Engine(saved_model(tiny, tmp_path_factory.mktemp("labels") / "model"), EXACT)
    texts = [*TEXTS, *corpus()]
    return pa.table({"text": texts, "label": [one.label for one in engine.classify(texts)]})


@pytest.fixture(scope="module")
def exported(tiny: Path, rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with all its exports; left as it is."""
    folder = saved_model(tiny, tmp_path_factory.mktemp("exported") / "model")
    export_model(folder, rows, ANY, EXACT, {"split": "validation"})
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "copied"))


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    return saved_model(tiny, tmp_path / "model")


def engine(folder: Path, name: str, **config: Any) -> Engine:
    backend, _, precision = name.partition("-")
    config = {"threads": 2, "backend": backend, "precision": precision, **config}
    return Engine(folder, EngineConfig.model_validate(config))


# --- what is written ------------------------------------------------------------------------------


def test_all_are_written_with_their_numbers(exported: Path, rows: pa.Table) -> None:
    found = {one.name: one for one in read_exports(exported)}
    assert found.keys() == ALL
    fp32 = found["onnxruntime-fp32"]
    assert fp32.max_difference < 1e-4
    assert (fp32.same_labels, fp32.macro_f1, fp32.macro_f1_exact) == (1, 1, 1)
    assert all(one.max_difference > 0 for one in found.values())
    record = read_json(exported / EXPORTS)
    assert (record["rows"], record["split"]) == (len(rows), "validation")
    assert not [*exported.parent.glob(".staging*")]
    for one in found.values():
        assert one.bytes == sum(file.stat().st_size for file in one.files(exported))


def test_numbers_are_those_of_the_answers(exported: Path, rows: pa.Table) -> None:
    texts = rows["text"].to_pylist()
    exact = Engine(exported, EXACT).probabilities(texts)
    for one in read_exports(exported):
        found = engine(exported, one.name).probabilities(texts)
        assert np.abs(found - exact).max() == pytest.approx(one.max_difference, abs=1e-5)


def test_one_that_answers_otherwise_is_refused(
    own: Path, rows: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    strict = ANY.replaced(max_difference=1e-12, openvino=False)
    found = {one.name: one for one in export_model(own, rows, strict, EXACT, {})}
    refused = found["onnxruntime-fp32"]
    assert refused.file is None
    assert "1.0e-12" in str(refused.refused)
    assert "onnxruntime-fp32 is refused" in caplog.text
    assert [one.name for one in read_exports(own)] == ["onnxruntime-int8"]
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
    assert [one.name for one in export_model(own, rows, config, EXACT, {})] == ["onnxruntime-fp32"]
    lines = [record.getMessage() for record in caplog.records]
    assert (
        "export: without onnxruntime-int8: RuntimeError: Port for tensor name attention_mask was "
        "not found." in lines
    )
    assert [one.name for one in read_exports(own)] == ["onnxruntime-fp32"]
    assert [*(own / "onnx").iterdir()] == [own / "onnx" / "model.onnx"]


def test_graph_that_cannot_be_fused_is_exported_as_it_is(
    own: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("finsent.adapters.onnxruntime.optimize_model", fail)
    config = ANY.replaced(openvino=False)
    found = {one.name: one for one in export_model(own, rows, config, EXACT, {})}
    assert found["onnxruntime-fp32"].max_difference < 1e-5
    assert "export: operators are not fused (RuntimeError: Port" in caplog.text


def test_model_that_no_library_computes_has_no_exports(tiny: Path, tmp_path: Path) -> None:
    """MRA's graph loses its mask, and its answers with it."""
    folder = saved(classifier("mra"), tmp_path / "source", tiny)
    found = find_model_folder(str(folder), None, "SOURCE", "")
    adopt(open_foreign("mra", found, AdoptConfig()), tmp_path / "model")
    rows = pa.table({"text": TEXTS, "label": ["neutral"] * len(TEXTS)})
    with pytest.raises(ExportError, match="none of its exports can be computed") as caught:
        export_model(tmp_path / "model", rows, ANY, EXACT, {})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model" / EXPORTS).exists()


def test_exporting_again_leaves_nothing_of_before(copied: Path, rows: pa.Table) -> None:
    assert (copied / "openvino").is_dir()
    export_model(copied, rows, ANY.replaced(openvino=False), EXACT, {})
    assert not (copied / "openvino").exists()
    assert {one.backend for one in read_exports(copied)} == {"onnxruntime"}


def test_nothing_to_export_to_is_said() -> None:
    with pytest.raises(InputError, match=r"export\.onnx=false"):
        configured_forms(ExportConfig(onnx=False, openvino=False))


# --- the gate -------------------------------------------------------------------------------------


def quantized(rows: int, labels: int = 0, sure: float = 0.9, moved: float = 0.0) -> Parity:
    """Compare with an export that answers alike but for some first rows, which become wrong.

    Args:
        labels: rows that get another label.
        sure: the model's confidence.
        moved: what the export's is lower by, on each row.
    """
    truth = np.arange(rows) % 3
    exact, found = (np.full((rows, 3), (1 - p) / 2) for p in (sure, sure - moved))
    exact[np.arange(rows), truth] = sure
    predicted = np.where(np.arange(rows) < labels, (truth + 1) % 3, truth)
    found[np.arange(rows), predicted] = sure - moved
    return compare(exact.astype(np.float32), found.astype(np.float32), truth, threshold=0.8)


@pytest.mark.parametrize(
    ("difference", "is_kept"), [(0, True), (1e-4, True), (1.1e-4, False), (float("nan"), False)]
)
def test_gate_of_fp32(difference: float, is_kept: bool) -> None:
    found = refusal(replace(quantized(3), max_difference=difference), "fp32", ExportConfig())
    assert (found is None) == is_kept
    if difference > 0 and not is_kept:
        assert "export.max_difference" in str(found)


@pytest.mark.parametrize(
    ("rows", "labels", "word"),
    [
        # Clopper and Pearson: without a change at most 1 - 0.05 ** (1 / rows) change.
        (74, 0, "macro-F1 changes by +0.0000"),  # 0.0397 of the labels; macro-F1 takes more rows
        (73, 0, "73 rows are too few to tell"),  # 0.0402
        (3, 0, "100.00% of the labels stay the same (95 %: at least 36.84%)"),
        (244, 0, None),
        (244, 1, None),
        (244, 2, None),
        (244, 3, None),
        (244, 4, None),
        (244, 5, "min_same_labels"),
        (244, 12, "min_same_labels"),
        (3000, 5, None),
        (3000, 6, "worse on 3000 rows"),  # McNemar: p = 0.031
    ],
)
def test_gate_of_labels(rows: int, labels: int, word: str | None) -> None:
    found = refusal(quantized(rows, labels), "int8", ExportConfig())
    assert (found is None) if word is None else (word in str(found)), found


def test_gate_of_abstentions_and_confidence() -> None:
    config = ExportConfig()
    near = quantized(400, sure=0.805, moved=0.01)  # the threshold is 0.8: each row crosses it
    assert near.changes.same_abstentions is not None
    assert near.changes.same_abstentions.value == 0
    assert "0.00% of the abstentions" in str(refusal(near, "int8", config))
    assert refusal(quantized(400, moved=0.019), "int8", config) is None
    assert "export.max_score_change" in str(refusal(quantized(400, moved=0.021), "int8", config))
    even = np.full((400, 3), 1 / 3, np.float32)
    never = compare(even, even, np.arange(400) % 3)
    assert never.changes.same_abstentions is None


def test_shares_have_the_exact_bound() -> None:
    same = np.ones(244, bool)
    assert share(same).value == 1
    assert share(same).bound == pytest.approx(0.05 ** (1 / 244))
    same[:4] = False
    # Chance of at most 4 changes in 244 rows is 5 % at the bound.
    assert binom.cdf(4, 244, 1 - share(same).bound) == pytest.approx(0.05)


def test_answers_that_are_no_numbers_are_refused() -> None:
    exact = np.full((400, 3), 1 / 3, np.float32)
    found = exact.copy()
    found[7] = np.nan
    for precision in ("fp32", "int8"):
        broken = compare(exact, found, np.arange(400) % 3, threshold=0.2)
        assert refusal(broken, precision, ANY) == "its answers are not numbers"


def test_records_of_earlier_releases_are_read(copied: Path) -> None:
    record = read_json(copied / EXPORTS)
    new = read_exports(copied)
    assert all(one.seen is not None and one.seen.rows == record["rows"] for one in new)
    for one in record["exports"]:
        del one["seen"]
    write_json(copied / EXPORTS, record)
    assert [one.replaced(seen=None) for one in new] == read_exports(copied)


def test_no_rows_to_compare_on_is_one_line(own: Path, rows: pa.Table) -> None:
    with pytest.raises(InputError, match="no rows to compare exports"):
        export_model(own, rows.slice(0, 0), ANY, EXACT, {})


def test_comparison_counts_labels_and_differences() -> None:
    exact = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.4, 0.5, 0.1]])
    other = exact.copy()
    other[3] = [0.6, 0.3, 0.1]
    found = compare(exact.astype(np.float32), other.astype(np.float32), np.array([0, 1, 2, 1]))
    assert found.max_difference == pytest.approx(0.2)
    assert found.same_labels == 0.75
    assert found.macro_f1_exact == 1
    assert found.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


# --- the engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torch-fp32", *sorted(ALL)])
def test_answer_does_not_depend_on_the_company(exported: Path, name: str) -> None:
    """Random mixes of texts, at random token budgets."""
    draw = random.Random(7)
    texts = [*TEXTS, *corpus(20)]
    single = engine(exported, name)
    alone = {text: single.probabilities([text])[0] for text in texts}
    tolerance = 1e-5 if name.endswith("fp32") else 2e-2
    for _ in range(4):
        mix = draw.choices(texts, k=draw.randint(2, 50))
        found = engine(exported, name, token_budget=draw.choice([16, 300, 4096])).probabilities(mix)
        for text, row in zip(mix, found, strict=True):
            assert row == pytest.approx(alone[text], abs=tolerance), (name, text)


@pytest.mark.parametrize("name", sorted(ALL))
def test_streams_side_by_side_do_not_mix_answers(exported: Path, name: str) -> None:
    texts = corpus(200)
    one, two = (engine(exported, name, threads=n).probabilities(texts) for n in (1, 2))
    assert two == pytest.approx(one, abs=1e-5 if name.endswith("fp32") else 2e-2)


def test_measured_backend_is_chosen_and_said(
    exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        found = Engine(exported, EngineConfig(threads=1))
    assert found.rates.keys() == ALL  # on a CPU torch only where there is nothing else
    # On a busy machine the second, see test_choice.py.
    assert re.search(rf"engine: {found.backend.name}( is|, usually) the fastest", caplog.text)
    assert found.probabilities(TEXTS).shape == (len(TEXTS), len(LABELS))


def test_precision_limits_the_choice(exported: Path) -> None:
    assert Engine(exported, EngineConfig(precision="fp32")).backend.name == "onnxruntime-fp32"
    assert Engine(exported, EngineConfig().exact()).backend.name == "torch-fp32"
    kept = EngineConfig(backend="openvino")
    assert kept.exact() == kept


def test_model_without_exports_takes_torch(own: Path) -> None:
    assert Engine(own, EngineConfig(threads=1)).backend.name == "torch-fp32"
    with pytest.raises(InputError, match=r"engine\.backend='onnxruntime'.*ray_jobs\.export"):
        Engine(own, EngineConfig(backend="onnxruntime"))


def test_bf16_and_compiled_torch_answer_alike(own: Path) -> None:
    exact = Engine(own, EXACT).probabilities(TEXTS)
    half = Engine(own, EngineConfig(backend="torch", precision="bf16")).probabilities(TEXTS)
    assert half == pytest.approx(exact, abs=0.1)
    assert np.abs(half - exact).max() > 1e-5


@pytest.mark.parametrize("name", ["torch-fp32", *sorted(ALL)])
def test_warming_up_changes_no_answer(exported: Path, name: str) -> None:
    warm = engine(exported, name)
    warm.warm_up()
    expected = engine(exported, name).probabilities(TEXTS)
    assert warm.probabilities(TEXTS) == pytest.approx(expected, abs=1e-6)


def test_weights_that_are_no_numbers_are_found_when_warming_up(own: Path, rows: pa.Table) -> None:
    weights = load_file(own / "model.safetensors")
    weights["classifier.weight"][0, 0] = float("nan")
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="not numbers"):
        Engine(own, EXACT).warm_up()
    with pytest.raises(InputError, match="not numbers"):
        export_model(own, rows, ANY, EXACT, {})
    assert not (own / EXPORTS).exists()


def test_long_texts_are_cut_where_the_config_says(exported: Path) -> None:
    long = "profit rose " * 100 + "loss fell " * 100
    right = engine(exported, "onnxruntime-fp32")
    left = engine(exported, "onnxruntime-fp32", truncate="left")
    strict = engine(exported, "onnxruntime-fp32", truncate="error")
    [cut] = right.encode([long])
    assert cut.truncated
    assert len(cut.ids) == MAX_LENGTH
    assert not right.encode(["short"])[0].truncated
    assert right.encode([long])[0].ids != left.encode([long])[0].ids
    assert left.encode([long])[0].ids[1:-1] == left.encode(["loss fell " * 100])[0].ids[1:-1]
    with pytest.raises(InputError, match=rf"text 2 has more than {MAX_LENGTH} tokens"):
        strict.classify(["short", long])


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


# --- what does not belong to the model ------------------------------------------------------------


def test_exports_of_other_weights_are_refused(exported: Path, tiny: Path, tmp_path: Path) -> None:
    other = saved_model(tiny, tmp_path / "other", seed=4)
    for name in ("onnx", "openvino", EXPORTS):
        (other / name).symlink_to(exported / name)
    with pytest.raises(InputError, match="exports are of other weights"):
        Engine(other, EngineConfig())
    Engine(other, EXACT)  # torch needs none of them


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda record: record.update(schema_version=0), "schema"),
        (lambda record: record["exports"][0].pop("bytes"), r"exports\.0\.bytes: Field required"),
        (lambda record: record["exports"][0].update(file="onnx/none.onnx"), "none.onnx is missing"),
    ],
)
def test_damaged_record_is_refused(copied: Path, change: Any, word: str) -> None:
    record = json.loads((copied / EXPORTS).read_text())
    change(record)
    write_json(copied / EXPORTS, record)
    with pytest.raises(InputError, match=word):
        read_exports(copied)


def test_damaged_graph_is_refused(copied: Path) -> None:
    (copied / "onnx" / "model.onnx").write_bytes(b"half a graph")
    (copied / "openvino" / "model_int8.xml").write_text("<net")
    for name in ("onnxruntime-fp32", "openvino-int8"):
        with pytest.raises(InputError, match="cannot be loaded"):
            engine(copied, name)


def test_registry_takes_exports_along_and_verifies_them(
    own: Path, copied: Path, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry")
    metrics = StoredMetrics(rows=1, macro_f1=1.0, accuracy=1.0, labels={})
    plain = registry.publish(own, metrics, {})
    assert plain.manifest.exports == ()
    (copied / "openvino" / "pytorch_model.bin").write_bytes(b"a pickle")  # not exported
    version = registry.publish(copied, metrics, {})
    assert version.version != plain.version
    assert {export.backend for export in version.manifest.exports} == {"onnxruntime", "openvino"}
    listed = {file.path for file in version.manifest.files}
    assert {"onnx/model.onnx", "openvino/model_int8.bin", EXPORTS} <= listed
    assert not (version.path / "openvino" / "pytorch_model.bin").exists()
    assert Engine(version.path, EngineConfig(threads=1)).rates.keys() == ALL
    (version.path / "openvino" / "model_int8.bin").chmod(0o644)
    with (version.path / "openvino" / "model_int8.bin").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(InputError, match=r"model_int8\.bin does not match its SHA-256"):
        registry.get(version.version)


_QUANTISE = """
import multiprocessing, socket, sys
from pathlib import Path

def refuse(*_, **__):
    raise SystemExit("somebody was asked for something")

socket.getaddrinfo = refuse
started = []
multiprocessing.Process.start = lambda process: started.append(process)
from finsent.export.onnx import write_onnx
from finsent.export.openvino import write_int8_openvino
raw, out = Path(sys.argv[2]), Path(sys.argv[3])
write_onnx(Path(sys.argv[1]), raw)
write_int8_openvino(raw, [[5, 6, 7]] * 16, out)
assert out.is_file()
assert not started, started
"""


def test_exporting_reports_to_nobody(own: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _QUANTISE,
            str(own),
            str(tmp_path / "raw.onnx"),
            str(tmp_path / "model.xml"),
        ],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()
