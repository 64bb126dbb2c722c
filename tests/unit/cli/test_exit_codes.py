"""Exit codes and error lines of jobs."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from finsent.errors import InputError, UserError
from finsent.signals import find_cause, is_wanted
from ray_jobs._cli import Interrupted
from tests.unit.cli.jobs import PLAIN, Caller, failing, job

pytestmark = pytest.mark.cost(8, "starts processes that import every job")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train.epohcs=2"], ["train.epohcs", "Did you mean 'train.epochs'?"]),
        (["train.epochs=zero"], ["train.epochs='zero'", "integer"]),
        (["train.batch_size=1"], ["batch_size=1", "num_workers=2", "Raise batch_size"]),
        (["no-such.yaml"], ["'no-such.yaml'", "no such file"]),
        (["--nonsense"], ["'--nonsense'", "not understood"]),
    ],
)
def test_config_error_is_one_line_and_code_2(
    called: Caller, argv: list[str], words: list[str]
) -> None:
    code, out, err = called(PLAIN, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def wrapped(inner: BaseException, levels: int = 1) -> RuntimeError:
    outer = RuntimeError("a worker failed")
    outer.__cause__ = inner if levels == 1 else wrapped(inner, levels - 1)
    return outer


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.csv: is empty;\n  add rows"), 2, "error: a.csv: is empty; add rows"),
        (wrapped(InputError("a.csv: is empty"), 3), 2, "error: a.csv: is empty"),
        (Interrupted(signal.SIGTERM), 128 + 15, "interrupted by SIGTERM; nothing half-written"),
        (Interrupted(signal.SIGINT), 128 + 2, "interrupted by SIGINT; nothing half-written"),
    ],
)
def test_user_error_and_interruption_are_one_line(
    called: Caller, error: BaseException, code: int, line: str
) -> None:
    exit_code, out, err = called(failing(error))
    assert (exit_code, out) == (code, "")
    assert err.count("\n") == 1
    assert err.startswith(line)


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(0), SystemExit("a bug")])
def test_bug_keeps_its_traceback_and_gives_code_1(called: Caller, error: BaseException) -> None:
    code, out, err = called(failing(error))
    assert (code, out) == (1, "")
    assert "Traceback" in err and type(error).__name__ in err


def test_result_is_one_line_of_json_and_stored_in_the_run(called: Caller, tmp_path: Path) -> None:
    what = job(lambda call: {"texts": ["Zürich ↑"], "dir": str(call.run_dir)}, keeps_run=True)
    code, out, _ = called(what, f"storage.root={tmp_path}", "run.name=r1")
    result = json.loads(out)
    assert code == 0
    assert "Zürich ↑" in out  # for people, too
    stored = (tmp_path / "runs" / "r1" / "result.json").read_text(encoding="utf-8")
    assert json.loads(stored) == result
    run_dir = str(tmp_path / "runs" / "r1")
    assert result.pop("seconds") >= 0
    assert result == {"job": "probe", "texts": ["Zürich ↑"], "dir": run_dir, "run_dir": run_dir}


def test_failed_run_stores_no_result(called: Caller, tmp_path: Path) -> None:
    what = failing(InputError("a.csv: is empty"), keeps_run=True)
    assert called(what, f"storage.root={tmp_path}", "run.name=r1")[0] == 2
    files = sorted(file.name for file in (tmp_path / "runs" / "r1").iterdir())
    assert files == ["config.json", "environment.json"]


class WrapperError(Exception):
    """As Ray's errors hold theirs: by `cause`, or by worker."""

    cause: BaseException | None = None
    worker_failures: dict[int, BaseException] | None = None


def by_attribute(error: UserError) -> BaseException:
    outer = WrapperError("task failed")
    outer.cause = wrapped(error)
    return outer


def by_worker(error: UserError) -> BaseException:
    outer = WrapperError("workers failed")
    outer.worker_failures = {0: ValueError("a neighbour left"), 1: by_attribute(error)}
    return outer


@pytest.mark.parametrize("wrap", [wrapped, by_attribute, by_worker])
def test_user_error_is_found_inside_wrapping_errors(
    wrap: Callable[[UserError], BaseException],
) -> None:
    error = InputError("a.csv: is empty")
    assert find_cause(wrap(error), UserError) is error


def test_logs_of_ray_about_a_caught_signal_are_hidden() -> None:
    """A signal may come while Python makes a class, which wraps it in a RuntimeError."""

    def shown(name: str, error: BaseException | None) -> bool:
        info = None if error is None else (type(error), error, None)
        return is_wanted(logging.LogRecord(name, logging.ERROR, "", 1, "", (), info))

    signaled, bug = RuntimeError("__set_name__"), RuntimeError("a bug")
    signaled.__cause__ = Interrupted(signal.SIGTERM)
    assert not shown("ray.data.exceptions", signaled)
    assert shown("ray.data.exceptions", bug) and shown("ray.data", None)
    assert shown("finsent", signaled)
    try:
        raise signaled
    except RuntimeError:  # Ray logs a hint to report the error, without the error
        assert not shown("ray.data.exceptions", None)


def test_bug_is_not_taken_for_a_user_error() -> None:
    outer = WrapperError("workers failed")
    outer.worker_failures, outer.cause = {0: wrapped(ValueError("a bug"))}, outer
    assert find_cause(outer, UserError) is None
