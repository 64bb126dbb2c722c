"""Adopt a classifier from elsewhere: its weights, its tokenizer, and the meaning of its labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finsent.adoption.config import AdoptConfig
from finsent.errors import InputError
from finsent.files import sha256_file
from finsent.labels import LABELS
from finsent.modeling.classification_head import output_layer, reorder_labels
from finsent.modeling.classifier import save_classifier
from finsent.modeling.compatibility import (
    check_length,
    check_padding,
    check_tokens,
    position_limit,
)
from finsent.modeling.file_checks import check_model_files
from finsent.modeling.label_map import (
    LabelMap,
    contradicting_ids,
    label_names,
    make_label_map,
    read_label_map,
    write_label_map,
)
from finsent.modeling.model_dir import CALIBRATION, PROVENANCE
from finsent.modeling.model_folder import ModelFolder
from finsent.modeling.provenance import (
    AdoptedOrigin,
    Provenance,
    read_adopted_dataset,
    read_license,
)
from finsent.modeling.tokenizer import LoadedTokenizer, read_tokenizer
from finsent.modeling.tokenizer_checks import check_vocabulary
from finsent.modeling.weights import (
    LoadedModel,
    check_complete,
    load_weights,
    read_config,
    unused_note,
)
from finsent.records import FileDigest

_MAX_LENGTH = 512  # tokens, without adopt.max_length; memory grows with the square
_OTHER_TASKS = ("ForTokenClassification", "ForMultipleChoice", "ForQuestionAnswering")
# Of a dataset and of its version, which become parts of a path.
_DIGESTED = (".json", ".txt", ".model", ".safetensors", ".bin")


@dataclass(frozen=True)
class ForeignModel:
    """A classifier from elsewhere, whose files other than the weights are checked."""

    name: str  # as the user wrote it
    folder: ModelFolder
    config: Any  # of transformers
    is_pickled: bool
    label_map: LabelMap
    max_length: int
    license: str | None
    read: LoadedTokenizer

    @property
    def field(self) -> str:
        """The model's name for messages: `FIELD=VALUE`."""
        return _field(self.name)

    @property
    def path(self) -> str:
        """Path of the model's directory."""
        return str(self.folder.path)


def _field(name: str) -> str:
    return f"SOURCE={name!r}"


def open_foreign(name: str, folder: ModelFolder, config: AdoptConfig) -> ForeignModel:
    """Read config and tokenizer of a classifier, and map its labels onto ours.

    Raises:
        InputError: a file is missing or does not fit the others, or a label is not mapped.
    """
    field, path = _field(name), str(folder.path)
    is_pickled = check_model_files(folder.path, field)
    model_config = read_config(path, field)
    _check_task(model_config, field)
    names = _read_labels(model_config, path, field)
    label_map = make_label_map(names, config.label_map or _stored_pairs(folder.path))
    read = read_tokenizer(path, name=field)
    check_tokens(model_config, read.tokenizer, field)
    read = replace(read, notes=[*read.notes, *check_vocabulary(read.tokenizer, field)])
    if config.max_length is not None:
        check_length(model_config, config.max_length, name, "adopt.max_length")
    limits = (position_limit(model_config), read.tokenizer.model_max_length, _MAX_LENGTH)
    max_length = config.max_length or min(limit for limit in limits if limit)
    license = config.license or read_license(folder.path / "README.md")
    return ForeignModel(
        name, folder, model_config, is_pickled, label_map, max_length, license, read
    )


def _read_labels(config: Any, path: str, field: str) -> tuple[str, ...]:
    """Return the names of a model's labels, by output.

    Raises:
        InputError: the names contradict each other, or the model does not answer one label per
            text.
    """
    names = label_names(config.id2label, f"{path}/config.json")
    contradiction = contradicting_ids(config.id2label, config.label2id)
    if contradiction:
        raise InputError(
            f"{field}: config.json contradicts itself on its labels ({contradiction}). Look up "
            "the labels of the model's training, and correct the wrong key of config.json."
        )
    task = config.problem_type
    if len(names) == 1 or task in ("regression", "multi_label_classification"):
        raise InputError(
            f"{field}: answers {task or 'one number'}, not one label per text. Use a model of "
            "single_label_classification."
        )
    return names


def _check_task(config: Any, field: str) -> None:
    """Refuse a model that was trained to label words or choices, whose head may fit by chance."""
    others = [name for name in config.architectures or [] if name.endswith(_OTHER_TASKS)]
    if others:
        raise InputError(
            f"{field}: is a {others[0]} (architectures in config.json), which does not label "
            f"texts. Use a model of ...ForSequenceClassification, or fine-tune this one with "
            "`python -m ray_jobs.train model.backbone=...`."
        )


def _stored_pairs(path: Path) -> dict[str, str]:
    """Return the label map of a model that finsent wrote; empty for any other model.

    In a model of another tool, a file of that name may mean anything.

    Raises:
        InputError: the map is damaged.
    """
    stored = read_label_map(path) if (path / PROVENANCE).is_file() else None
    return stored.pairs if stored else {}


def adopt(foreign: ForeignModel, out: Path) -> list[str]:
    """Write a classifier in our layout: fp32 safetensors, its own tokenizer, our labels.

    Where each of our labels is one of the source's, the output layer answers in our order. Where
    several of the source's labels mean one of ours, the model keeps its labels, and
    `label_map.json` next to the weights maps them.

    Returns:
        Notes for the user, one line each.

    Raises:
        InputError: weights are missing, damaged, or more than tensors.
    """
    loaded = load_weights(
        foreign.path,
        foreign.field,
        is_pickled=foreign.is_pickled,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # reported by name below
    )
    _check_head(foreign, loaded)
    check_complete(foreign.field, [*loaded.missing, *loaded.mismatched], loaded)
    tokenizer = foreign.read.tokenizer
    check_padding(loaded.model, tokenizer, foreign.max_length, foreign.field)
    label_map = foreign.label_map
    columns = [next(iter(label_map.columns(label)), None) for label in LABELS]
    answers_ours = label_map.is_one_to_one and reorder_labels(loaded.model, columns)
    save_classifier(loaded.model, tokenizer, out, _provenance(foreign, loaded))
    if not answers_ours:
        write_label_map(out, label_map)
    return [*foreign.read.notes, *_notes(foreign, loaded)]


def _check_head(foreign: ForeignModel, loaded: LoadedModel) -> None:
    """Refuse a head that is missing, or that answers another number of labels than the config."""
    layer = output_layer(loaded.model)
    parameters = loaded.model.named_parameters()
    names = {key for key, p in parameters if layer and any(p is own for own in layer.parameters())}
    if any(key.startswith(loaded.encoder_prefix) for key in (*loaded.missing, *loaded.mismatched)):
        return  # the encoder is incomplete, too: `check_complete` reports that
    if names and names <= {*loaded.missing}:
        raise InputError(
            f"{foreign.field}: has no classification head ({sorted(names)[-1]} is missing), so it "
            f"is an encoder, not a classifier. Fine-tune it with `python -m ray_jobs.train "
            f"model.backbone={foreign.name}`."
        )
    outputs = {loaded.mismatched[key][0] for key in names if key in loaded.mismatched}
    if outputs:
        raise InputError(
            f"{foreign.field}: its head has {outputs.pop()} outputs, but config.json names "
            f"{len(foreign.label_map.sources)} labels ({', '.join(foreign.label_map.sources)}). "
            "Set id2label in config.json to the label of each output."
        )


def _notes(foreign: ForeignModel, loaded: LoadedModel) -> list[str]:
    notes = []
    if foreign.label_map.absent:
        notes.append(
            f"the model never answers {' or '.join(foreign.label_map.absent)}: none of its labels "
            "is mapped onto that"
        )
    if foreign.license is None:
        notes.append("its license is unknown; set adopt.license to what you may use it under")
    unused, code = unused_note(loaded), _code_note(foreign, loaded)
    notes += [note for note in (unused, code) if note]
    if (foreign.folder.path / CALIBRATION).is_file():
        notes.append(f"its {CALIBRATION} is left out; set adopt.sources to calibrate the model")
    return notes


def _code_note(foreign: ForeignModel, loaded: LoadedModel) -> str | None:
    """Return a note on code of the source that would compute the answers in another way."""
    config, used = foreign.config, type(loaded.model).__name__
    others = [name for name in config.architectures or [] if name != used]
    if not others and not getattr(config, "auto_map", None):
        return None
    named = f"its config.json names {others[0]}" if others else "it comes with code of its own"
    return (
        f"{named}, which does not run here: the answers are those of transformers' {used}; compare "
        "a few with those that its author publishes"
    )


def _provenance(foreign: ForeignModel, loaded: LoadedModel) -> Provenance:
    folder = foreign.folder
    files = sorted(file for file in folder.path.iterdir() if file.suffix in _DIGESTED)
    return Provenance(
        backbone=foreign.name,
        revision=folder.commit,
        max_length=foreign.max_length,
        labels=LABELS,
        dataset=read_adopted_dataset(folder.path),
        origin=AdoptedOrigin(
            source=foreign.name,
            revision=folder.commit,
            license=foreign.license,
            architecture=type(loaded.model).__name__,
            label_map=foreign.label_map.pairs,
            absent_labels=tuple(foreign.label_map.absent),
            files=tuple(
                FileDigest(path=file.name, bytes=file.stat().st_size, sha256=sha256_file(file))
                for file in files
                if file.is_file()
            ),
        ),
    )
