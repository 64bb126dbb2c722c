"""The code and the claims of the model card on use without finsent are true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from transformers import AutoTokenizer, pipeline

from finsent.adoption.adopt import adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.evaluation.calibration import calibrate
from finsent.export.config import ExportConfig
from finsent.export.exporter import export_model
from finsent.files import read_json
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine, softmax
from finsent.modeling.model_dir import CALIBRATION
from finsent.modeling.model_folder import find_model_folder
from finsent.registry.registry import Registry
from tests.unit.adoption import EXACT, ORDER, STARS, STARS_MAP
from tests.unit.foreign import OWN, edit_json
from tests.unit.models import METRICS
from tests.unit.test_folding import (
    adopted,
    labeled,
    piped,
    sentences,
    too_sure,
)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(4, "exports")]

# Every graph passes: the scores of graphs are compared here, not the gate. A tiny model with random
# weights loses more in int8 than a trained one.
ANY = ExportConfig(
    openvino=False, max_f1_loss=1, min_same_labels=0, max_score_change=1, min_same_abstentions=0
)


def card(model_dir: Path, root: Path) -> tuple[Path, str]:
    version = Registry(root / "registry").publish(model_dir, METRICS, {})
    return version.path, (version.path / "README.md").read_text()


def run_graph(file: Path, tokenizer: Any, texts: list[str]) -> Any:
    """Return a graph's logits of one batch, padded as transformers pads."""
    session = onnxruntime.InferenceSession(str(file))
    inputs = tokenizer(texts, truncation=True, padding=True, return_tensors="np")
    return session.run(None, {k: np.asarray(v, np.int64) for k, v in inputs.items()})[0]


def test_code_of_the_card_gives_the_scores_of_finsent(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir = adopted(too_sure("bert", ORDER), tmp_path, tiny)
    calibrate(Engine(model_dir, EXACT), labeled(model_dir, sentences()), 0.6, {})
    path, text = card(model_dir, tmp_path)
    [code] = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    monkeypatch.chdir(path)
    *lines, last = code.strip().splitlines()
    scope: dict[str, Any] = {}
    exec("\n".join(lines), scope)
    [scores] = eval(last, scope)
    [own] = Engine(path, EXACT).classify(["Operating profit rose to EUR 13.1 mn."])
    expected = pytest.approx(own.probabilities, abs=1e-5)
    assert {score["label"]: score["score"] for score in scores} == expected
    assert "Labels and scores equal finsent's with torch in fp32 within 1e-5." in text
    assert "engine.precision" not in text  # nothing quantized is kept
    assert "onnx" not in text


def test_graphs_give_the_scores_of_finsent_as_the_card_says(tiny: Path, tmp_path: Path) -> None:
    texts = sentences()
    model_dir = adopted(too_sure("bert", OWN), tmp_path, tiny)
    rows = labeled(model_dir, texts)
    calibrate(Engine(model_dir, EXACT), rows, 0.6, {})
    export_model(model_dir, rows, ANY, EXACT, {})
    path, text = card(model_dir, tmp_path)
    assert '`ORTModelForSequenceClassification.from_pretrained(".", subfolder="onnx"' in text
    assert "unless `engine.precision=fp32` is set. With onnxruntime-int8 its scores" in text
    assert "Run `onnx/model_int8.onnx` with one text per call and no padding" in text
    tokenizer, batch = AutoTokenizer.from_pretrained(path), texts[:40]
    exact = Engine(path, EXACT).probabilities(batch)
    fp32 = softmax(run_graph(path / "onnx/model.onnx", tokenizer, batch), 1.0)
    assert fp32 == pytest.approx(exact, abs=1e-5)
    int8 = EngineConfig(threads=1, backend="onnxruntime", precision="int8")
    engine_int8 = Engine(path, int8).probabilities(batch)
    graph = path / "onnx/model_int8.onnx"
    alone = [softmax(run_graph(graph, tokenizer, [text]), 1.0)[0] for text in batch]
    assert np.stack(alone) == pytest.approx(engine_int8, abs=1e-6)
    together = softmax(run_graph(graph, tokenizer, batch), 1.0)
    assert np.abs(together - engine_int8).max() > 1e-4  # the reason for the advice of the card


def test_card_says_that_scores_are_of_the_model_s_own_labels(tiny: Path, tmp_path: Path) -> None:
    model_dir = adopted(too_sure("bert", STARS), tmp_path, tiny, label_map=STARS_MAP)
    assert "Their sums by label of `label_map.json` equal" in card(model_dir, tmp_path)[1]


def test_card_says_that_a_temperature_outside_the_weights_is_not_applied(
    tiny: Path, tmp_path: Path
) -> None:
    """Versions that were calibrated before temperatures were folded have such a file."""
    model_dir = adopted(too_sure("bert", OWN), tmp_path, tiny)
    raw = Engine(model_dir, EXACT).logits(["Profit rose."])
    record = {"schema_version": 1, "temperature": 2.5, "abstention": {"threshold": None}}
    (model_dir / CALIBRATION).write_text(json.dumps(record))
    path, text = card(model_dir, tmp_path)
    assert "finsent divides the logits of its three labels by 2.5000 (`calibration.json`)" in text
    assert Engine(path, EXACT).probabilities(["Profit rose."]) == pytest.approx(softmax(raw, 2.5))


@pytest.mark.parametrize("side", ["left", "right"])
def test_long_text_is_cut_where_the_engine_cuts_it(tiny: Path, tmp_path: Path, side: str) -> None:
    edit = {"truncation_side": side, "padding_side": side}
    source = adopted(too_sure("bert", OWN), tmp_path / "first", tiny, max_length=16)
    edit_json(source / "tokenizer_config.json", **edit, model_max_length=512)
    config = AdoptConfig(max_length=16)
    folder = find_model_folder(str(source), None, "SOURCE", "")
    adopt(open_foreign(str(source), folder, config), tmp_path / "model")
    settings = read_json(tmp_path / "model" / "tokenizer_config.json")
    assert (settings["truncation_side"], settings["model_max_length"]) == ("right", 16)
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 has no other
    assert not {"is_local", "local_files_only"} & settings.keys()
    long = "profit rose " * 20 + "loss fell " * 20
    [own] = Engine(tmp_path / "model", EXACT).classify([long])
    for theirs in piped(tmp_path / "model", [long, "Up"])[:1]:
        assert theirs == pytest.approx(own.probabilities, abs=1e-5)
    [once] = pipeline("text-classification", model=str(tmp_path / "model"))(long, truncation=True)
    assert once["score"] == pytest.approx(own.score, abs=1e-5)
