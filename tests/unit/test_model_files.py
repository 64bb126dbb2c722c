"""Models as people have them: incomplete, wrapped, damaged, quantized, of another library."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from finsent.adoption.adopt import adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.adoption.fidelity import check_same, difference
from finsent.errors import InputError
from finsent.files import read_json
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone, resolve_backbone
from finsent.modeling.classifier import (
    inspect_backbone,
    load_tokenizer,
    new_classifier,
    save_classifier,
)
from finsent.modeling.compatibility import check_padding
from finsent.modeling.config import ModelConfig
from finsent.modeling.model_folder import find_model_folder
from finsent.modeling.provenance import Provenance
from finsent.modeling.tokenizer import read_tokenizer
from tests.unit.foreign import classifier, edit_json, encoder, saved

pytestmark = [pytest.mark.cost(1.0, "builds models"), pytest.mark.usefixtures("one_thread")]

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 437955512\n"
EXACT = EngineConfig(threads=1, backend="torch", precision="fp32")
Change = Callable[[Path], object]


def refusals(folder: Path) -> list[str]:
    """What `adopt` and `train` say of a directory that neither takes."""
    found = []
    for use in (adopt_it, train_it):
        with pytest.raises(InputError) as caught:
            use(folder)
        found.append(str(caught.value))
        assert "\n" not in found[-1]
    assert found[0].startswith(f"SOURCE={str(folder)!r}: ")
    assert found[1].startswith(f"model.backbone={str(folder)!r}: ")
    return [text.partition(f"{str(folder)!r}: ")[2] for text in found]


def adopt_it(folder: Path, revision: str | None = None, **config: Any) -> list[str]:
    """The lines that adopting says."""
    found = find_model_folder(str(folder), revision, "SOURCE", "")
    return adopt(
        open_foreign(str(folder), found, AdoptConfig(license="mit", **config)),
        folder.parent / "adopted",
    )


def train_it(folder: Path, revision: str | None = None) -> list[str]:
    """The lines that are said before a training."""
    config = ModelConfig(backbone=str(folder), revision=revision)
    return inspect_backbone(resolve_backbone(config, folder.parent), 64)


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


# --- configs --------------------------------------------------------------------------------------


def test_labels_in_two_orders_are_refused_and_no_head_is_reordered_by_them(
    tiny: Path, tmp_path: Path
) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", label2id={"negative": 2, "neutral": 1, "positive": 0})
    said = "'negative' is 0 in id2label and 2 in label2id"
    with pytest.raises(InputError, match=said):
        adopt_it(folder)
    [note] = train_it(folder)
    assert "the head's output layer is new" in note and said in note


def test_ids_of_labels_that_have_no_name_say_nothing(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", label2id={"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2})
    assert (adopt_it(folder), train_it(folder)) == ([], [])


@pytest.mark.parametrize("labels", [["negative", "neutral", "positive"], {"0": "up", "x": "down"}])
def test_labels_in_no_map_are_one_line(tiny: Path, tmp_path: Path, labels: Any) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", id2label=labels)
    for text in refusals(folder):
        assert text.startswith("its config.json cannot be used (")


def test_head_of_more_outputs_than_labels_says_both(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", id2label={"0": "negative", "1": "positive"}, label2id={})
    with pytest.raises(InputError, match=r"3 outputs, but config.json names 2 labels \(negative,"):
        adopt_it(folder)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_classifier_of_words_is_refused_though_its_head_fits(
    tiny: Path, tmp_path: Path, kind: str
) -> None:
    words = AutoModelForTokenClassification.from_config(classifier(kind).config)
    folder = saved(words, tmp_path / "mine", tiny)
    with pytest.raises(InputError, match=r"is a \w+ForTokenClassification .* not label texts"):
        adopt_it(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"architectures": ["BertWithMeanPooling"]},
        {"auto_map": {"AutoModelForSequenceClassification": "someone/else--theirs.M"}},
    ],
)
def test_code_that_would_answer_otherwise_is_named(
    tiny: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", **changed)
    [note] = adopt_it(folder)
    assert "does not run here: the answers are those of transformers' BertForSeq" in note


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("bert", {"return_dict": False}),
        ("bert", {"output_attentions": True, "output_hidden_states": True}),
        ("bert", {"chunk_size_feed_forward": 8}),
        ("modernbert", {"attn_implementation": "flash_attention_2", "reference_compile": True}),
        ("modernbert", {"_attn_implementation": "flash_attention_2"}),
    ],
)
def test_settings_of_other_programs_change_no_answer(
    tiny: Path, tmp_path: Path, kind: str, changed: dict[str, Any]
) -> None:
    model = classifier(kind)
    plain, folder = saved(model, tmp_path / "plain", tiny), saved(model, tmp_path / "mine", tiny)
    edit_json(folder / "config.json", **changed)
    assert train_it(folder) == []
    found = find_model_folder(str(folder), None, "SOURCE", "")
    foreign = open_foreign("mine", found, AdoptConfig())
    adopt(foreign, tmp_path / "model")
    engine = Engine(tmp_path / "model", EXACT)
    assert check_same(engine, foreign, 1e-5) < 1e-5
    unchanged = open_foreign(
        "plain", find_model_folder(str(plain), None, "SOURCE", ""), AdoptConfig()
    )
    assert difference(engine, unchanged) < 1e-5


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("multi_label_classification", ("negative", "neutral", "positive")),
        ("multi_label_classification", ("joy", "anger", "fear", "calm")),
        ("regression", ("LABEL_0",)),
    ],
)
def test_trained_model_answers_one_label_per_text_whatever_its_backbone_did(
    tiny: Path, tmp_path: Path, problem_type: str, labels: tuple[str, ...]
) -> None:
    """`transformers.pipeline` chooses sigmoid, softmax or nothing by this key."""
    folder = saved(classifier(labels=labels), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", problem_type=problem_type)
    model = new_classifier(Backbone("mine", str(folder)), 0)
    save_classifier(
        model, load_tokenizer(str(folder)), tmp_path / "model", Provenance(max_length=64)
    )
    config = read_json(tmp_path / "model" / "config.json")
    assert config["problem_type"] == "single_label_classification"


# --- what answers depend on -----------------------------------------------------------------------


def xlnet() -> PreTrainedModel:
    """Its config has other names of the shape."""
    shape = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "pad_token_id": 0}
    config = AutoConfig.for_model("xlnet", vocab_size=2000, num_labels=3, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return model


@pytest.mark.parametrize("kind", ["xlnet", "fnet", "convbert", "nystromformer", "yoso"])
def test_answers_that_padding_changes_are_refused_before_training(
    tiny: Path, tmp_path: Path, kind: str
) -> None:
    folder = saved(xlnet() if kind == "xlnet" else classifier(kind), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", id2label=dict(enumerate(LABELS)), label2id={})
    for text in refusals(folder):
        assert "changes with the padding after it" in text


def test_two_padding_tokens_are_refused_where_the_answer_depends_on_them(
    tiny: Path, tmp_path: Path
) -> None:
    """GPT-2's head reads the last token that is not config.json's padding."""
    folder = saved(classifier("gpt2", pad_token_id=7), tmp_path / "mine", tiny)
    for text in refusals(folder):
        assert "config.json has pad_token_id=7 and its tokenizer pads with 0. Set the two" in text
    edit_json(folder / "config.json", pad_token_id=0)
    assert (adopt_it(folder), train_it(folder)) == ([], [])


def test_longest_input_is_computed_before_training(tiny: Path) -> None:
    """Whatever an architecture's config calls its limit."""
    tokenizer = read_tokenizer(str(tiny)).tokenizer
    with pytest.raises(InputError, match=r"M='x': cannot compute 64 tokens \(.+\)\. Lower max_l"):
        check_padding(classifier(max_position_embeddings=40), tokenizer, 64, "M='x'")
    check_padding(classifier(max_position_embeddings=40), tokenizer, 40, "M='x'")


# --- tokenizers -----------------------------------------------------------------------------------


def words_of(folder: Path) -> list[str]:
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def with_vocabulary(folder: Path, words: list[str], **settings: Any) -> Path:
    """Give a model a vocabulary in place of tokenizer.json."""
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_cased_vocabulary_that_is_lowercased_is_said(tiny: Path, tmp_path: Path) -> None:
    """With a vocabulary alone, transformers lowercases unless it is told otherwise."""
    folder = saved(classifier(), tmp_path / "mine", tiny)
    words = [
        word.capitalize() if i % 2 and word[0].isalpha() else word
        for i, word in enumerate(words_of(folder))
    ]
    with_vocabulary(folder, words)
    for notes in (adopt_it(folder), train_it(folder)):
        assert "lowercases texts, but 8" in notes[0] and "do_lower_case=false" in notes[0]
    edit_json(folder / "tokenizer_config.json", do_lower_case=False)
    assert not [note for note in train_it(folder) if "lowercases" in note]


def test_uncased_vocabulary_that_is_read_cased_is_said(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    with_vocabulary(folder, words_of(folder), do_lower_case=False, tokenizer_class="BertTokenizer")
    [note] = adopt_it(folder)
    assert "the tokenizer knows " in note and "do_lower_case" in note


def test_tokenizer_that_knows_no_word_is_refused(tiny: Path, tmp_path: Path) -> None:
    """A BERTweet has a vocab.txt, too, with counts: without its class it is read as BERT's."""
    folder = saved(classifier("roberta"), tmp_path / "mine", tiny)
    with_vocabulary(folder, ["profit 10", "rose 9", "p@@ 8"])
    for text in refusals(folder):
        assert text.startswith("its tokenizer knows no word of ")


def test_tokenizer_without_a_fast_form_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier("roberta"), tmp_path / "mine", tiny)
    with_vocabulary(folder, ["profit 10"], tokenizer_class="BertweetTokenizer")
    (folder / "bpe.codes").write_text("p r 10\n")
    for text in refusals(folder):
        assert "is a BertweetTokenizer, which has no fast form" in text


def test_tokenizer_that_fails_on_unknown_words_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["unk_token"] = "[NONE]"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for text in refusals(folder):
        assert "fails on words that its vocabulary lacks" in text and "unk_token" in text


def test_missing_frame_of_special_tokens_is_said(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "tokenizer.json", post_processor=None)
    for notes in (adopt_it(folder), train_it(folder)):
        assert "[CLS], but puts no special tokens around a text" in notes[0]


def test_padding_and_truncation_of_a_file_are_no_rules(tiny: Path, tmp_path: Path) -> None:
    """A tokenizer.json keeps how it was last used; exporters leave such files."""
    folder = saved(classifier(), tmp_path / "mine", tiny)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert (adopt_it(folder), train_it(folder)) == ([], [])
    read = read_tokenizer(str(folder)).tokenizer
    shutil.copyfile(tiny / "tokenizer.json", folder / "tokenizer.json")
    text = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn."
    assert read(text).input_ids == read_tokenizer(str(folder)).tokenizer(text).input_ids


def test_encoder_needs_no_word(tiny: Path, tmp_path: Path) -> None:
    assert train_it(saved(encoder(), tmp_path / "mine", tiny)) == []


def sample() -> list[str]:
    """Lines of the sample corpus."""
    text = (resources.files("finsent.data.sample") / "sentences.csv").read_text("utf-8")
    return text.splitlines()[:300]


def test_byte_pairs_without_tokenizer_json_cut_texts_as_they_did(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    classifier("roberta", pad_token_id=1).save_pretrained(folder)
    pairs = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pairs.train_from_iterator(sample(), vocab_size=600, special_tokens=special)
    pairs.save_model(str(folder))
    assert {"vocab.json", "merges.txt"} <= {file.name for file in folder.iterdir()}
    adopt_it(folder)
    reader = Tokenizer.from_file(str(tmp_path / "adopted" / "tokenizer.json"))
    text = "Operating profit ROSE to EUR 13.1 mn."
    assert reader.encode(text).tokens == ["<s>", *pairs.encode(text).tokens, "</s>"]


# --- SentencePiece --------------------------------------------------------------------------------


def sentencepiece_model(file: Path, **options: Any) -> Any:
    """Train a model on the sample corpus; returns its processor."""
    trainer = pytest.importorskip("sentencepiece")
    with file.open("wb") as stream:
        trainer.SentencePieceTrainer.train(
            sentence_iterator=iter(sample()),
            model_writer=stream,
            vocab_size=300,
            num_threads=1,
            minloglevel=2,
            **options,
        )
    return trainer.SentencePieceProcessor(model_file=str(file))


@pytest.mark.parametrize(
    ("kind", "name", "named", "frame"),
    [
        ("albert", "spiece.model", "AlbertTokenizer", ("[CLS]", "[SEP]")),
        ("deberta-v2", "spm.model", "DebertaV2Tokenizer", ("[CLS]", "[SEP]")),
        ("xlm-roberta", "sentencepiece.bpe.model", "XLMRobertaTokenizer", ("<s>", "</s>")),
        ("camembert", "sentencepiece.bpe.model", "CamembertTokenizer", ("<s>", "</s>")),
    ],
)
def test_sentencepiece_alone_becomes_a_tokenizer_that_cuts_texts_as_it_does(
    tmp_path: Path, kind: str, name: str, named: str, frame: tuple[str, str]
) -> None:
    special = {
        "albert": {"user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"], "pad_id": 3},
        "deberta-v2": {
            "pad_id": 0,
            "bos_id": 1,
            "eos_id": 2,
            "unk_id": 3,
            "pad_piece": "[PAD]",
            "bos_piece": "[CLS]",
            "eos_piece": "[SEP]",
            "unk_piece": "[UNK]",
        },
    }.get(kind, {})
    folder = tmp_path / "mine"
    classifier(kind, pad_token_id=1).save_pretrained(folder)
    processor = sentencepiece_model(folder / name, **special)
    settings = {"tokenizer_class": named, "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    adopt_it(folder)
    reader = Tokenizer.from_file(str(tmp_path / "adopted" / "tokenizer.json"))
    for text in ("Operating profit ROSE to EUR 13.1 mn.", "The shares fell 8 %"):
        pieces = processor.encode(text, out_type=str)
        assert reader.encode(text).tokens == [frame[0], *pieces, frame[1]]


def test_package_that_reads_sentencepiece_is_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # as for an import: not to be there
    folder = saved(classifier("albert"), tmp_path / "mine", tiny)
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    for text in refusals(folder):
        assert "SentencePiece (spiece.model) without tokenizer.json" in text
        assert "pip install 'finsent[sentencepiece]'" in text
