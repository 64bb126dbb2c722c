"""Settings of ingest: where the rows come from and what happens to bad ones."""

from __future__ import annotations

import codecs
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from finsent.config import Section, setting
from finsent.data.sources.uris import parse, refuse_secrets
from finsent.labels import LABELS
from finsent.spellings import (
    AnyColumnName,
    ColumnName,
    Conditions,
    Spellings,
    strings_as_keys,
)

SAMPLE = "sample"

Format = Literal["csv", "tsv", "jsonl", "parquet", "phrasebank", "text", "json", "arrow", "excel"]
Label = Literal["negative", "neutral", "positive"]


def _known_codec(value: str) -> str:
    """A text codec's name in one spelling; `auto` stays."""
    if value == "auto":
        return value
    try:
        "".encode(value)  # a codec of text, not e.g. `hex`
        return codecs.lookup(value).name
    except LookupError:
        raise ValueError(
            f"{value!r} is no encoding that Python knows; write e.g. utf-8, cp1252, utf-16, or auto"
        ) from None


class SourceConfig(Section):
    """One labeled place: a file, a directory, a glob, or a data set of a hub."""

    uri: str = setting(
        ...,
        "path, glob, directory, s3:// or gs:// URI, hf://owner/name[/config][:split], "
        "kaggle://owner/name/file.csv, or `sample`",
        min_length=1,
    )
    format: Format | None = setting(None, "file format; null: by the file's name")
    delimiter: str | None = setting(
        None, "sign between the fields of a CSV, e.g. a semicolon; null: a comma, in a TSV a tab"
    )
    header: Literal["first", "none"] = setting(
        "first",
        "of a CSV or a sheet: the first record names the columns, or none does; they are then "
        "named 1, 2, 3, ...",
    )
    quote: str = setting(
        '"', "sign around the fields of a CSV; none: a quote is a part of its field"
    )
    escape: str | None = setting(
        None,
        "sign before a quote that belongs to a field, e.g. a backslash as Spark writes; null: such "
        "a quote is doubled",
    )
    sheet: str | None = setting(None, "sheet of a workbook; null: the only one that has rows")
    name: str | None = setting(
        None, "what the column `source` says; null: the file's or the data set's name", min_length=1
    )
    text: AnyColumnName = setting(None, "column of the text; null: data.text_column")
    label: AnyColumnName = setting(None, "column of the label; null: data.label_column")
    where: Conditions = setting(
        dict,
        "values that other columns must have, in any case, e.g. {answer: accept}; other rows are "
        "left out and counted",
    )
    drop_labels: Spellings = setting(
        list, "labels whose rows are left out and counted, e.g. [mixed, unsure]"
    )
    label_map: Annotated[dict[str, Label], BeforeValidator(strings_as_keys)] = setting(
        dict, "label by what the file says in any case, e.g. {bullish: positive, 0: negative}"
    )
    thresholds: tuple[float, float] | None = setting(
        None,
        "the label column holds scores: below the first is negative, above the second positive, "
        "e.g. [-0.1, 0.1]",
    )
    encoding: str | None = setting(None, "character encoding; null: data.encoding")
    bad_bytes: Literal["keep", "reject"] = setting(
        "keep", "rows with a sign that was lost (U+FFFD), e.g. half an emoji: kept or rejected"
    )
    weight: float = setting(
        1.0,
        "what a row counts in a majority, and its loss in training; the column `weight`",
        gt=0,
        allow_inf_nan=False,
    )
    license: str | None = setting(
        None, "license of its rows, for the cards of models; null: not stated", min_length=1
    )
    priority: int = setting(0, "under conflicts=priority the rows with the highest decide")

    _codec = field_validator("encoding")(lambda v: v if v is None else _known_codec(v))

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, value: str) -> str:
        refuse_secrets(value)
        parts = parse(value)
        return value if parts is None else parts.scheme + value[len(parts.scheme) :]

    @field_validator("delimiter")
    @classmethod
    def _one_sign(cls, value: str | None) -> str | None:
        taken = value is not None and (value.isalnum() or value in ' "\r\n\0')
        if value is not None and (len(value) != 1 or not value.isascii() or taken):
            raise ValueError(f'{value!r}: must be one ASCII sign between fields; write e.g. ";"')
        return value

    @field_validator("quote", "escape")
    @classmethod
    def _another_sign(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or (value == "none" and info.field_name == "quote"):
            return value
        if len(value) != 1 or not value.isascii() or value.isalnum() or value in " \r\n\0":
            raise ValueError(
                f"{value!r}: must be one ASCII sign"
                + (", or none" if info.field_name == "quote" else ', e.g. "\\\\"')
            )
        return value

    @field_validator("thresholds")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] <= value[1]:
            raise ValueError(
                f"{list(value)}: the first must not be above the second; write e.g. [-0.1, 0.1]"
            )
        return value

    @model_serializer(mode="wrap")
    def _as_written(self, handler: Any) -> Any:
        """A URI alone, or the keys that say something: as a user would write it."""
        given = {k: v for k, v in handler(self).items() if k in self.model_fields_set}
        return given["uri"] if given.keys() == {"uri"} else given

    @model_validator(mode="after")
    def _one_reading(self) -> SourceConfig:
        for name in ("delimiter", "escape", "quote"):
            value = getattr(self, name)
            usual = type(self).model_fields[name].default
            if value != usual and self.format not in (None, "csv", "tsv"):
                raise ValueError(
                    f"{self.uri!r}: {name}={value!r} is for CSV, and format is "
                    f"{self.format!r}; leave one of them out"
                )
        signs = [sign for sign in (self.delimiter, self.quote, self.escape) if sign is not None]
        if len(set(signs)) < len(signs):
            raise ValueError(
                f"{self.uri!r}: delimiter, quote and escape are {signs}; they must differ (leave "
                "escape out where a quote is doubled)"
            )
        if self.text is not None and self.text == self.label:
            raise ValueError(
                f"{self.uri!r}: text and label are both {self.text!r}; name two columns"
            )
        if self.label_map and self.thresholds:
            raise ValueError(
                f"{self.uri!r}: label_map and thresholds are both given; scores need only "
                "thresholds, names only label_map"
            )
        return self


def _as_mapping(value: Any) -> Any:
    if not isinstance(value, str | dict | SourceConfig):
        raise ValueError(
            f"{value!r} is no source; write a path or URI as a text, or a mapping with `uri`"
        )
    return {"uri": value} if isinstance(value, str) else value


Source = Annotated[SourceConfig, BeforeValidator(_as_mapping)]


def iso_time(value: str) -> datetime:
    """An ISO date or time, in UTC where it names no zone.

    Raises:
        ValueError: it is none; says what to write.
    """
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value!r} is no ISO date or time; write e.g. 2024-07-01") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


class TimeSplitConfig(Section):
    """Train on the past, test on the future."""

    column: AnyColumnName = setting(None, "column with an ISO date or time; null: split by hash")
    validation_from: str | None = setting(None, "first time of the validation split, ISO")
    test_from: str | None = setting(None, "first time of the test split, ISO")

    @model_validator(mode="after")
    def _complete(self) -> TimeSplitConfig:
        given = [self.column, self.validation_from, self.test_from]
        if any(given) and not all(given):
            raise ValueError(
                "column, validation_from and test_from belong together; write all three, e.g. "
                "{column: date, validation_from: 2024-01-01, test_from: 2024-07-01}"
            )
        times = [iso_time(value) for value in (self.validation_from, self.test_from) if value]
        if times and times[0] >= times[1]:
            raise ValueError(
                f"validation_from={self.validation_from!r} is not before "
                f"test_from={self.test_from!r}; the test split is the future"
            )
        return self


class SplitConfig(Section):
    """Shares of the distinct texts that go to each split."""

    train: float = setting(0.8, "share of rows to train on", unit="fraction", gt=0, lt=1)
    validation: float = setting(
        0.1, "share of rows to choose the best epoch on", unit="fraction", gt=0, lt=1
    )
    test: float = setting(0.1, "share of rows to report on", unit="fraction", gt=0, lt=1)
    group_by: AnyColumnName = setting(
        None, "column whose rows stay on one side, e.g. company; null: only near-duplicates do"
    )
    time: TimeSplitConfig = setting(TimeSplitConfig, "train on the past, test on the future")

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitConfig:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(
                f"train={self.train}, validation={self.validation}, test={self.test} "
                f"add up to {total:g}; they must add up to 1, e.g. 0.8, 0.1, 0.1"
            )
        given = {name: getattr(self, name) for name in ("train", "validation", "test")}
        changed = [k for k, v in given.items() if v != type(self).model_fields[k].default]
        if self.time.column and changed:
            raise ValueError(
                f"{', '.join(f'{k}={given[k]}' for k in changed)} and "
                f"time.column={self.time.column!r} are both given; the times alone decide the "
                "splits: leave the shares out"
            )
        if self.group_by and self.time.column:
            raise ValueError(
                f"group_by={self.group_by!r} and time.column={self.time.column!r} are both given; "
                "choose one: rows are split by group or by time"
            )
        return self


class NearConfig(Section):
    """Near-duplicates: texts that differ in a few words or figures."""

    enabled: bool = setting(True, "find near-duplicates and keep each group in one split")
    threshold: float = setting(
        0.75, "Jaccard similarity of the texts' shingles from which they are near", gt=0.3, le=1
    )
    permutations: int = setting(128, "MinHash values a text", unit="values", ge=16, le=512)


class NoiseConfig(Section):
    """The report of likely wrong labels."""

    enabled: bool = setting(True, "look for labels that out-of-fold predictions contradict")
    folds: int = setting(5, "folds of the cross-validation", ge=2)
    max_rows: int = setting(
        20_000, "rows to look at; of more, those with the smallest hashes", unit="rows", ge=100
    )


class PreferPolicy(Section):
    """Conflict policy: one label wins over another whatever the sources say."""

    prefer: list[Label] = setting(..., "labels, the strongest first", min_length=1)

    @field_validator("prefer")
    @classmethod
    def _distinct(cls, value: list[Label]) -> list[Label]:
        if len(set(value)) != len(value):
            raise ValueError(f"{value} names a label twice; write each once, e.g. {list(LABELS)}")
        return value


Policy = Literal["drop", "majority", "priority", "keep", "error"]


def _form(value: Any) -> str:
    # In brackets, so that messages leave it out of the key.
    return "[mapping]" if isinstance(value, dict | PreferPolicy) else "[name]"


Conflicts = Annotated[
    Annotated[Policy, Tag("[name]")] | Annotated[PreferPolicy, Tag("[mapping]")],
    Discriminator(_form),
]


class DataConfig(Section):
    """Sources and their treatment. With the sources' bytes, this decides the dataset version."""

    name: str = setting(
        "financial-sentiment",
        "name of the dataset; its versions lie under storage.root/datasets/NAME",
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
    )
    sources: list[Source] = setting(
        lambda: [SourceConfig(uri=SAMPLE)],
        "labeled files: URIs, or mappings with the keys below; `sample` is the corpus in the "
        "package",
        min_length=1,
    )
    exclude: list[Source] = setting(
        list,
        "sources that must stay unseen, e.g. a benchmark: their texts and near ones are removed; "
        "they need no label column",
    )
    text_column: ColumnName = setting("Sentence", "column that holds the text", min_length=1)
    label_column: ColumnName = setting("Sentiment", "column that holds the label", min_length=1)
    encoding: str = setting(
        "auto", "character encoding of the sources, e.g. utf-8, cp1252; auto: by their bytes"
    )
    max_chars: int = setting(
        5000, "longest text that is kept; longer ones are rejected", unit="characters", ge=10
    )
    conflicts: Conflicts = setting(
        "drop",
        "what to do with one text under several labels: drop it; take the majority's label; by "
        "priority: the majority of the rows whose sources have the highest (both drop at a tie); "
        "{prefer: [labels in order]}; "
        "keep one row a label (harmful: no classifier can be right on both); or stop",
    )
    max_rejected_fraction: float = setting(
        0.01, "fail when more of a source's rows are rejected", unit="fraction", ge=0, le=1
    )
    near_duplicates: NearConfig = setting(NearConfig, "texts that differ in a few words")
    label_noise: NoiseConfig = setting(NoiseConfig, "likely wrong labels")
    salt: str = setting("finsent", "changes which rows fall into which split")
    split: SplitConfig = setting(SplitConfig, "shares of the splits")

    _codec = field_validator("encoding")(_known_codec)

    @model_validator(mode="after")
    def _columns_differ(self) -> DataConfig:
        if self.text_column == self.label_column:
            raise ValueError(
                f"text_column and label_column are both {self.text_column!r}; name two columns"
            )
        return self
