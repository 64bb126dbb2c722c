"""Help texts of settings, and directories below the storage root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic.fields import FieldInfo

from finsent.config import Section, help_lines, load, setting
from finsent.runs import new_run_name
from ray_jobs._settings import JobSettings


def fields(schema: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in schema.model_fields.items():
        yield f"{prefix}{name}", field
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from fields(field.annotation, f"{prefix}{name}.")


# --- printing -------------------------------------------------------------------------------------


class Inner(Section):
    """A section in a section."""

    share: float = setting(0.5, "a share", unit="fraction", gt=0, le=1)


class Outer(Section):
    """A section."""

    mode: Literal["fast", "exact"] = setting("fast", "how it is done")
    paths: list[str] = setting(lambda: ["a"], "where to look", min_length=1)
    inner: Inner = setting(Inner, "the inner one")


class Schema(Section):
    """A schema."""

    outer: Outer = setting(Outer, "wanted")
    other: Inner = setting(Inner, "not wanted")


def test_help_has_type_unit_limits_default_and_meaning() -> None:
    assert list(help_lines(Schema, ["outer"])) == [
        "  outer.mode=fast",
        "      fast|exact. how it is done",
        "  outer.paths=[a]",
        "      list of str. where to look",
        "  outer.inner.share=0.5",
        "      float, fraction, > 0 and <= 1. a share",
    ]


@pytest.mark.parametrize("section", list(JobSettings.model_fields))
def test_help_lists_every_key_of_a_section_and_no_other(section: str) -> None:
    lines = list(help_lines(JobSettings, [section]))
    listed = [line.strip().split("=")[0] for line in lines if re.match(r"  \w", line)]
    listed = [key for key in listed if "[]" not in key]
    expected = {
        key: field
        for key, field in fields(JobSettings)
        if key.startswith(f"{section}.")
        and not (isinstance(field.annotation, type) and issubclass(field.annotation, Section))
    }
    assert listed == list(expected)
    assert all(str(field.description) in "\n".join(lines) for field in expected.values())


def test_every_setting_has_a_meaning() -> None:
    assert [
        key for key, field in fields(JobSettings) if not (field.description or "").strip()
    ] == []


# --- directories ----------------------------------------------------------------------------------


def test_directories_are_below_the_storage_root(tmp_path: Path) -> None:
    settings = load(JobSettings, [], [f"storage.root={tmp_path}", "data.name=filings"])
    assert settings.workspace.versions(settings.data.name).path == tmp_path / "datasets" / "filings"
    assert settings.workspace.runs_dir == tmp_path / "runs"
    assert settings.workspace.registry.path == tmp_path / "registry"
    assert settings.workspace.sources_dir == tmp_path / "sources"
    assert settings.workspace.backbones_dir == tmp_path / "backbones"
    elsewhere = load(JobSettings, [], [f"registry.root={tmp_path / 'models'}"])
    assert elsewhere.workspace.registry.path == tmp_path / "models"


def test_relative_root_counts_from_home_inside_a_ray_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert JobSettings().workspace.root.path == tmp_path / "artifacts"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert JobSettings().workspace.root.path == tmp_path / "home" / "finsent" / "artifacts"
    assert load(JobSettings, [], ["storage.root=/srv/x"]).workspace.root.path == Path("/srv/x")


def test_new_run_names_are_valid_and_differ() -> None:
    names = {new_run_name("train") for _ in range(20)}
    assert len(names) > 15
    assert all(load(JobSettings, [], [f"run.name={name}"]).run.name == name for name in names)


def test_help_lists_the_keys_of_a_lists_items_once() -> None:
    lines = list(help_lines(JobSettings, ["data", "evaluate"]))
    listed = [line.strip().split("=")[0] for line in lines if "[]." in line.split("=")[0]]
    assert {key.partition("[]")[0] for key in listed} == {"data.sources"}
    assert {"data.sources[].uri", "data.sources[].label_map"} <= set(listed)
