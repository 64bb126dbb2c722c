"""Tracking by Weights & Biases: content of an offline run; no failure ends a job."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined] # made at run time

from finsent import adapters
from finsent.config import check
from finsent.evaluation.evaluate import write_results
from finsent.files import sha256_file
from finsent.metrics_record import StoredMetrics
from finsent.tracking.config import TrackingConfig
from finsent.tracking.tracker import TRACKING_FILE, tracked, tracking_mode
from finsent.training.metrics import EpochLine
from finsent.training.metrics_log import MetricsLine, MetricsLog
from ray_jobs._settings import JobSettings
from tests.unit.metrics import epoch_metrics, step_line

pytestmark = pytest.mark.cost(1.5, "starts a W&B run")

SECRET = "Unannounced takeover of Acme by Apex"
RESULT: dict[str, Any] = {
    "split": "test",
    "macro_f1": 0.75,
    "confusion": [[5, 1, 0], [1, 6, 0], [0, 2, 7]],
    "reliability": [{"low": 0.0, "high": 1.0, "rows": 22, "confidence": 0.8, "accuracy": 0.82}],
    "abstention": {"curve": [{"coverage": 1.0, "accuracy": 0.8, "threshold": 0.0}]},
    "mistakes": [
        {
            "text": SECRET,
            "label": "neutral",
            "predicted": "positive",
            "score": 0.9,
            "source": "news",
            "row": 3,
        },
    ],
}
SETTINGS = {"train": {"seed": 7, "epochs": 2}, "data": {"name": "news"}}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT"):  # set by the tracker: undone afterwards
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb" / name.lower()))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written report, drawn before HOME changes: Matplotlib caches its fonts there."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_results(StoredMetrics.model_validate(RESULT), folder, "test")
    return folder


def write_lines(run_dir: Path, *lines: MetricsLine) -> None:
    metrics_log = MetricsLog(run_dir)
    metrics_log.start(0)
    for line in lines:
        metrics_log.append(line)


def chunks(data: bytes) -> Iterator[bytes]:
    """Yield the records of a `.wandb` file: 7 bytes, then LevelDB's log format (32 KiB blocks)."""
    position, parts = 7, b""
    while position + 7 <= len(data):
        space = 32768 - position % 32768
        if space < 7:  # too short for a header: the block ends with padding
            position += space
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        if kind == 0 or position + 7 + size > len(data):  # padding, or a record half written
            return
        parts += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a complete record, or the last part of one
            yield parts
            parts = b""


def test_a_record_half_written_is_not_read(tmp_path: Path) -> None:
    with tracked(TrackingConfig(mode="offline"), tmp_path, SETTINGS):
        pass
    records(tmp_path)
    data = next(tmp_path.glob("wandb/offline-run-*/*.wandb")).read_bytes()
    complete = list(chunks(data))
    for cut in range(len(data)):
        assert list(chunks(data[:cut])) in (complete[:i] for i in range(len(complete) + 1))


def records(run_dir: Path) -> list[Any]:
    """Return all records of the run's offline files, the oldest first."""
    all_records: list[Any] = []
    for file in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        deadline = time.monotonic() + 60  # the service may still write after the run has ended
        while True:
            file_records = [Record.FromString(chunk) for chunk in chunks(file.read_bytes())]
            if file_records and file_records[-1].HasField("exit"):
                break
            assert time.monotonic() < deadline, f"{file} has no end"
            time.sleep(0.05)
        all_records += file_records
    return all_records


def history(run_dir: Path) -> list[dict[str, Any]]:
    rows = [record.history.item for record in records(run_dir) if record.HasField("history")]
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row}
        for row in rows
    ]


def media_folder(run_dir: Path) -> Path:
    return max(run_dir.glob("wandb/offline-run-*/files"))


def media(run_dir: Path, key: str) -> dict[str, Any]:
    """Return the newest value of a key that is a file, of which the run has a copy."""
    within = f"{key}/"
    newest = {
        name.removeprefix(within): value
        for line in history(run_dir)
        for name, value in line.items()
        if name.startswith(within)
    }
    file = media_folder(run_dir) / newest["path"]
    assert (file.stat().st_size, sha256_file(file)) == (newest["size"], newest["sha256"])
    return newest


def test_an_offline_run_holds_config_steps_report_and_model(
    tmp_path: Path, evaluation: Path
) -> None:
    version = tmp_path / "version"
    version.mkdir()
    weights = version / "model.safetensors"
    weights.write_bytes(b"weights" * 10_000)
    config = TrackingConfig(mode="offline", project="news", tags=["a"])
    with tracked(config, tmp_path, SETTINGS) as tracker:
        epoch = EpochLine.of(epoch_metrics(1, macro_f1=0.7), 20)
        write_lines(tmp_path, step_line(10, 1.0), step_line(20, 0.5), epoch)
        tracker.report("test", {"macro_f1": 0.75, "rows": 40}, evaluation)
        gate = {"outcome": "not inferior", "against": "0a1b2c3d4e5f", "forced": False}
        tracker.model(version, "abcdef123456", "champion", gate)
    lines = history(tmp_path)
    assert [line["step/loss"] for line in lines if "step/loss" in line] == [1.0, 0.5]
    assert [line["epoch/macro_f1"] for line in lines if "epoch/macro_f1" in line] == [0.7]
    assert media(tmp_path, "test/report")
    all_text = str(records(tmp_path))
    for phrase in (
        "seed",
        "news",
        "test/macro_f1",
        "finsent-model",
        "abcdef123456",
        "champion",
        "gate/outcome",
        "not inferior",
        "0a1b2c3d4e5f",
    ):
        assert phrase in all_text, phrase
    assert str(weights) in all_text, "uploaded from where it is"
    size = weights.stat().st_size
    copies = [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size == size]
    assert copies == [weights], "and not copied"
    drawn = {file.stem: sha256_file(file) for file in (evaluation / "pictures").glob("*.png")}
    assert drawn.keys() == {"confusion", "reliability", "coverage"}
    for name, digest in drawn.items():
        picture = media(tmp_path, f"test/{name}")
        assert (picture["_type"], picture["sha256"]) == ("image-file", digest)
    record = json.loads((tmp_path / TRACKING_FILE).read_text())
    assert record["sent"] == [20, 1]
    assert record["id"] in all_text
    assert not [*tmp_path.glob("home/*")], "nothing in the home directory"


def test_pictures_are_recorded_by_name_at_the_newest_step(tmp_path: Path, evaluation: Path) -> None:
    """A second process records pictures at the newest step that the first one sent."""
    config = TrackingConfig(mode="offline")
    with tracked(config, tmp_path, SETTINGS):
        write_lines(tmp_path, step_line(10, 1.0))
    files = sorted((evaluation / "pictures").glob("*.png"))
    page = tmp_path / "sweep.html"
    page.write_text("<p>All trials</p>")
    with tracked(config, tmp_path, SETTINGS) as tracker:
        tracker.pictures("dataset", files)
        tracker.pictures("sweep", [], page)
        tracker.pictures("nothing", [])
    for file in files:
        assert media(tmp_path, f"dataset/{file.stem}")["sha256"] == sha256_file(file)
    assert media(tmp_path, "sweep/report")["sha256"] == sha256_file(page)
    assert {line["_step"] for line in history(tmp_path)} == {10}


@pytest.mark.parametrize("texts", [False, True])
def test_texts_of_rows_are_recorded_only_on_request(
    tmp_path: Path, evaluation: Path, monkeypatch: pytest.MonkeyPatch, texts: bool
) -> None:
    """The key is never recorded."""
    key = "a1b2" * 10
    monkeypatch.setenv("WANDB_API_KEY", key)
    run_dir = tmp_path
    config = TrackingConfig(mode="offline", texts=texts)
    with tracked(config, run_dir, SETTINGS) as tracker:
        tracker.report("test", {"macro_f1": 0.75}, evaluation)
    records(run_dir)  # waits until all is written
    contents = [path.read_bytes() for path in run_dir.rglob("*") if path.is_file()]
    assert not any(key.encode() in content for content in contents)
    assert any(SECRET.encode() in content for content in contents) == texts
    page = (media_folder(run_dir) / media(run_dir, "test/report")["path"]).read_text()
    assert (SECRET in page, "This report has no texts of rows" in page) == (texts, not texts)
    assert page.count("<img") == 3
    if texts:
        table = media_folder(run_dir) / media(run_dir, "test/mistakes")["path"]
        mistakes = json.loads(table.read_text())
        assert mistakes["columns"] == ["text", "label", "predicted", "score", "source", "row"]
        assert mistakes["data"] == [[SECRET, "neutral", "positive", 0.9, "news", 3]]


def test_resumed_run_continues_the_tracked_run_and_sends_no_step_twice(tmp_path: Path) -> None:
    config = TrackingConfig(mode="offline")
    with tracked(config, tmp_path, SETTINGS):
        write_lines(tmp_path, step_line(10, 1.0), step_line(20, 0.5))
    first_record = json.loads((tmp_path / TRACKING_FILE).read_text())
    with tracked(config, tmp_path, SETTINGS):
        write_lines(tmp_path, step_line(10, 1.0), step_line(20, 0.5), step_line(30, 0.25))
    second = json.loads((tmp_path / TRACKING_FILE).read_text())
    assert (first_record["id"], first_record["sent"], second["sent"]) == (
        second["id"],
        [20, 0],
        [30, 0],
    )
    assert [line["step/loss"] for line in history(tmp_path)] == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("record", ["{", "[]", "{}"])
def test_a_damaged_record_is_a_warning(
    record: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / TRACKING_FILE).write_text(record)
    with tracked(TrackingConfig(mode="offline"), tmp_path, SETTINGS):
        pass
    assert "tracking: off for this job" in caplog.text
    assert (tmp_path / TRACKING_FILE).read_text() == record


def test_a_package_that_does_not_import_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(adapters, "wandb", raising=False)
    monkeypatch.setitem(sys.modules, "finsent.adapters.wandb", None)
    with tracked(TrackingConfig(mode="offline"), tmp_path, SETTINGS) as tracker:
        tracker.pictures("dataset", [])
    assert "tracking: off for this job (ModuleNotFoundError" in caplog.text


def test_a_password_is_not_recorded(tmp_path: Path) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/x"
    values = {"sweep": {"storage": url}, "tracking": {"mode": "offline"}}
    settings = check(JobSettings, values)
    with tracked(settings.tracking, tmp_path, settings.for_records()):
        pass
    all_text = str(records(tmp_path))
    assert "127.0.0.1:1/x" in all_text and "secret" not in all_text


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    with tracked(TrackingConfig(mode="disabled"), tmp_path, SETTINGS) as tracker:
        tracker.report(None, {"macro_f1": 1.0}, tmp_path)
        tracker.pictures("dataset", [tmp_path / "a.png"])
        tracker.model(tmp_path, "a", None)
    assert [*tmp_path.iterdir()] == []


def test_auto_mode_follows_the_environment_and_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    auto = TrackingConfig()
    assert tracking_mode(auto) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert tracking_mode(auto) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking_mode(auto) == "disabled"
    assert tracking_mode(TrackingConfig(mode="offline")) == "offline"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / ".netrc"
    file.write_text("machine api.wandb.ai login user password " + "k" * 40 + "\n")
    file.chmod(0o600)
    assert tracking_mode(auto) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.example")
    assert tracking_mode(auto) == "offline"


def test_unreachable_server_is_a_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    closed = socket.socket()
    request.addfinalizer(closed.close)
    closed.bind(("127.0.0.1", 0))  # and never listens: no other process gets the port meanwhile
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    # W&B asks a closed port again and again for as long as it may: this test need not wait so long.
    monkeypatch.setattr("finsent.adapters.wandb.INIT_SECONDS", 2)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING), tracked(TrackingConfig(), tmp_path, SETTINGS) as tracker:
        write_lines(tmp_path, step_line(10, 1.0))
        tracker.report(None, {"macro_f1": 1.0}, tmp_path)
    assert time.monotonic() - started < 80  # by itself W&B tries for 90
    assert "tracking: off for this job" in caplog.text
