"""Which files are rows: links, leftovers of jobs, tables with a log, partitions."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.sources.files import find_sources
from finsent.errors import InputError
from tests.unit.source_files import GOOD, find_files, names, write
from tests.unit.test_files import without_root
from tests.unit.test_labeling_tools import ROSE_AND_FELL, labels, problem


def refused(source: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        find_files(source)
    return str(caught.value)


# --- links ----------------------------------------------------------------------------------------


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "store/2024/a.csv")
    write(tmp_path, GOOD, "in/own.csv")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "store" / "2024")
    (tmp_path / "store" / "back").symlink_to(tmp_path / "in")  # a circle
    assert names(tmp_path / "in") == ["a.csv", "own.csv"]
    assert names(tmp_path / "in" / "**" / "*.csv") == ["a.csv", "own.csv"]


@pytest.mark.parametrize("link", [".meta/current", "_old/current", ".current"])
def test_a_hidden_link_does_not_hide_the_folder_it_leads_to(tmp_path: Path, link: str) -> None:
    write(tmp_path, GOOD, "data/2024/a.csv")
    hidden = tmp_path / link
    hidden.parent.mkdir(exist_ok=True)
    hidden.symlink_to(tmp_path / "data" / "2024")
    assert names(tmp_path) == ["a.csv"]
    assert names(tmp_path / "**" / "*.csv") == ["a.csv"]
    if link != ".current":
        assert names(hidden.parent / "*" / "*.csv") == ["a.csv"]  # the source names the folder


def test_a_link_to_a_hidden_folder_is_followed(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "in/.store/2024/a.csv")
    (tmp_path / "in" / "current").symlink_to(tmp_path / "in" / ".store" / "2024")
    assert names(tmp_path / "in") == ["a.csv"]
    assert names(tmp_path / "in" / "**" / "*.csv") == ["a.csv"]


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "a.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "gone.csv")
    assert f"{str(tmp_path / 'b.csv')!r} is a broken link" in refused(tmp_path)


@pytest.mark.parametrize(("name", "is_refused"), [("sub", True), (".cache", False)])
def test_a_folder_that_may_not_be_read_is_not_passed_over(name: str, is_refused: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        Path(folder).chmod(0o755)
        write(Path(folder), GOOD, "a.csv")
        closed = write(Path(folder), GOOD, f"{name}/b.csv").parent
        closed.chmod(0)
        try:
            with without_root():
                text = refused(folder) if is_refused else "".join(names(folder))
        finally:
            closed.chmod(0o755)
    assert text == "a.csv" or "cannot be read (Permission denied" in text


# --- leftovers ------------------------------------------------------------------------------------

LEFTOVERS = [
    "_temporary/0/part-0.csv",
    "__MACOSX/a.csv",
    "sub/.hive-staging_1/part-0.csv",
    "sub/__magic1/tasks/part-0.csv",
    ".ipynb_checkpoints/a-checkpoint.csv",
]


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_leftovers_of_jobs_are_no_data(tmp_path: Path, leftover: str) -> None:
    write(tmp_path, GOOD, "out/a.csv")
    write(tmp_path, GOOD, f"out/{leftover}")
    assert names(tmp_path / "out") == ["a.csv"]
    assert names(tmp_path / "out" / "**" / "*.csv") == ["a.csv"]
    with_format = SourceConfig(uri=str(tmp_path / "out"), format="csv")
    assert len(find_sources(DataConfig(sources=[with_format]), tmp_path)) == 1


def test_json_about_a_data_set_is_no_data(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "a.csv")
    for name in ("dataset_infos.json", "sub/manifest.json", "dataset-metadata.json"):
        write(tmp_path, "{}", name)
    assert names(tmp_path) == ["a.csv"]


def test_data_with_a_hidden_name_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.csv", "_b.csv", "_temporary/c.csv"):
        write(tmp_path, GOOD, name)
    with caplog.at_level("INFO"):
        assert names(tmp_path) == ["a.csv"]
    assert "2 files with a hidden name are left out: _b.csv, _temporary/c.csv" in caplog.text


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "_labeled/a.csv")
    assert names(tmp_path / "_labeled") == ["a.csv"]
    assert names(tmp_path / "_labeled" / "*.csv") == ["a.csv"]


def test_a_partition_may_begin_with_an_underscore(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "out/_day=1/a.csv")
    assert names(tmp_path / "out") == ["a.csv"]


# --- tables with a log ----------------------------------------------------------------------------


def test_a_delta_table_is_refused_with_the_way_to_export_it(tmp_path: Path) -> None:
    table = tmp_path / "news"
    for index, action in ((0, "remove"), (1, "add")):
        path = write(table, b"", f"part-{index}.parquet")
        pq.write_table(pa.table({"Sentence": ["a"], "Sentiment": ["positive"]}), path)
        write(table, json.dumps({action: {"path": path.name}}), f"_delta_log/{index:020d}.json")
    for source in (table, tmp_path, table / "*.parquet", tmp_path / "*" / "part-*.parquet"):
        text = refused(source)
        assert "holds a Delta table, whose log says which of its files are valid" in text
        assert "pip install deltalake" in text
        assert f"DeltaTable('{source}').to_pyarrow_table()" in text
    assert names(table / "part-1.parquet") == ["part-1.parquet"]  # the user's own choice


@pytest.mark.parametrize(
    ("mark", "kind"),
    [(".hoodie/hoodie.properties", "Hudi"), ("metadata/v1.metadata.json", "Iceberg")],
)
def test_other_tables_with_a_log_are_refused_too(tmp_path: Path, mark: str, kind: str) -> None:
    write(tmp_path, GOOD, "t/a.csv")
    write(tmp_path, "{}", f"t/{mark}")
    assert f"holds a {kind} table" in refused(tmp_path / "t")


# --- partitions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "txt"])
def test_a_label_may_stand_in_the_path(tmp_path: Path, suffix: str) -> None:
    for text, label in ROSE_AND_FELL.items():
        folder = tmp_path / "hive" / f"label={label}" / "day=1"
        folder.mkdir(parents=True)
        path = folder / f"part-0.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({"text": [text]}), path)
        elif suffix == "jsonl":
            path.write_text(json.dumps({"text": text}) + "\n")
        else:
            path.write_text(f"text\n{text}\n" if suffix == "csv" else f"{text}\n")
    (tmp_path / "hive" / "_SUCCESS").touch()
    settings: dict[str, Any] = {"format": "text"} if suffix == "txt" else {}
    assert labels(tmp_path / "hive", **settings) == ROSE_AND_FELL
    if suffix != "txt":
        chosen = labels(tmp_path / "hive", where={"day": 1}, **settings)
        assert chosen == ROSE_AND_FELL
        assert "leave out all" in problem(tmp_path / "hive", where={"day": 2}, **settings)


def test_a_missing_partition_is_a_missing_label_and_names_are_decoded(tmp_path: Path) -> None:
    write(tmp_path, "text\nAlpha rose\n", "t/mood%20now=positive/a.csv")
    write(tmp_path, "text\nBeta fell\n", "t/mood%20now=__HIVE_DEFAULT_PARTITION__/b.csv")
    assert labels(tmp_path / "t" / "mood%20now=positive", label="mood now") == {
        "Alpha rose": "positive"
    }
    assert "missing_label: 1" in problem(tmp_path / "t", label="mood now")


def test_a_column_of_the_file_wins_over_its_path(tmp_path: Path) -> None:
    write(tmp_path, "text,label\nAlpha rose,positive\n", "t/label=negative/a.csv")
    assert labels(tmp_path / "t") == {"Alpha rose": "positive"}
