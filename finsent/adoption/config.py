"""Settings of adoption."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from finsent.config import Section, setting
from finsent.data.config import Label, Source
from finsent.names import Alias
from finsent.spellings import strings_as_keys


class AdoptConfig(Section):
    """How `ray_jobs.adopt` takes over a classifier from elsewhere."""

    name: Alias | None = setting(None, "alias of the adopted version, e.g. finbert; null: none")
    revision: str | None = setting(None, "commit, tag or branch of a hub id; null: its default")
    label_map: Annotated[dict[str, Label], BeforeValidator(strings_as_keys)] = setting(
        dict,
        "label by the model's own label in any case, e.g. {bullish: positive, LABEL_0: negative}; "
        "several may stand for one, whose probabilities are added; ours need no entry",
    )
    max_length: int | None = setting(
        None,
        "longest input; the rest of a text is cut off; null: what model and tokenizer allow, at "
        "most 512",
        unit="tokens",
        ge=8,
        le=512,
    )
    license: str | None = setting(
        None, "license of the model, for its card; null: what its README.md has", min_length=1
    )
    sources: list[Source] = setting(
        list,
        "labeled files, read by the rules of the section data: half of the texts calibrate the "
        "model, the other half are what it is measured on, 50 or more each; empty: neither",
    )
    export: bool = setting(True, "export the model as the section `export` has it")
    max_difference: float = setting(
        1e-5, "largest difference of any probability from plain transformers in fp32", gt=0, le=1
    )
