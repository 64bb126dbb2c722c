"""Settings of ingest: where the rows come from and what happens to bad ones."""

from __future__ import annotations

import codecs
from typing import Literal

from pydantic import field_validator, model_validator

from finsent.config import Section, setting

SAMPLE = "sample"


class SplitConfig(Section):
    """Shares of the distinct texts that go to each split."""

    train: float = setting(0.8, "share of rows to train on", unit="fraction", gt=0, lt=1)
    validation: float = setting(
        0.1, "share of rows to choose the best epoch on", unit="fraction", gt=0, lt=1
    )
    test: float = setting(0.1, "share of rows to report on", unit="fraction", gt=0, lt=1)

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitConfig:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(
                f"train={self.train}, validation={self.validation}, test={self.test} "
                f"add up to {total:g}; they must add up to 1, e.g. 0.8, 0.1, 0.1"
            )
        return self


class DataConfig(Section):
    """Sources and their treatment. With the sources' bytes, this decides the dataset version."""

    name: str = setting(
        "financial-sentiment",
        "name of the dataset; its versions lie under storage.root/datasets/NAME",
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
    )
    sources: list[str] = setting(
        lambda: [SAMPLE],
        "labelled CSV files: paths, directories or globs; `sample` is the corpus in the package",
        min_length=1,
    )
    text_column: str = setting("Sentence", "column that holds the text", min_length=1)
    label_column: str = setting("Sentiment", "column that holds the label", min_length=1)
    encoding: str = setting("utf-8", "character encoding of the sources, e.g. utf-8, cp1252")
    max_chars: int = setting(
        5000, "longest text that is kept; longer ones are rejected", unit="characters", ge=10
    )
    conflicts: Literal["drop", "majority", "error"] = setting(
        "drop",
        "what to do with one text under several labels: drop it, take the majority's label "
        "(drop at a tie), or stop",
    )
    max_rejected_fraction: float = setting(
        0.01, "fail when more of a source's rows are rejected", unit="fraction", ge=0, le=1
    )
    salt: str = setting("finsent", "changes which rows fall into which split")
    split: SplitConfig = setting(SplitConfig, "shares of the splits")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)  # a codec of text, not e.g. `hex`
            return codecs.lookup(value).name
        except LookupError:
            raise ValueError(
                f"{value!r} is no encoding that Python knows; write e.g. utf-8, cp1252, utf-16"
            ) from None

    @model_validator(mode="after")
    def _columns_differ(self) -> DataConfig:
        if self.text_column == self.label_column:
            raise ValueError(
                f"text_column and label_column are both {self.text_column!r}; name two columns"
            )
        return self
