"""Load and save the fast tokenizer of a backbone or a model, with the rules of tokenizer.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from finsent.adapters.transformers import (
    find_cached_file,
    forget_tokenizer_code,
    set_model_inputs,
)
from finsent.errors import InputError, one_line
from finsent.extras import is_installed, missing_extra
from finsent.files import read_json, write_json
from finsent.modeling.file_checks import SENTENCEPIECE
from finsent.modeling.model_dir import INPUTS, PLAIN_TOKENIZER_CLASSES, TokenizerConfigFile

# Keys of tokenizer_config.json that record how the tokenizer was loaded on this machine.
_LOCAL_KEYS = ("is_local", "local_files_only")
# Parts of tokenizer.json that decide the tokens of a text. Truncation and padding are set per use.
_RULES = ("normalizer", "pre_tokenizer", "model", "added_tokens", "post_processor")
# Keys of the part `model` with a default: absent and empty mean the same.
_MODEL_DEFAULTS: tuple[tuple[str, Any], ...] = (
    ("continuing_subword_prefix", ""),
    ("end_of_word_suffix", ""),
)
# Settings of tokenizer_config.json, and the keys of a BertNormalizer that they set.
_BERT_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_MAX_LISTED = 12  # tokens of a text in a message
_PROBE_TEXTS = (
    "Nokia Sales ROSE 5% in Q3.",
    "Zürich-based $TSLA: EUR 1,200.50 (up 3 %) — \u201cstrong\u201d",
    "净利润增长 20%",
    "  two  spaces\tand a tab ",
    "don't re-rate GBP/USD #earnings https://example.com @desk",
)


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer, and lines for the user on how it differs from the tokenizer of transformers."""

    tokenizer: PreTrainedTokenizerFast
    notes: list[str]
    has_other_rules: bool = False  # than transformers builds from the same files


def read_tokenizer(
    source: str, revision: str | None = None, name: str | None = None
) -> LoadedTokenizer:
    """Load a tokenizer with the rules of its tokenizer.json, truncating on the right.

    Classes such as BertTokenizer rebuild their rules from the vocabulary and
    tokenizer_config.json: a cased or a customized tokenizer.json would be lowercased without a
    message. Where the two files differ, tokenizer.json counts, unless tokenizer_config.json itself
    has another setting of the same name.

    Args:
        source: a local directory or a hub id.
        name: the model in messages, as `FIELD=VALUE`; None: the source.

    Raises:
        InputError: the source has no fast tokenizer, or its files are damaged.
    """
    name = name or repr(source)
    _check_sentencepiece(source, revision, name)
    built, own = _load(source, revision, name)
    for tokenizer in (own, built.backend_tokenizer):
        if tokenizer is not None:  # files may have those of their last use
            tokenizer.no_padding()
            tokenizer.no_truncation()
    notes: list[str] = []
    has_other_rules = False
    rules = _differing_rules(built.backend_tokenizer, own) if own else []
    if own and rules:
        config = find_cached_file(source, "tokenizer_config.json", revision)
        overruling = _overruling_settings(own, config)
        if overruling:
            listed = ", ".join(overruling)
            notes.append(f"tokenizer_config.json overrules tokenizer.json: {listed}")
        else:
            has_other_rules = True
            notes.append(_difference_note(built, own, rules))
            built = _with_rules(built, own)
    forget_tokenizer_code(built)
    if built.truncation_side != "right":
        notes.append(
            "the tokenizer cuts long texts on the left (truncation_side=left); finsent trains on "
            "the right cut and saves that. To score with the left cut, set engine.truncate=left"
        )
        built.truncation_side = "right"
    return LoadedTokenizer(built, notes, has_other_rules)


def _check_sentencepiece(source: str, revision: str | None, name: str) -> None:
    """Refuse a tokenizer that only a missing package can read.

    Raises:
        InputError: the source has a model of SentencePiece and no tokenizer.json.
    """
    if is_installed("sentencepiece") or find_cached_file(source, "tokenizer.json", revision):
        return
    models = (file for file in SENTENCEPIECE if find_cached_file(source, file, revision))
    model = next(models, None)
    if model is not None:
        field = (
            f"{name}: its tokenizer is a model of SentencePiece ({model}) without tokenizer.json"
        )
        raise missing_extra("sentencepiece", field)


def _load(
    source: str, revision: str | None, name: str
) -> tuple[PreTrainedTokenizerFast, Tokenizer | None]:
    """Return the tokenizer that transformers builds, and the tokenizer of tokenizer.json, if any.

    Raises:
        InputError: the files are damaged, or the tokenizer has no fast form.
    """
    transformers_logging.set_verbosity_error()  # `read_tokenizer` checks what it warns of
    try:
        built = AutoTokenizer.from_pretrained(
            source, revision=revision, use_fast=True, trust_remote_code=False
        )
        file = find_cached_file(source, "tokenizer.json", revision)
        own = Tokenizer.from_file(str(file)) if file else None
    except Exception as error:  # tokenizers and AutoTokenizer share no error type
        problem = one_line(error)
        raise InputError(
            f"{name}: its tokenizer cannot be loaded ({problem}). Use a model with a valid "
            "tokenizer.json."
        ) from None
    if not isinstance(built, PreTrainedTokenizerFast):
        raise InputError(
            f"{name}: its tokenizer is a {type(built).__name__}, which has no fast form "
            "(tokenizer.json). Use a model whose tokenizer has one."
        )
    return built, own


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, out: Path, max_length: int) -> None:
    """Write a tokenizer with which pipelines of transformers tokenize as the engine does.

    Args:
        max_length: in tokens; longer texts are cut on the right.
    """
    tokenizer.model_max_length = max_length
    # The engine gives a model no token types; XLNet, for one, has types other than 0.
    set_model_inputs(tokenizer, INPUTS)
    tokenizer.save_pretrained(out)
    file = out / "tokenizer_config.json"
    config = {key: value for key, value in read_json(file).items() if key not in _LOCAL_KEYS}
    if config.get("tokenizer_class") in PLAIN_TOKENIZER_CLASSES:
        config["tokenizer_class"] = PLAIN_TOKENIZER_CLASSES[0]
    write_json(file, {**config, "truncation_side": "right"})


def _overruling_settings(own: Tokenizer, config: Path | None) -> list[str]:
    """Return the settings of tokenizer_config.json that differ from tokenizer.json's normalizer."""
    if config is None:
        return []
    settings = TokenizerConfigFile.read(config).model_dump(include={*_BERT_SETTINGS})
    normalizer = json.loads(own.to_str())["normalizer"] or {}
    return [
        f"{key}={settings[key]}"
        for key, rule in _BERT_SETTINGS.items()
        if settings[key] is not None and rule in normalizer and settings[key] != normalizer[rule]
    ]


def _differing_rules(built: Tokenizer, own: Tokenizer) -> list[str]:
    """Return the names of the rules in which two tokenizers differ."""
    first, second = _comparable_rules(built), _comparable_rules(own)
    return [name for name in _RULES if first[name] != second[name]]


def _comparable_rules(tokenizer: Tokenizer) -> dict[str, object]:
    rules = json.loads(tokenizer.to_str())
    model = dict(rules["model"])
    for key, default in _MODEL_DEFAULTS:
        model[key] = model.get(key) or default
    # BertProcessing and a template can add the same special tokens, so their effect is compared.
    return {**rules, "model": model, "post_processor": tokenizer.encode("").ids}


def _difference_note(built: PreTrainedTokenizerFast, own: Tokenizer, rules: list[str]) -> str:
    """Return a line on the rules in which tokenizers differ, with the first text that shows it."""
    verb = "differs" if len(rules) == 1 else "differ"
    note = (
        f"the tokenizer's {', '.join(rules)} of tokenizer.json {verb} from what transformers' "
        f"{type(built).__name__} builds; tokenizer.json is kept"
    )
    for text in _PROBE_TEXTS:
        tokens, built_tokens = own.encode(text).tokens, built.backend_tokenizer.encode(text).tokens
        if tokens != built_tokens:
            return f"{note}: {text!r} is read as {_joined(tokens)}, not as {_joined(built_tokens)}"
    return note


def _joined(tokens: list[str]) -> str:
    return " ".join(tokens[:_MAX_LISTED]) + (" ..." if len(tokens) > _MAX_LISTED else "")


def _with_rules(built: PreTrainedTokenizerFast, own: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the rules of tokenizer.json, which transformers loads unchanged.

    Special tokens and the model's inputs are those of the class that transformers builds.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        model_max_length=built.model_max_length,
        model_input_names=built.model_input_names,
        padding_side=built.padding_side,
        truncation_side=built.truncation_side,
        **built.special_tokens_map,
    )
