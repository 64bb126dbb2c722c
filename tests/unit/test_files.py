"""Files are complete or absent, even when their process fails or dies."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from finsent.errors import InputError
from finsent.files import (
    canonical_json,
    digest,
    link_or_copy,
    make_dir,
    read_json,
    remove_abandoned_below,
    sha256_file,
    staged_dir,
    write_json,
)

HOST = socket.gethostname()
LOCK = fcntl.LOCK_EX | fcntl.LOCK_NB


@contextmanager
def without_root() -> Iterator[None]:
    """Root writes everywhere; be `nobody` for a while where the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def sealed() -> Iterator[Path]:
    """A directory that everybody may read and only root may write."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to other users
        path = Path(name)
        path.chmod(0o555)
        yield path
        path.chmod(0o755)


def staging(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if "staging" in path.name]


# --- staged_dir -----------------------------------------------------------------------------------


def test_staged_dir_replaces_a_directory_only_on_request(tmp_path: Path) -> None:
    final = tmp_path / "pictures"
    for replace, left in ((True, "new.txt"), (False, "old.txt")):
        final.mkdir()
        (final / "old.txt").touch()
        with staged_dir(final, replace=replace) as staged:
            (staged / "new.txt").touch()
        assert [path.name for path in tmp_path.rglob("*.txt")] == [left]
        assert staging(tmp_path) == []
        (final / left).unlink()
        final.rmdir()


def test_a_failure_keeps_the_directory_to_replace(tmp_path: Path) -> None:
    final = tmp_path / "pictures"
    final.mkdir()
    (final / "old.txt").touch()
    with pytest.raises(ZeroDivisionError), staged_dir(final, replace=True):
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.rglob("*")] == ["pictures", "old.txt"]


def test_staged_dir_is_renamed_at_the_end(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "version"
    with staged_dir(final) as staged:
        assert staged.parent == final.parent  # a rename needs one file system
        (staged / "sub").mkdir()
        (staged / "sub" / "a.txt").write_text("whole")
        assert not final.exists()
    assert (final / "sub" / "a.txt").read_text() == "whole"
    assert staging(tmp_path) == []


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_failure_leaves_nothing(tmp_path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind), staged_dir(tmp_path / "version") as staging:
        (staging / "a.txt").write_text("half")
        raise kind
    assert list(tmp_path.iterdir()) == []


def test_first_of_two_publishers_wins(tmp_path: Path) -> None:
    final = tmp_path / "version"
    with staged_dir(final) as second:
        (second / "a.txt").write_text("second")
        with staged_dir(final) as first:
            (first / "a.txt").write_text("first")
    assert (final / "a.txt").read_text() == "first"
    assert staging(tmp_path) == []


def test_an_existing_file_is_kept_and_reported(tmp_path: Path) -> None:
    final = tmp_path / "version"
    final.write_text("not a directory")
    with pytest.raises(OSError), staged_dir(final) as staged:
        (staged / "a.txt").write_text("new")
    assert final.read_text() == "not a directory"
    assert staging(tmp_path) == []


WEEK = 7 * 24 * 3600


@pytest.mark.parametrize(
    ("host", "age", "locked", "swept"),
    [
        (HOST, 0, False, True),  # the lock went with its owner
        (HOST, 0, True, False),
        (HOST, WEEK + 60, True, False),  # a long job
        (HOST, 0, None, False),  # no lock to ask: by age
        (HOST, WEEK + 60, None, True),
        ("elsewhere", WEEK - 60, False, False),  # its locks may not show here
        ("elsewhere", WEEK + 60, False, True),
        ("elsewhere", WEEK + 60, True, False),
    ],
)
def test_only_abandoned_staging_is_removed(
    tmp_path: Path, host: str, age: int, locked: bool | None, swept: bool
) -> None:
    left = tmp_path / f".staging-{host}-0123abcd"
    lock = tmp_path / f"{left.name}.lock"
    (left / "sub").mkdir(parents=True)
    (left / "sub" / "a.txt").write_text("half")
    with ExitStack() as stack:
        if locked is not None:
            fcntl.flock(stack.enter_context(lock.open("w")), LOCK if locked else fcntl.LOCK_UN)
        for path in (left / "sub" / "a.txt", left / "sub", left, *tmp_path.glob("*.lock")):
            os.utime(path, (time.time() - age,) * 2)
        with staged_dir(tmp_path / "version"):
            pass
    assert left.exists() is not swept
    assert lock.exists() is (locked is not None and not swept)


STAGES = """
import sys
from pathlib import Path
from finsent.files import staged_dir
with staged_dir(Path(sys.argv[1]) / "deep" / "version") as staging:
    (staging / "a.txt").write_text("half")
    print("staged", flush=True)
    sys.stdin.read()
"""


def test_staging_of_a_dying_process_is_removed_after_its_death(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STAGES, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline()
        remove_abandoned_below(tmp_path, grace_seconds=0, timeout_seconds=0)
        assert [*tmp_path.rglob("a.txt")], "it lives"
        timer = threading.Timer(0.3, child.kill)
        timer.start()
        remove_abandoned_below(tmp_path, grace_seconds=0, timeout_seconds=30)
        assert [*tmp_path.rglob("*")] == [tmp_path / "deep"]
        assert child.wait() == -signal.SIGKILL
    timer.join()


def test_a_recent_file_keeps_a_staging_directory(tmp_path: Path) -> None:
    left = tmp_path / ".staging-elsewhere-0123abcd"
    (left / "sub").mkdir(parents=True)
    os.utime(left, (0, 0))
    with staged_dir(tmp_path / "version"):
        pass
    assert left.exists()


def test_old_staged_files_and_locks_are_removed(tmp_path: Path) -> None:
    names = [".staging-manifest.json-0123abcd", ".staging-elsewhere-0123abcd.lock"]
    for name in names:
        (tmp_path / name).touch()
    with staged_dir(tmp_path / "young"):
        pass
    assert sorted(staging(tmp_path)) == sorted(names)
    for name in names:
        os.utime(tmp_path / name, (0, 0))
    with staged_dir(tmp_path / "old"):
        pass
    assert staging(tmp_path) == []


def test_a_process_in_another_container_keeps_staging_in_use(tmp_path: Path) -> None:
    """It has our host's name, and does not see our process."""
    script = (
        "import sys; from pathlib import Path; from finsent.files import staged_dir\n"
        "with staged_dir(Path(sys.argv[1])): pass\n"
    )
    isolated = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("a PID namespace needs root")
    with staged_dir(tmp_path / "mine") as staging:
        command = [*isolated, sys.executable, "-c", script, str(tmp_path / "other")]
        subprocess.run(command, check=True)
        assert staging.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "other"}


def test_staging_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from finsent.files import staged_dir\n"
        "with staged_dir(Path(sys.argv[1])) as place:\n"
        "    (place / 'a.txt').write_text('half'); print('ready', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "version")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with staged_dir(tmp_path / "other"):
            assert len(staging(tmp_path)) == 4  # the living one's stays, each with its lock
        process.send_signal(signal.SIGKILL)
    assert len(staging(tmp_path)) == 2
    assert not (tmp_path / "version").exists()
    with staged_dir(tmp_path / "version"):
        pass
    assert staging(tmp_path) == []


# --- JSON -----------------------------------------------------------------------------------------


class Interrupting(dict[str, int]):
    """JSON is interrupted in the middle when it comes here."""

    def items(self) -> NoReturn:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("last", "kind"), [({1}, TypeError), (Interrupting(a=1), KeyboardInterrupt)]
)
def test_failed_write_leaves_the_old_file(
    tmp_path: Path, last: Any, kind: type[BaseException]
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": "Zürich"})
    with pytest.raises(kind):
        write_json(path, {"new": list(range(10_000)), "last": last})
    assert read_json(path) == {"old": "Zürich"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a name without content would be a damaged file."""
    path = tmp_path / "a.json"
    synced = []

    def fsync(number: int) -> None:
        assert not path.exists()
        synced.append(Path(f"/proc/self/fd/{number}").read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    write_json(path, {"a": 1})
    assert synced == [path.read_bytes()]


def test_readers_never_see_a_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, [0] * 5000)
    done = threading.Event()

    def write() -> None:
        for number in range(1, 30):
            write_json(path, [number] * 5000)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        seen.append(json.loads(path.read_text()))
    writer.join()
    assert seen
    assert all(len(values) == 5000 and len(set(values)) == 1 for values in seen)
    assert read_json(path) == [29] * 5000


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (None, "no such file"),
        (b"", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
    ],
)
def test_unreadable_json_is_named(tmp_path: Path, content: bytes | None, phrase: str) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: {phrase}")


def test_digest_depends_on_values_and_not_on_their_order() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1, "b": [1, 2]}) != digest({"a": 1, "b": [2, 1]})
    assert canonical_json({"b": "Zürich", "a": None}) == '{"a":null,"b":"Zürich"}'


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


# --- make_dir -------------------------------------------------------------------------------------


def test_make_dir_creates_parents_and_leaves_no_trace(tmp_path: Path) -> None:
    assert make_dir(tmp_path / "a" / "b", "storage.root") == tmp_path / "a" / "b"
    assert make_dir(tmp_path / "a" / "b", "storage.root").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    "case", ["{tmp}/file", "{tmp}/file/below", "/proc/finsent", "/sys/finsent", "/proc", "{long}"]
)
def test_an_unusable_directory_names_field_path_and_remedy(tmp_path: Path, case: str) -> None:
    (tmp_path / "file").write_text("a regular file")
    path = Path(case.format(tmp=tmp_path, long=tmp_path / ("x" * 300)))
    with pytest.raises(InputError) as caught:
        make_dir(path, "registry.root")
    text = str(caught.value)
    assert text.startswith(f"registry.root={str(path)!r}: cannot write there (")
    assert "Set registry.root to a directory that you may write" in text


@pytest.mark.parametrize("below", ["", "new"])
def test_another_users_directory_is_refused(sealed: Path, below: str) -> None:
    with without_root(), pytest.raises(InputError, match=r"storage\.root=.*Permission denied"):
        make_dir(sealed / below, "storage.root")
    assert list(sealed.iterdir()) == []


# --- links ----------------------------------------------------------------------------------------


def test_a_link_points_to_the_file_and_not_to_its_symlink(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    (tmp_path / "symlink").symlink_to("a")
    link_or_copy(tmp_path / "symlink", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")
    assert not (tmp_path / "b").is_symlink()


def test_a_file_is_copied_where_the_file_system_cannot_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    try:
        memory_dir = tempfile.TemporaryDirectory(dir="/dev/shm")
    except OSError:
        pytest.skip("no second file system")
    with memory_dir as other:
        target = Path(other) / "b"
        if target.parent.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("no second file system")
        link_or_copy(tmp_path / "a", target)
        assert target.read_bytes() == b"weights"
        assert not target.samefile(tmp_path / "a")
