"""Data sets of hubs: real local folders, and what is said when there is no way to a hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finsent.data.config import SourceConfig
from finsent.data.hubs import TEXT_NAMES, fetch, usual
from finsent.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "set"
    place.mkdir()
    (place / "train.csv").write_text("text,label\nSales rose,2\nSales fell,0\n")
    (place / "test.csv").write_text("text,label\nThe share is listed in Oslo,1\n")
    return place


def texts(uri: str, cache: Path) -> list[str]:
    fetched = fetch(SourceConfig(uri=uri), cache)
    assert fetched.columns == ("text", "label")
    return sorted(pq.read_table(fetched.path)["text"].to_pylist())


def test_a_local_folder_is_read_whole_or_by_split(folder: Path, tmp_path: Path) -> None:
    assert len(texts(f"hf://{folder}", tmp_path / "cache")) == 3
    assert texts(f"hf://{folder}:train", tmp_path / "cache") == ["Sales fell", "Sales rose"]


def test_json_lines_and_the_same_bytes_twice(tmp_path: Path) -> None:
    place = tmp_path / "set"
    place.mkdir()
    rows = [{"text": f"Unit {i} opened", "label": "neutral"} for i in range(30)]
    (place / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first = fetch(SourceConfig(uri=f"hf://{place}"), tmp_path / "a")
    again = fetch(SourceConfig(uri=f"hf://{place}"), tmp_path / "b")
    assert first.path.name == again.path.name
    assert first.path.read_bytes() == again.path.read_bytes()
    assert [*first.path.parent.iterdir()] == [first.path]


def test_class_labels_become_their_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=["bearish", "bullish"])}
    )
    rows = Dataset.from_dict({"text": ["Up", "Down", "Odd"], "label": [1, 0, -1]}, features)
    DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "saved"))
    fetched = fetch(SourceConfig(uri=f"hf://{tmp_path / 'saved'}:train"), tmp_path / "cache")
    assert pq.read_table(fetched.path)["label"].to_pylist() == ["bullish", "bearish", None]


def test_usual_names_help_only_where_the_wanted_column_is_not_there() -> None:
    columns = ("headline", "text", "label")
    assert usual(columns, "headline", TEXT_NAMES) == "headline"
    assert usual(columns, "Sentence", TEXT_NAMES) == "text"
    assert usual(("a", "b"), "Sentence", TEXT_NAMES) == "Sentence"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hf://no/such-set", ["no such data set", "HF_HUB_OFFLINE", "local folder"]),
        ("hf://{folder}:dev", ["no split 'dev'", "train", "test"]),
        ("hf:///no/such/folder", ["is no directory", "save_to_disk"]),
        ("kaggle://owner/name", ["write kaggle://owner/name/file.csv"]),
    ],
)
def test_what_cannot_be_had_is_named(
    folder: Path, tmp_path: Path, uri: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        fetch(SourceConfig(uri=uri.format(folder=folder)), tmp_path / "cache")
    assert all(word in str(caught.value) for word in ["data.sources", *words]), caught.value


KAGGLE = "kaggle://owner/name/file.csv"


def test_kaggle_without_credentials_or_network_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kagglehub")
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    # An address that refuses: the outcome is the same with a network and without one.
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(InputError) as caught:
        fetch(SourceConfig(uri=KAGGLE), tmp_path)
    for word in (KAGGLE, "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "kaggle.json"):
        assert word in str(caught.value)


def test_kaggle_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['kagglehub'] = None\n"
        "from pathlib import Path\n"
        "from finsent.data.config import SourceConfig\n"
        "from finsent.data.hubs import TEXT_NAMES, fetch, usual\n"
        f"fetch(SourceConfig(uri={KAGGLE!r}), Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode
    assert "pip install 'finsent[kaggle]'" in done.stderr.splitlines()[-1]
