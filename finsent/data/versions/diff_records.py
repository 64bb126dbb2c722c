"""The difference between two dataset versions `a` and `b`, as `ingest diff` returns it."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from finsent.records import JsonObject, Record


class VersionIdentity(Record):
    """Identity of a compared version."""

    dataset: str
    version: str
    created: str
    dir: str


class CountChange(Record):
    """A count in both versions."""

    a: int
    b: int
    change: int


class LabelChange(CountChange):
    """Rows of one label in both versions, and its shares of the rows."""

    share_a: float
    share_b: float
    shift: float  # change of the share


class Renaming(Record):
    """A pair of names, the one in `a` and the one in `b`."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    old: str = Field(alias="from")
    new: str = Field(alias="to")


class Transition(Renaming):
    """The rows that changed from one value to another."""

    rows: int


class RowsBySplit(Record):
    """Rows that are in one version only."""

    rows: int
    by_split: dict[str, dict[str, int]]  # split -> label -> rows


class Transitions(Record):
    """Rows that are in both versions and differ in one property."""

    rows: int
    changes: list[Transition]


class Relabelings(Transitions):
    """Rows whose label differs."""

    by_split: dict[str, int]  # of the rows that are in the same split of both versions


class RowChanges(Record):
    """Rows by what happened to them. `relabeled`, `moved` and `changed_source` may overlap."""

    a: int  # rows of the version
    b: int
    unchanged: int
    added: RowsBySplit
    removed: RowsBySplit
    relabeled: Relabelings
    moved: Transitions  # between splits
    changed_source: Transitions


class InputVersion(Record):
    """A source file of a dataset version."""

    source: str
    sha256: str
    bytes: int
    rows: int


class ChangedInput(Record):
    """A source whose bytes differ."""

    source: str
    a: InputVersion
    b: InputVersion


class RenamedInput(Renaming):
    """A source with the same bytes under another name."""

    sha256: str


class InputChanges(Record):
    """Sources of two versions, matched by name, then by bytes."""

    unchanged: int
    added: list[InputVersion]
    removed: list[InputVersion]
    changed: list[ChangedInput]
    renamed: list[RenamedInput]


class ExampleRow(Record):
    """A row of one version."""

    key: str
    text: str
    row: int
    label: str
    split: str
    source: str


class ExamplePair(Record):
    """A row as it is in both versions; null where it is missing."""

    a: ExampleRow | None
    b: ExampleRow | None


class VersionDiff(Record):
    """Everything that differs between two dataset versions."""

    a: VersionIdentity
    b: VersionIdentity
    identical: bool  # whether all rows have the same labels, splits and sources
    warnings: list[str]
    rows: RowChanges
    labels: dict[str, dict[str, LabelChange]]  # `all` or split -> label
    counts: dict[str, CountChange]
    inputs: InputChanges
    exclude: InputChanges
    config: dict[str, JsonObject]  # dotted key -> `a` and `b`; a side that lacks it is left out
    examples: dict[str, list[ExamplePair]]  # by kind of change
