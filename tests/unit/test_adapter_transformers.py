"""transformers still has the private ground that `finsent.adapters.transformers` stands on."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file, cached_files

from finsent.adapters.transformers import (
    eager_attention_options,
    find_cached_file,
    forget_model_code,
    forget_tokenizer_code,
    set_model_inputs,
)
from finsent.files import read_json
from finsent.modeling.model_dir import PLAIN_TOKENIZER_CLASSES
from tests.unit.foreign import classifier, edit_json


def test_missing_files_can_be_looked_up_without_an_error(tiny: Path) -> None:
    arguments = inspect.signature(cached_files).parameters.keys()
    for name in ("missing_entries", "connection_errors"):
        argument = f"_raise_exceptions_for_{name}"
        assert argument in arguments, f"transformers' cached_files no longer has {argument}"
    assert "kwargs" in inspect.signature(cached_file).parameters
    assert find_cached_file(str(tiny), "tokenizer.json", None) == tiny / "tokenizer.json"
    assert find_cached_file(str(tiny), "spiece.model", None) is None
    assert find_cached_file("nobody/never-cached", "tokenizer.json", None) is None  # offline


def test_flash_attention_of_a_config_is_replaced(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flash"
    shutil.copytree(tiny, folder)
    edit_json(folder / "config.json", _attn_implementation="flash_attention_2")
    config = AutoConfig.from_pretrained(folder)
    message = "transformers no longer has the chosen attention in config._attn_implementation"
    assert config._attn_implementation == "flash_attention_2", message
    options = eager_attention_options(config)
    replaced = AutoConfig.from_pretrained(folder, **options)
    assert replaced._attn_implementation == "eager"
    assert eager_attention_options(AutoConfig.from_pretrained(tiny)) == {}


def test_code_of_a_source_is_not_saved(tiny: Path, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny)
    tokenizer.init_kwargs["auto_map"] = {"AutoTokenizer": ["code.Class", None]}
    forget_tokenizer_code(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    assert "auto_map" not in read_json(tmp_path / "tokenizer_config.json")
    model = classifier()
    forget_model_code(model)  # a config without code
    model.config.auto_map = {"AutoModel": "code.Class"}
    forget_model_code(model)
    model.save_pretrained(tmp_path)
    assert "auto_map" not in read_json(tmp_path / "config.json")


def test_inputs_of_a_tokenizer_are_saved(tiny: Path, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny)
    set_model_inputs(tokenizer, ["input_ids"])
    assert tokenizer("Profit rose").keys() == {"input_ids"}
    tokenizer.save_pretrained(tmp_path)
    message = "transformers no longer saves init_kwargs['model_input_names']"
    assert AutoTokenizer.from_pretrained(tmp_path).model_input_names == ["input_ids"], message


def test_plain_tokenizers_have_one_of_the_known_classes(tiny: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny)
    assert type(tokenizer).__name__ in PLAIN_TOKENIZER_CLASSES
