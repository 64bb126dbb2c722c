"""Settings of adoption."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from finsent.config import Section, setting
from finsent.data.config import Label, Source
from finsent.names import Alias
from finsent.spellings import strings_as_keys


class AdoptConfig(Section):
    """The settings of `ray_jobs.adopt`, which adopts a classifier that finsent did not train."""

    name: Alias | None = setting(None, "alias of the adopted version, e.g. finbert; null: none")
    revision: str | None = setting(None, "commit, tag or branch of a hub id; null: its default")
    label_map: Annotated[dict[str, Label], BeforeValidator(strings_as_keys)] = setting(
        dict,
        "finsent's label for each label of the model, in any case, e.g. {bullish: positive, "
        "LABEL_0: negative}; probabilities of labels with the same target are added; positive, "
        "neutral and negative need no entry",
    )
    max_length: int | None = setting(
        None,
        "longest input; longer texts are cut; null: the limit of model and tokenizer, at most 512",
        unit="tokens",
        ge=8,
        le=512,
    )
    license: str | None = setting(
        None, "license of the model, for its card; null: as in its README.md", min_length=1
    )
    sources: list[Source] = setting(
        list,
        "labeled files, read by the rules of the section data: one half of the texts calibrates "
        "the model, the other half measures it, 50 or more each; empty: neither",
    )
    export: bool = setting(True, "export the model with the settings of the section export")
    max_difference: float = setting(
        1e-5, "largest difference of any probability from plain transformers in fp32", gt=0, le=1
    )
