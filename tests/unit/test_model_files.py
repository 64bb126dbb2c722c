"""Model directories: incomplete, wrapped, damaged, quantized, of another library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finsent.adoption.adopt import adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.adoption.fidelity import difference
from finsent.errors import InputError
from finsent.inference.engine import Engine
from finsent.modeling.backbone import resolve_backbone
from finsent.modeling.config import ModelConfig
from finsent.modeling.model_folder import find_model_folder
from tests.unit.adoption import EXACT
from tests.unit.foreign import classifier, edit_json, saved
from tests.unit.model_uses import adopt_it, refusals, train_it

pytestmark = [pytest.mark.cost(1.0, "builds models"), pytest.mark.usefixtures("one_thread")]


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 437955512\n"


Change = Callable[[Path], object]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4000])


def lacking_shard(folder: Path) -> None:
    next(folder.glob("model-00002-*")).unlink()


# --- files that are missing, or not what their name says ------------------------------------------


@pytest.mark.parametrize(
    ("layout", "change", "words"),
    [
        ({}, lambda f: (f / "model.safetensors").write_text(POINTER), "model.safetensors is a po"),
        ({"pickled": True}, lambda f: (f / "pytorch_model.bin").write_text(POINTER), "git lfs pul"),
        ({}, lambda f: (f / "tokenizer.json").write_text(POINTER), "tokenizer.json is a pointer"),
        ({"pickled": True}, lambda f: (f / "pytorch_model.bin").write_text("<html>"), "not a file"),
        ({"shard": "100KB"}, lacking_shard, "model-00002-of-00003.safetensors missing. Download"),
        ({}, lambda f: cut(f / "model.safetensors"), "cannot be loaded (Error while deserial"),
        ({"pickled": True}, lambda f: cut(f / "pytorch_model.bin"), "Download them again"),
        ({}, lambda f: (f / "model.safetensors").write_bytes(b""), "header too small"),
    ],
)
def test_file_that_is_not_all_there_is_named_with_the_remedy(
    tiny: Path, tmp_path: Path, layout: dict[str, Any], change: Change, words: str
) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny, **layout)
    change(folder)
    for text in refusals(folder):
        assert words in text
        assert "holds code" not in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tf_model.h5", "tf_model.h5 is of TensorFlow. Load it with transformers 4"),
        ("flax_model.msgpack", "from_flax=True"),
        ("onnx/model.onnx", "onnx/model.onnx is ONNX, which cannot be loaded back"),
        ("model-q8.gguf", "GGUF"),
        ("finbert.safetensors", "Rename it if it holds all weights"),
        ("model.pt", "model.pt is of PyTorch, in no fixed layout"),
        ("training_args.bin", "model.safetensors missing. Name a folder"),
    ],
)
def test_weights_of_another_library_are_named_with_the_way_to_safetensors(
    tiny: Path, tmp_path: Path, name: str, words: str
) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / "model.safetensors").rename(folder / name)
    for text in refusals(folder):
        assert text.startswith("model.safetensors missing")
        assert words in text


@pytest.mark.parametrize("inner", ["0_Transformer", "checkpoint-500", f"snapshots/{'a' * 40}"])
def test_model_in_a_directory_below_is_named(tiny: Path, tmp_path: Path, inner: str) -> None:
    saved(classifier(), tmp_path / "mine" / inner, tiny)
    for text in refusals(tmp_path / "mine"):
        inner_folder = str(tmp_path / "mine" / inner)
        assert f"contains a model in {inner_folder!r}. Name that directory." in text


@pytest.mark.parametrize("has_model", [False, True])
def test_adapter_is_refused_with_how_to_merge_it(
    tiny: Path, tmp_path: Path, has_model: bool
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    if has_model:
        saved(classifier(), folder, tiny)
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "ProsusAI/finbert"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    for text in refusals(folder):
        assert "an adapter of PEFT" in text and "merge_and_unload" in text


def test_revision_of_a_directory_is_an_error(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    for use in (adopt_it, train_it):
        with pytest.raises(InputError, match=r"local directory, which has no revision 'v2'"):
            use(folder, revision="v2")
    with pytest.raises(InputError, match=r"model.revision='v2': 'tiny' has no revisions"):
        resolve_backbone(ModelConfig(backbone="tiny", revision="v2"), tmp_path)


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pickled", [False, True])
def test_old_names_of_layer_norm_and_saved_positions_change_nothing(
    tiny: Path, tmp_path: Path, pickled: bool
) -> None:
    model = classifier()
    weights = {
        key.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor
        for key, tensor in model.state_dict().items()
    }
    weights["bert.embeddings.position_ids"] = torch.arange(512)[None]
    folder = saved(model, tmp_path / "mine", tiny, weights=weights, pickled=pickled)
    foreign = open_foreign(
        "mine", find_model_folder(str(folder), None, "SOURCE", ""), AdoptConfig()
    )
    adopt(foreign, tmp_path / "model")
    plain = saved(model, tmp_path / "plain", tiny)
    engine = Engine(tmp_path / "model", EXACT)
    unchanged = open_foreign(
        "plain", find_model_folder(str(plain), None, "SOURCE", ""), AdoptConfig()
    )
    assert difference(engine, unchanged) < 1e-5


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "base_model.model."])
def test_wrapped_classifier_is_no_encoder_but_an_error_that_names_the_prefix(
    tiny: Path, tmp_path: Path, prefix: str
) -> None:
    model = classifier()
    weights = {f"{prefix}{key}": tensor for key, tensor in model.state_dict().items()}
    for text in refusals(saved(model, tmp_path / "mine", tiny, weights=weights)):
        assert f"its names carry the prefix {prefix!r}" in text


def test_training_checkpoint_is_named_as_such(tiny: Path, tmp_path: Path) -> None:
    model = classifier()
    folder = saved(model, tmp_path / "mine", tiny, pickled=True)
    content = {"state_dict": model.state_dict(), "epoch": 3}
    torch.save(content, folder / "pytorch_model.bin")
    for text in refusals(folder):
        assert "a training checkpoint with the weights under 'state_dict'" in text


def test_empty_shards_of_deepspeed_are_named_as_such(tiny: Path, tmp_path: Path) -> None:
    model = classifier()
    weights = {
        key: tensor if "embeddings" in key else torch.empty(0)
        for key, tensor in model.state_dict().items()
    }
    for text in refusals(saved(model, tmp_path / "mine", tiny, weights=weights)):
        assert "DeepSpeed ZeRO-3" in text and "zero_to_fp32.py" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tiny: Path, tmp_path: Path, value: float) -> None:
    model = classifier()
    key = "bert.encoder.layer.1.output.dense.weight"
    weights = {**model.state_dict(), key: torch.full_like(model.get_parameter(key), value)}
    for text in refusals(saved(model, tmp_path / "mine", tiny, weights=weights)):
        assert f"its weights {key} are not all numbers" in text


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantized_weights_without_their_scales_are_refused(
    tiny: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    model = classifier()
    key = "bert.encoder.layer.1.output.dense.weight"
    weights = {**model.state_dict(), key: model.get_parameter(key).to(dtype)}
    for text in refusals(saved(model, tmp_path / "mine", tiny, weights=weights)):
        assert f"model.safetensors holds {key} in " in text and "quantized weights" in text


@pytest.mark.parametrize("method", ["gptq", "bitsandbytes", "none-such"])
def test_config_of_quantized_weights_is_refused(tiny: Path, tmp_path: Path, method: str) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", quantization_config={"quant_method": method})
    for text in refusals(folder):
        assert f"its weights are quantized ({method}, quantization_config in config.json)" in text
