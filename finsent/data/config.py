"""Settings of ingest: sources of rows, and the treatment of bad, equal and contradicting rows."""

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
from finsent.labels import LABELS
from finsent.spellings import (
    AnyColumnName,
    ColumnName,
    Conditions,
    Spellings,
    strings_as_keys,
)
from finsent.uris import parse, refuse_secrets

SAMPLE = "sample"

Format = Literal["csv", "tsv", "jsonl", "parquet", "phrasebank", "text", "json", "arrow", "excel"]
Label = Literal["negative", "neutral", "positive"]


def _codec_name(value: str) -> str:
    """Return the standard name of a text codec, or `auto`."""
    if value == "auto":
        return value
    try:
        "".encode(value)  # a codec of text, not e.g. `hex`
        return codecs.lookup(value).name
    except LookupError:
        raise ValueError(
            f"{value!r} is not an encoding of Python. Write e.g. utf-8, cp1252, utf-16, or auto."
        ) from None


class SourceConfig(Section):
    """A source of labeled rows: a file, a directory, a glob, or a data set of a hub."""

    uri: str = setting(
        ...,
        "path, glob, directory, s3:// or gs:// URI, hf://owner/name[/config][:split], "
        "kaggle://owner/name/file.csv, or `sample`",
        min_length=1,
    )
    format: Format | None = setting(None, "file format; null: from the file's name")
    delimiter: str | None = setting(
        None,
        "character between the fields of a CSV, e.g. a semicolon; null: a comma, in a TSV a tab",
    )
    header: Literal["first", "none"] = setting(
        "first",
        "whether the first record of a CSV or a sheet names the columns; none: they are named "
        "1, 2, 3, ...",
    )
    quote: str = setting(
        '"', "character around the fields of a CSV; none: a quote is part of its field"
    )
    escape: str | None = setting(
        None,
        "character before a quote inside a field, e.g. a backslash as Spark writes; null: quotes "
        "inside a field are doubled",
    )
    sheet: str | None = setting(None, "sheet of a workbook; null: the only sheet that has rows")
    name: str | None = setting(
        None, "value of the column `source`; null: the file's or the data set's name", min_length=1
    )
    text: AnyColumnName = setting(None, "column of the text; null: data.text_column")
    label: AnyColumnName = setting(None, "column of the label; null: data.label_column")
    where: Conditions = setting(
        dict,
        "values that other columns must have, case-insensitive, e.g. {answer: accept}; other rows "
        "are left out and counted",
    )
    drop_labels: Spellings = setting(
        list, "labels whose rows are left out and counted, e.g. [mixed, unsure]"
    )
    label_map: Annotated[dict[str, Label], BeforeValidator(strings_as_keys)] = setting(
        dict, "label by the file's value, case-insensitive, e.g. {bullish: positive, 0: negative}"
    )
    thresholds: tuple[float, float] | None = setting(
        None,
        "the label column holds scores: below the first is negative, above the second positive, "
        "e.g. [-0.1, 0.1]",
    )
    encoding: str | None = setting(None, "character encoding; null: data.encoding")
    bad_bytes: Literal["keep", "reject"] = setting(
        "keep",
        "whether to keep rows with a lost character (U+FFFD), e.g. half an emoji, or reject them",
    )
    weight: float = setting(
        1.0,
        "weight of a row in a majority and in the training loss; the column `weight`",
        gt=0,
        allow_inf_nan=False,
    )
    license: str | None = setting(
        None, "license of the rows, for model cards; null: not stated", min_length=1
    )
    priority: int = setting(0, "under conflicts=priority the rows with the highest priority decide")

    _codec = field_validator("encoding")(lambda v: v if v is None else _codec_name(v))

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, value: str) -> str:
        refuse_secrets(value)
        parts = parse(value)
        return value if parts is None else parts.scheme + value[len(parts.scheme) :]

    @field_validator("delimiter")
    @classmethod
    def _valid_delimiter(cls, value: str | None) -> str | None:
        is_reserved = value is not None and (value.isalnum() or value in ' "\r\n\0')
        if value is not None and (len(value) != 1 or not value.isascii() or is_reserved):
            raise ValueError(
                f"{value!r}: must be one ASCII character, not a letter, digit, quote or white "
                'space. Write e.g. ";".'
            )
        return value

    @field_validator("quote", "escape")
    @classmethod
    def _valid_quote(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or (value == "none" and info.field_name == "quote"):
            return value
        if len(value) != 1 or not value.isascii() or value.isalnum() or value in " \r\n\0":
            remedy = '"\'", or none' if info.field_name == "quote" else '"\\\\"'
            raise ValueError(
                f"{value!r}: must be one ASCII character, not a letter, digit or white space. "
                f"Write e.g. {remedy}."
            )
        return value

    @field_validator("thresholds")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] <= value[1]:
            raise ValueError(
                f"{list(value)}: the first must not be above the second. Write e.g. [-0.1, 0.1]."
            )
        return value

    @model_serializer(mode="wrap")
    def _as_written(self, handler: Any) -> Any:
        """Return only the keys that were set, and the URI alone if no other key was."""
        given = {k: v for k, v in handler(self).items() if k in self.model_fields_set}
        return given["uri"] if given.keys() == {"uri"} else given

    @model_validator(mode="after")
    def _consistent(self) -> SourceConfig:
        for name in ("delimiter", "escape", "quote"):
            value = getattr(self, name)
            default = type(self).model_fields[name].default
            if value != default and self.format not in (None, "csv", "tsv"):
                raise ValueError(
                    f"{self.uri!r}: {name}={value!r} is for CSV, and format is {self.format!r}. "
                    "Leave one of them out."
                )
        characters = [
            each for each in (self.delimiter, self.quote, self.escape) if each is not None
        ]
        if len(set(characters)) < len(characters):
            raise ValueError(
                f"{self.uri!r}: delimiter, quote and escape are {characters}; they must differ. "
                "Leave escape out if quotes are doubled."
            )
        if self.text is not None and self.text == self.label:
            raise ValueError(
                f"{self.uri!r}: text and label are both {self.text!r}. Name two columns."
            )
        if self.label_map and self.thresholds:
            raise ValueError(
                f"{self.uri!r}: label_map and thresholds are both given. Use only thresholds for "
                "scores, only label_map for names."
            )
        return self


def _as_mapping(value: Any) -> Any:
    if not isinstance(value, str | dict | SourceConfig):
        raise ValueError(
            f"{value!r} is not a source. Write a path or URI as a text, or a mapping with `uri`."
        )
    return {"uri": value} if isinstance(value, str) else value


Source = Annotated[SourceConfig, BeforeValidator(_as_mapping)]


def iso_time(value: str) -> datetime:
    """Parse an ISO date or time; without a time zone it is in UTC.

    Raises:
        ValueError: the value is not an ISO date or time.
    """
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value!r} is not an ISO date or time. Write e.g. 2024-07-01.") from None
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
                "column, validation_from and test_from belong together. Write all three, e.g. "
                "{column: date, validation_from: 2024-01-01, test_from: 2024-07-01}."
            )
        times = [iso_time(value) for value in (self.validation_from, self.test_from) if value]
        if times and times[0] >= times[1]:
            raise ValueError(
                f"validation_from={self.validation_from!r} is not before "
                f"test_from={self.test_from!r}. Write a later test_from."
            )
        return self


class SplitConfig(Section):
    """Fractions of the distinct texts in each split."""

    train: float = setting(0.8, "fraction of the texts to train on", unit="fraction", gt=0, lt=1)
    validation: float = setting(
        0.1, "fraction of the texts to choose the best epoch on", unit="fraction", gt=0, lt=1
    )
    test: float = setting(0.1, "fraction of the texts to report on", unit="fraction", gt=0, lt=1)
    group_by: AnyColumnName = setting(
        None,
        "column whose rows with one value stay in one split, e.g. company; null: only "
        "near-duplicates stay together",
    )
    time: TimeSplitConfig = setting(TimeSplitConfig, "train on the past, test on the future")

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitConfig:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(
                f"train={self.train}, validation={self.validation}, test={self.test} "
                f"add up to {total:g}. They must add up to 1, e.g. 0.8, 0.1, 0.1."
            )
        changed = [
            f"{name}={getattr(self, name)}"
            for name in ("train", "validation", "test")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if self.time.column and changed:
            raise ValueError(
                f"{', '.join(changed)} and time.column={self.time.column!r} are both given, but "
                "the times alone decide the splits. Leave the fractions out."
            )
        if self.group_by and self.time.column:
            raise ValueError(
                f"group_by={self.group_by!r} and time.column={self.time.column!r} are both given, "
                "but rows are split by group or by time. Choose one."
            )
        return self


class NearConfig(Section):
    """Near-duplicates: texts that differ in a few words or figures."""

    enabled: bool = setting(True, "find near-duplicates and keep each group in one split")
    threshold: float = setting(
        0.75,
        "minimum Jaccard similarity of the shingles of two near-duplicates",
        gt=0.3,
        le=1,
    )
    permutations: int = setting(128, "MinHash values per text", unit="values", ge=16, le=512)


class NoiseConfig(Section):
    """The search for likely wrong labels."""

    enabled: bool = setting(True, "find labels that out-of-fold predictions contradict")
    folds: int = setting(5, "folds of the cross-validation", ge=2)
    max_rows: int = setting(
        20_000,
        "largest number of rows to inspect; of more rows, those with the smallest hashes",
        unit="rows",
        ge=100,
    )


class PreferPolicy(Section):
    """Conflict policy: one label wins over another in any source."""

    prefer: list[Label] = setting(..., "labels, the preferred first", min_length=1)

    @field_validator("prefer")
    @classmethod
    def _distinct(cls, value: list[Label]) -> list[Label]:
        if len(set(value)) != len(value):
            raise ValueError(f"{value} names a label twice. Write each once, e.g. {list(LABELS)}.")
        return value


Policy = Literal["drop", "majority", "priority", "keep", "error"]


def _form(value: Any) -> str:
    # In brackets, so that error messages omit the form from the key.
    return "[mapping]" if isinstance(value, dict | PreferPolicy) else "[name]"


Conflicts = Annotated[
    Annotated[Policy, Tag("[name]")] | Annotated[PreferPolicy, Tag("[mapping]")],
    Discriminator(_form),
]


class DataConfig(Section):
    """Sources and their treatment. The dataset version depends on this and the sources' bytes."""

    name: str = setting(
        "financial-sentiment",
        "name of the dataset; its versions are in storage.root/datasets/NAME",
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        form="small letters, digits, dots, - and _, and begin with a letter or a digit",
    )
    sources: list[Source] = setting(
        lambda: [SourceConfig(uri=SAMPLE)],
        "labeled files: URIs, or mappings with the keys below; `sample` is the corpus of the "
        "package",
        min_length=1,
    )
    exclude: list[Source] = setting(
        list,
        "sources that must stay unseen, e.g. a benchmark: their texts and near-duplicates are "
        "removed; they need no label column",
    )
    text_column: ColumnName = setting("Sentence", "column that holds the text", min_length=1)
    label_column: ColumnName = setting("Sentiment", "column that holds the label", min_length=1)
    encoding: str = setting(
        "auto", "character encoding of the sources, e.g. utf-8, cp1252; auto: from their bytes"
    )
    max_chars: int = setting(
        5000, "maximum length of a text; longer texts are rejected", unit="characters", ge=10
    )
    conflicts: Conflicts = setting(
        "drop",
        "policy for a text under several labels; drop: drop the text; majority: keep the label of "
        "most rows; priority: keep the label of most rows of the sources with the highest "
        "priority (both drop the text at a tie); {prefer: [labels in order]}: keep the first of "
        "these labels; keep: keep one row per label (harmful: no classifier can be right on "
        "both); error: stop",
    )
    max_rejected_fraction: float = setting(
        0.01,
        "largest fraction of a source's rows that may be rejected; ingest fails above it",
        unit="fraction",
        ge=0,
        le=1,
    )
    near_duplicates: NearConfig = setting(
        NearConfig, "near-duplicates: texts that differ in a few words"
    )
    label_noise: NoiseConfig = setting(NoiseConfig, "likely wrong labels")
    salt: str = setting("finsent", "salt of the hash that assigns rows to splits")
    split: SplitConfig = setting(SplitConfig, "the splits")

    _codec = field_validator("encoding")(_codec_name)

    @model_validator(mode="after")
    def _columns_differ(self) -> DataConfig:
        if self.text_column == self.label_column:
            raise ValueError(
                f"text_column and label_column are both {self.text_column!r}. Name two columns."
            )
        return self
