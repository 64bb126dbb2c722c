"""The fast tokenizer of a backbone or a model, by the rules of its tokenizer.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from finsent.errors import InputError, one_line
from finsent.extras import is_installed, missing_extra
from finsent.files import read_json, write_json
from finsent.modeling.files import SENTENCEPIECE
from finsent.modeling.layout import INPUTS, PLAIN_CLASSES

_LOCAL = ("is_local", "local_files_only")  # how it was loaded here

# Parts of tokenizer.json that decide how a text is read. Truncation and padding are set per use.
_RULES = ("normalizer", "pre_tokenizer", "model", "added_tokens", "post_processor")
# Keys of the part `model` that differ in form alone: absent and empty mean the same.
_FORMS: tuple[tuple[str, Any], ...] = (
    ("continuing_subword_prefix", ""),
    ("end_of_word_suffix", ""),
)
# Settings of tokenizer_config.json that rules of a BertNormalizer follow.
_BERT_RULES = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_PROBES = (
    "Nokia Sales ROSE 5% in Q3.",
    "Zürich-based $TSLA: EUR 1,200.50 (up 3 %) — \u201cstrong\u201d",
    "净利润增长 20%",
    "  two  spaces\tand a tab ",
    "don't re-rate GBP/USD #earnings https://example.com @desk",
)


@dataclass(frozen=True)
class ReadTokenizer:
    """A tokenizer, and what a user should know about how it reads."""

    tokenizer: PreTrainedTokenizerFast
    notes: list[str]
    has_other_rules: bool = False  # than transformers builds from the same files


def read_tokenizer(
    source: str, revision: str | None = None, name: str | None = None
) -> ReadTokenizer:
    """Load a tokenizer by the rules of its tokenizer.json, cutting long texts on the right.

    Classes such as BertTokenizer rebuild their rules from the vocabulary and
    tokenizer_config.json: a cased or a customized tokenizer.json would be lowercased in silence.
    Where the two differ, tokenizer.json counts, unless tokenizer_config.json itself has another
    setting of the same name.

    Args:
        source: a local directory or a hub id.
        name: of the model, for messages: `FIELD=VALUE`; None: the source.

    Raises:
        InputError: there is no fast tokenizer, or its files are damaged.
    """
    name = name or repr(source)
    _check_sentencepiece(source, revision, name)
    transformers_logging.set_verbosity_error()  # what it warns of is checked below
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, use_fast=True, trust_remote_code=False
        )
        file = _file(source, "tokenizer.json", revision)
        own = Tokenizer.from_file(str(file)) if file else None
    except Exception as error:  # tokenizers and AutoTokenizer share no error type
        problem = one_line(error)
        raise InputError(
            f"{name}: its tokenizer cannot be loaded ({problem}); use a model with a valid "
            "tokenizer.json"
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"{name}: its tokenizer is a {type(tokenizer).__name__}, which has no fast form "
            "(tokenizer.json); use a model whose tokenizer has one"
        )
    for one in (own, tokenizer.backend_tokenizer):
        if one is not None:  # set per use; a file may keep those of its last use
            one.no_padding()
            one.no_truncation()
    notes = []
    parts = _differing(tokenizer.backend_tokenizer, own) if own else []
    overruled = _overruled(own, _file(source, "tokenizer_config.json", revision)) if own else []
    if parts and overruled:
        notes.append(f"tokenizer_config.json overrules tokenizer.json: {', '.join(overruled)}")
        parts = []
    elif own and parts:
        notes.append(_difference(tokenizer.backend_tokenizer, own, parts, type(tokenizer).__name__))
        tokenizer = _with_rules(tokenizer, own)
    # Code of the source is neither run nor kept, so nothing may refer to it.
    tokenizer.init_kwargs.pop("auto_map", None)
    if tokenizer.truncation_side != "right":
        notes.append(
            "the tokenizer cuts long texts on the left (truncation_side=left); finsent trains on "
            "the right cut and saves that. To score with the left cut, set engine.truncate=left"
        )
        tokenizer.truncation_side = "right"
    return ReadTokenizer(tokenizer, notes, bool(parts))


def _check_sentencepiece(source: str, revision: str | None, name: str) -> None:
    """Say which package reads the only tokenizer that there is."""
    if is_installed("sentencepiece") or _file(source, "tokenizer.json", revision):
        return
    model = next((file for file in SENTENCEPIECE if _file(source, file, revision)), None)
    if model is not None:
        field = (
            f"{name}: its tokenizer is a model of SentencePiece ({model}) without tokenizer.json"
        )
        raise missing_extra("sentencepiece", field)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, out: Path, max_length: int) -> None:
    """Write a tokenizer with which pipelines of transformers read texts as the engine does.

    Args:
        max_length: in tokens; longer texts are cut on the right.
    """
    tokenizer.model_max_length = max_length
    # The model gets what the engine gives it: XLNet, for one, has token types other than 0.
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = [*INPUTS]
    tokenizer.save_pretrained(out)
    file = out / "tokenizer_config.json"
    config = {key: value for key, value in read_json(file).items() if key not in _LOCAL}
    if config.get("tokenizer_class") in PLAIN_CLASSES:
        config["tokenizer_class"] = PLAIN_CLASSES[0]
    write_json(file, {**config, "truncation_side": "right"})


def _file(source: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a directory or of a hub's repository; None: there is no such file."""
    found = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,  # offline: no file that is not in the cache
    )
    return Path(found) if found else None


def _overruled(own: Tokenizer, config: Path | None) -> list[str]:
    """Return what tokenizer_config.json sets otherwise than the normalizer of tokenizer.json."""
    settings = read_json(config) if config else None
    normalizer = json.loads(own.to_str())["normalizer"] or {}
    if not isinstance(settings, dict):
        return []
    return [
        f"{key}={settings[key]}"
        for key, rule in _BERT_RULES.items()
        if settings.get(key) is not None
        and rule in normalizer
        and settings[key] != normalizer[rule]
    ]


def _differing(built: Tokenizer, own: Tokenizer) -> list[str]:
    """Return the rules in which two tokenizers differ."""
    first, second = (_rules(tokenizer) for tokenizer in (built, own))
    return [name for name in _RULES if first[name] != second[name]]


def _rules(tokenizer: Tokenizer) -> dict[str, Any]:
    rules: dict[str, Any] = json.loads(tokenizer.to_str())
    model = dict(rules["model"])
    for key, empty in _FORMS:
        model[key] = model.get(key) or empty
    # The same frame of special tokens has several forms, such as BertProcessing and a template.
    return {**rules, "model": model, "post_processor": tokenizer.encode("").ids}


def _difference(built: Tokenizer, own: Tokenizer, parts: list[str], kind: str) -> str:
    rules = f"{', '.join(parts)} of tokenizer.json differ{'s' if len(parts) == 1 else ''}"
    kept = f"the tokenizer's {rules} from what transformers' {kind} builds; tokenizer.json is kept"
    for probe in _PROBES:
        theirs, ours = built.encode(probe).tokens, own.encode(probe).tokens
        if theirs != ours:
            return f"{kept}: {probe!r} is read as {_shown(ours)}, not as {_shown(theirs)}"
    return kept


def _shown(tokens: list[str]) -> str:
    return " ".join(tokens[:12]) + (" ..." if len(tokens) > 12 else "")


def _with_rules(built: PreTrainedTokenizerFast, own: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer with other rules, which transformers then loads unchanged.

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
