"""Typed JSON files: records that finsent writes and reads back, and files of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from finsent.errors import InputError
from finsent.files import indented_json, read_json, write_json

# Content that finsent stores or passes on and does not interpret, e.g. settings of another version.
JsonObject: TypeAlias = dict[str, JsonValue]


class _JsonFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a file that is not such a record."""
        return "The directory is damaged or of another version of finsent."

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record from a JSON file.

        Raises:
            InputError: the file is missing, not JSON, or not such a record. One line that names the
                file, the first wrong key and the remedy.
        """
        return cls._of(read_json(path), str(path))

    @classmethod
    def decode(cls, data: bytes, source: str) -> Self:
        """Read a record from the bytes of a JSON file.

        Args:
            source: path or URI of the file, for messages.

        Raises:
            InputError: as `read`.
        """
        try:
            content = json.loads(data)
        except ValueError as error:
            raise InputError(f"{source}: not valid JSON ({error}). The file is damaged.") from None
        return cls._of(content, source)

    @classmethod
    def _of(cls, content: Any, source: str) -> Self:
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"])) or "the file"
            raise InputError(f"{source}: {key}: {problem['msg']}. {cls.remedy()}") from None


class ForeignRecord(_JsonFile):
    """The keys that finsent reads of another tool's JSON file; all other keys are ignored."""

    model_config = ConfigDict(extra="ignore")


class Record(_JsonFile):
    """A JSON file with known keys. Instances are immutable.

    A subclass declares its version as `schema_version: Literal[1] = 1`, so that a file of another
    version is refused, and its remedy, which ends the error's line.
    """

    model_config = ConfigDict(extra="forbid")

    def replaced(self, **changes: Any) -> Self:
        """Return a copy with other values of some keys, validated as a new record is."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**values, **changes})

    def write(self, path: Path) -> None:
        """Write the record as indented JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))

    def encode(self) -> bytes:
        """Return the bytes of the file that `write` writes."""
        return indented_json(self.model_dump(mode="json")).encode()


class SparseRecord(Record):
    """A record whose JSON leaves out the optional keys that were never set."""

    @model_serializer(mode="wrap")
    def _without_unset(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        content: dict[str, object] = serialize(self)
        return {
            key: value
            for key, value in content.items()
            if value is not None or key in self.model_fields_set
        }


class FileDigest(SparseRecord):
    """A file, relative to the directory of its record."""

    path: str
    bytes: int | None = None
    sha256: str


class ContentDigest(Record):
    """Size and SHA-256 of a file that the record names by its key."""

    bytes: int
    sha256: str
