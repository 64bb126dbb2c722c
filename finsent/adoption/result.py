"""The result of the job `adopt`: JSON on stdout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from finsent.inference.export_record import Export
from finsent.registry.gate import Gate


@dataclass(frozen=True)
class AdoptResult:
    """Result of `adopt`: the version that a foreign model became."""

    source: str
    revision: str | None
    license: str | None
    model_version: Annotated[str | None, "null: refused"]
    alias: str | None
    version_dir: str | None
    gate: Annotated[Gate | None, "as of `ray_jobs.publish`"]
    label_map: dict[str, str]
    absent_labels: Annotated[list[str], "never answered"]
    max_length: int
    macro_f1: Annotated[float | None, "null: not measured"]
    accuracy: Annotated[float | None, "null: not measured"]
    max_difference: Annotated[float, "from transformers, of any probability"]
    temperature: Annotated[float | None, "null: not calibrated"]
    exports: Annotated[dict[str, Export], "as of `ray_jobs.export`"]
