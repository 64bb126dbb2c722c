"""The demo's processes: a signal reaches each, and the demo waits for its end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ray_jobs._cli import Finished, invoke
from ray_jobs.demo import JOB

pytestmark = pytest.mark.cost(2, "starts a process for each job of the demo")

RESULT = {"model_version": "1", "macro_f1": 0.8, "accuracy": 0.8, "version_dir": "versions/1"}
# In place of the demo's jobs. STAGE signals the demo, and ends with CODE once a signal has come.
STUB = """
import json, os, signal, sys
from pathlib import Path

name = Path(__file__).stem
if name == os.environ["STAGE"]:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.kill(os.getppid(), signal.SIGTERM)
    signal.sigtimedwait({signal.SIGTERM}, 60)
    Path("ended").write_text(name)
    sys.exit(int(os.environ["CODE"]))
print(json.dumps(RESULT))
"""


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where `python -m ray_jobs.NAME` finds stubs first."""
    package = tmp_path / "ray_jobs"
    package.mkdir()
    for name in ("__init__", "pipeline", "classify", "serve"):
        text = STUB.replace("RESULT", repr(RESULT)) if name != "__init__" else ""
        (package / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STAGE", "none")
    return tmp_path


def demo(*arguments: str) -> Finished:
    """Run the demo. An interruption fails the test, not the session of tests."""
    try:
        return invoke(JOB, arguments)
    except KeyboardInterrupt as interrupted:
        pytest.fail(f"the demo was interrupted by {interrupted}")


def signaled(monkeypatch: pytest.MonkeyPatch, stage: str, code: int) -> None:
    monkeypatch.setenv("STAGE", stage)
    monkeypatch.setenv("CODE", str(code))


@pytest.mark.parametrize("code", [0, 128 + signal.SIGTERM], ids=["serving", "starting"])
def test_signal_while_serving_is_the_ordinary_end(
    stubs: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    signaled(monkeypatch, "serve", code)
    finished = demo()
    assert finished.code == 0, finished.err
    assert {key: finished.result[key] for key in RESULT} == RESULT
    assert (stubs / "ended").read_text() == "serve"


def test_service_that_fails_at_its_end_is_an_error(
    stubs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signaled(monkeypatch, "serve", 1)
    finished = demo()
    assert (finished.code, finished.out) == (1, "")
    assert "serve failed with exit code 1" in finished.err
    assert (stubs / "ended").exists()


@pytest.mark.parametrize("stage", ["pipeline", "classify"])
def test_signal_before_the_page_interrupts_the_demo(
    stubs: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    signaled(monkeypatch, stage, 128 + signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        invoke(JOB, [])
    assert (stubs / "ended").read_text() == stage


def test_demo_without_a_page_serves_nothing(stubs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signaled(monkeypatch, "serve", 0)
    assert demo("once").result["model_version"] == "1"
    assert not (stubs / "ended").exists()
