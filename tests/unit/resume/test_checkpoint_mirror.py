"""A run whose checkpoints are in a bucket: killed, resumed on another machine, and undisturbed."""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finsent.files import sha256_file
from finsent.storage import Location, StorageConfig, StorageError
from finsent.training.callbacks import WritingCallbacks
from finsent.training.checkpoint import find_damage, latest_valid, step_checkpoint_name
from finsent.training.checkpoint_mirror import CheckpointMirror, CheckpointUploads
from finsent.training.checkpoint_writer import CheckpointWriter, WriteState
from finsent.training.metrics import EpochMetrics
from finsent.training.metrics_log import METRICS_FILE, MetricsLine, read_steps
from tests.commands import wait_until
from tests.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.unit.loop_bench import Bench, Recorder, Stopped
from tests.unit.resume.recipes import RECIPE

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.cost(3, "trains a tiny model and uploads its checkpoints over HTTP"),
]
OUTAGE_SECONDS = 2.0
FILES = ("model/model.safetensors", "optimizer.safetensors")


def mirror_at(address: str, cache: Path, retry_seconds: float = 30) -> CheckpointMirror:
    config = StorageConfig(cache_dir=str(cache), retry_seconds=retry_seconds)
    return CheckpointMirror(Location.at(address, "storage.root", config) / "runs" / "first")


@pytest.fixture
def mirror(s3_root: str, tmp_path: Path) -> CheckpointMirror:
    return mirror_at(s3_root, tmp_path / "cache")


def published(mirror: CheckpointMirror) -> set[str]:
    return set(mirror.location.trees.names("checkpoints"))


def names_in(run_dir: Path) -> set[str]:
    return {path.name for path in run_dir.glob("checkpoint_*")}


class WritingRecorder(Recorder):
    """Writes a run's directory as a worker does, to the writer of the test."""

    writer: CheckpointWriter
    stops_when: CheckpointMirror | None = None  # has the checkpoint `stop_after`

    def on_start(self, step: int) -> None:
        super().on_start(step)
        self._callbacks = WritingCallbacks(self.folder, self.writer)
        self._callbacks.on_start(step)

    def on_metrics(self, line: MetricsLine) -> None:
        self._callbacks.on_metrics(line)

    def on_checkpoint(self, name: str, write_state: WriteState | None) -> None:
        self._callbacks.on_checkpoint(name, write_state)
        mirror = self.stops_when
        if mirror and name == self.stop_after:
            wait_until(lambda: name in published(mirror), 60, "the upload")
            raise Stopped

    def on_epoch_end(self, metrics: EpochMetrics, write_state: WriteState | None) -> None:
        assert write_state is not None
        self.metrics.append(metrics)
        self.writer.write(self.checkpoint(metrics.epoch).name, write_state)


def trained(
    bench: Bench, mirror: CheckpointMirror, run_dir: Path, stop_after: str | None = None
) -> Recorder:
    """Train in a run's directory as rank 0 does, from the checkpoint that it finds."""
    run_dir.mkdir(exist_ok=True)
    mirror.fetch_missing(run_dir)
    latest = latest_valid(run_dir)
    writer = CheckpointWriter(run_dir, uploads=CheckpointUploads(mirror, run_dir))

    def make(_: Path, stop_after: str | None) -> WritingRecorder:
        recorder = WritingRecorder(run_dir, stop_after=stop_after)
        recorder.writer, recorder.stops_when = writer, mirror
        return recorder

    with writer:
        return bench.run(
            resume=latest.folder if latest else None,
            callbacks=make,  # type: ignore[arg-type] # a factory instead of the class
            stop_after=stop_after,
            **RECIPE,
        )


@pytest.mark.parametrize("step", [5, 20])
def test_a_killed_run_resumes_on_a_machine_that_has_nothing(
    bench: Bench, uninterrupted: Recorder, mirror: CheckpointMirror, tmp_path: Path, step: int
) -> None:
    trained(bench, mirror, tmp_path / "first", step_checkpoint_name(step))
    there = pickle.loads(pickle.dumps(mirror))  # as workers get it
    resumed = trained(bench, there, tmp_path / "second")
    assert resumed.start_step >= step
    for name in FILES:
        assert sha256_file(resumed.last / name) == sha256_file(uninterrupted.last / name), name
    assert published(mirror) == names_in(tmp_path / "second")
    steps = [line.step for line in read_steps(tmp_path / "second")]
    assert steps == sorted({*steps}) and steps[0] == RECIPE["log_every_steps"]
    trained(bench, mirror, tmp_path / "third")
    assert names_in(tmp_path / "third") == published(mirror)
    lines = (tmp_path / "second" / METRICS_FILE).read_bytes()
    assert (tmp_path / "third" / METRICS_FILE).read_bytes() == lines


@pytest.fixture
def proxy(s3_server: str) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server) as running:
        yield running


def through(proxy: FaultProxy, root: str) -> str:
    return f"{root}?endpoint_override={proxy.url.removeprefix('http://')}&scheme=http"


def test_a_bucket_that_fails_for_seconds_costs_retries_alone(
    bench: Bench, uninterrupted: Recorder, proxy: FaultProxy, s3_root: str, tmp_path: Path
) -> None:
    mirror = mirror_at(through(proxy, s3_root), tmp_path / "cache")
    first_upload: list[float] = []

    def fail_at_first(request: str) -> Fault | None:
        if request.startswith("PUT") and not first_upload:
            first_upload.append(time.monotonic())
        is_out = first_upload and time.monotonic() - first_upload[0] < OUTAGE_SECONDS
        return "503" if is_out else None

    proxy.choose = fail_at_first
    run = trained(bench, mirror, tmp_path / "run")
    assert proxy.counts["503"] > 0
    for name in FILES:
        assert sha256_file(run.last / name) == sha256_file(uninterrupted.last / name), name
    assert published(mirror) == names_in(tmp_path / "run")
    mirror.fetch_missing(tmp_path / "copy")
    assert all(find_damage(tmp_path / "copy" / name) is None for name in published(mirror))


def test_a_bucket_that_fails_for_good_ends_the_run_with_one_line(
    uninterrupted: Recorder, proxy: FaultProxy, s3_root: str, tmp_path: Path
) -> None:
    proxy.choose = lambda _: "503"
    mirror = mirror_at(through(proxy, s3_root), tmp_path / "cache", retry_seconds=0.5)
    uploads = CheckpointUploads(mirror, tmp_path)
    name = step_checkpoint_name(5)
    with (
        pytest.raises(StorageError, match=rf"^storage\.root='{s3_root}': .* \(HTTP 503"),
        CheckpointWriter(tmp_path, uploads=uploads) as writer,
    ):
        writer.write(name, _copy_of(uninterrupted.folder / name))
    assert find_damage(tmp_path / name) is None  # stays on this machine
    proxy.choose = lambda _: None
    uploads.finish()
    assert published(mirror) == {name}


def test_checkpoints_that_the_run_deletes_meanwhile_are_left_out(
    uninterrupted: Recorder, proxy: FaultProxy, s3_root: str, tmp_path: Path
) -> None:
    mirror = mirror_at(through(proxy, s3_root), tmp_path / "cache")

    def wait(_: str) -> None:
        time.sleep(0.02)  # a slow server: the run deletes checkpoints while they are uploaded

    proxy.choose = wait
    run_dir, names = tmp_path / "run", sorted(names_in(uninterrupted.folder))
    run_dir.mkdir()
    with CheckpointWriter(run_dir, uploads=CheckpointUploads(mirror, run_dir)) as writer:
        for name in names:
            writer.write(name, _copy_of(uninterrupted.folder / name))
    assert published(mirror) == names_in(run_dir) < {*names}
    mirror.fetch_missing(tmp_path / "copy")
    assert all(find_damage(tmp_path / "copy" / name) is None for name in names_in(run_dir))


def _copy_of(checkpoint: Path) -> WriteState:
    def copy(out: Path) -> None:
        shutil.copytree(checkpoint, out, dirs_exist_ok=True)

    return copy
