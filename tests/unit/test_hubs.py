"""Data sets of hubs: local folders, and errors where a hub cannot be reached."""

from __future__ import annotations

import errno
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.sources.column_selection import TEXT_NAMES, usual_column
from finsent.data.sources.files import find_sources
from finsent.data.sources.hubs import fetch
from finsent.disk import DiskError
from finsent.errors import InputError

pytestmark = pytest.mark.cost(1.5, "starts a process without a package")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\nSales rose,2\nSales fell,0\n")
    (folder / "test.csv").write_text("text,label\nThe share is listed in Oslo,1\n")
    return folder


def texts(uri: str, cache: Path) -> list[str]:
    fetched = fetch(SourceConfig(uri=uri), cache)
    assert fetched.columns == ("text", "label")
    return sorted(pq.read_table(fetched.path)["text"].to_pylist())


def test_a_local_folder_is_read_whole_or_by_split(folder: Path, tmp_path: Path) -> None:
    assert len(texts(f"hf://{folder}", tmp_path / "cache")) == 3
    assert texts(f"hf://{folder}:train", tmp_path / "cache") == ["Sales fell", "Sales rose"]


def test_json_lines_and_the_same_bytes_twice(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"text": f"Unit {i} opened", "label": "neutral"} for i in range(30)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first_fetch = fetch(SourceConfig(uri=f"hf://{folder}"), tmp_path / "a")
    again = fetch(SourceConfig(uri=f"hf://{folder}"), tmp_path / "b")
    assert first_fetch.path.name == again.path.name
    assert first_fetch.path.read_bytes() == again.path.read_bytes()
    assert [*first_fetch.path.parent.iterdir()] == [first_fetch.path]


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("train.csv", "a,b\n1,2\n1,2,3,4\n", "Expected 2 fields in line 3, saw 4"),
        ("train.jsonl", '{"a": 1}\nnot json\n', "JSON parse error"),
        ("train.parquet", "PAR1xxxx", "Parquet magic bytes not found"),
        ("train.csv", "", "No columns to parse"),
        ("train.csv", "text,label\n", "no data"),
        ("readme.txt", "", "at least one example"),
        ("", "", "doesn't contain any data files"),
        ("set.py", "x = 1", "scripts are no longer supported"),
    ],
)
def test_a_damaged_or_empty_folder_is_one_line_with_the_cause(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: str, cause: str
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    if name:
        (folder / name).write_text(content)
    with pytest.raises(InputError) as caught:
        fetch(SourceConfig(uri=f"hf://{folder}"), tmp_path / "cache", "data.exclude")
    text = str(caught.value)
    assert text.startswith(f"data.exclude: 'hf://{folder}': cannot be loaded ("), text
    assert cause in text
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


def save(folder: Path, **splits: dict[str, list[str]]) -> str:
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    DatasetDict({k: Dataset.from_dict(v) for k, v in splits.items()}).save_to_disk(str(folder))
    return f"hf://{folder}"


def test_splits_that_do_not_go_together_and_none_at_all(tmp_path: Path) -> None:
    uri = save(tmp_path / "saved", train={"text": ["Up"]}, test={"headline": ["Down"]})
    with pytest.raises(
        InputError, match=r"its splits train, test have different columns\. Name one"
    ):
        fetch(SourceConfig(uri=uri), tmp_path / "cache")
    assert fetch(SourceConfig(uri=f"{uri}:test"), tmp_path / "cache").columns == ("headline",)
    empty = save(tmp_path / "empty", train={"text": []})
    with pytest.raises(InputError, match=r"'hf://.*empty': (has no rows|cannot be loaded)"):
        fetch(SourceConfig(uri=empty), tmp_path / "cache")
    assert len([*(tmp_path / "cache").iterdir()]) == 1


def test_a_saved_set_without_splits(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["Up"]}).save_to_disk(str(tmp_path / "saved"))
    assert fetch(SourceConfig(uri=f"hf://{tmp_path / 'saved'}"), tmp_path / "cache").name == "saved"
    with pytest.raises(InputError, match=r"saved:train': it has no splits\. Leave :train out"):
        fetch(SourceConfig(uri=f"hf://{tmp_path / 'saved'}:train"), tmp_path / "cache")


def test_a_full_cache_is_a_clear_error(folder: Path, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    fetch(SourceConfig(uri=f"hf://{folder}"), tmp_path / "cache")  # so that `datasets` has it
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limit[1]))
    try:
        with pytest.raises(InputError) as caught:
            fetch(SourceConfig(uri=f"hf://{folder}"), tmp_path / "small")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert str(caught.value).startswith("storage.root='"), caught.value
    assert list((tmp_path / "small").iterdir()) == []


def test_the_name_of_a_folder_does_not_change_with_its_rows(folder: Path, tmp_path: Path) -> None:
    def names() -> list[str]:
        sources = [SourceConfig(uri=f"hf://{folder}{split}") for split in ("", ":test")]
        config = DataConfig(sources=sources, label_noise={"enabled": False})
        return [file.name for file in find_sources(config, tmp_path / "cache")]

    assert names() == ["set", "set:test"]
    (folder / "train.csv").write_text("text,label\nSales rose a lot,2\n")
    assert names() == ["set", "set:test"]


def test_a_file_that_is_there_is_not_replaced_under_its_readers(
    folder: Path, tmp_path: Path
) -> None:
    path = fetch(SourceConfig(uri=f"hf://{folder}"), tmp_path / "cache").path
    before = path.stat()
    assert fetch(SourceConfig(uri=f"hf://{folder}"), tmp_path / "cache").path == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


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
    assert usual_column(columns, "headline", TEXT_NAMES) == "headline"
    assert usual_column(columns, "Sentence", TEXT_NAMES) == "text"
    assert usual_column(("a", "b"), "Sentence", TEXT_NAMES) == "Sentence"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hf://no/such-set", ["no such data set", "HF_HUB_OFFLINE", "local folder"]),
        ("hf://{folder}:dev", ["no split 'dev'", "train", "test"]),
        ("hf:///no/such/folder", ["is not a directory", "save_to_disk"]),
        ("hf://", ["Write hf://owner/name[/config][:split]"]),
        ("hf://:train", ["Write hf://owner/name[/config][:split]"]),
        ("hf://{folder}:", ["Write hf://owner/name[/config][:split]"]),
        ("kaggle://owner/name", ["Write kaggle://owner/name/file.csv"]),
    ],
)
def test_what_cannot_be_had_is_named(
    folder: Path, tmp_path: Path, uri: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        fetch(SourceConfig(uri=uri.format(folder=folder)), tmp_path / "cache")
    assert all(word in str(caught.value) for word in ["data.sources", *words]), caught.value


KAGGLE = "kaggle://owner/name/file.csv"


def test_kaggles_files_are_kept_where_every_machine_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kagglehub = pytest.importorskip("kagglehub")
    home = tmp_path / "home" / "file.csv"
    home.parent.mkdir()
    home.write_text("Sentence,Sentiment\nSales rose,positive\n")
    monkeypatch.setattr(kagglehub, "dataset_download", lambda *_, **__: str(home))
    config = DataConfig(sources=[SourceConfig(uri=KAGGLE)])
    [file] = find_sources(config, tmp_path / "cache")
    assert (file.name, file.origin) == ("owner/name/file.csv", KAGGLE)
    assert Path(file.location.uri).is_relative_to(tmp_path / "cache")
    [again] = find_sources(config, tmp_path / "cache")
    assert again.location == file.location
    home.unlink()
    assert [t["raw_text"].to_pylist() for t in file.rows(0)] == [["Sales rose"]]
    home.write_text("Sentence,Sentiment\nSales fell,negative\n")
    [new] = find_sources(config, tmp_path / "cache")
    assert new.name == file.name
    assert new.sha256 != file.sha256
    assert sum(map(len, file.rows(0))) == 1  # the old file stays complete


def test_kaggle_on_a_full_disk_names_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kagglehub = pytest.importorskip("kagglehub")

    def fail(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setattr(kagglehub, "dataset_download", fail)
    with pytest.raises(DiskError) as caught:
        fetch(SourceConfig(uri=KAGGLE), tmp_path / "cache")
    assert str(caught.value).startswith(f"KAGGLEHUB_CACHE='{tmp_path}/kaggle': No space left")


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
    assert "no connection to " in str(caught.value)
    assert "Pool(" not in str(caught.value)


def test_kaggle_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['kagglehub'] = None\n"
        "from pathlib import Path\n"
        "from finsent.data.config import SourceConfig\n"
        "from finsent.data.sources.hubs import fetch\n"
        f"fetch(SourceConfig(uri={KAGGLE!r}), Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode
    assert "pip install 'finsent[kaggle]'" in done.stderr.splitlines()[-1]


def test_words_that_pandas_takes_for_missing_stay_words_as_under_a_plain_path(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    texts = ["NA", "null", "None", "N/A", "nan"]
    (folder / "train.csv").write_text("text,label\n" + "".join(f"{t},neutral\n" for t in texts))
    for uri in (f"hf://{folder}", str(folder / "train.csv")):
        source = SourceConfig(uri=uri, text="text", label="label")
        (file,) = find_sources(DataConfig(sources=[source]), tmp_path / "cache")
        assert [t for table in file.rows(0) for t in table["raw_text"].to_pylist()] == texts
