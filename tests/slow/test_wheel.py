"""The wheel holds all that users need.

tests/unit/test_command.py runs the command in a checkout.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.commands import PROJECT, environment
from tests.installed import distributions, linked_venv


def run(*command: str | Path, cwd: Path) -> str:
    env = environment()
    env.pop("PYTHONPATH", None)  # it may lead to the checkout
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the tracked files alone, so that nothing else can get in."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = run("git", "ls-files", "-z", cwd=PROJECT).split("\0")
    for name in filter(None, tracked):
        if (PROJECT / name).is_file():  # else a link to a folder, or one that is deleted
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, target)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, folder / "source", cwd=folder)
    return next(folder.glob("finsent-*.whl"))


def test_wheel_holds_packages_and_their_files_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"cluster", "finsent", "ray_jobs", "serve_app", "tune"}
    assert {"finsent/py.typed", "ray_jobs/configs/demo.yaml", "serve_app/page/index.html"} <= {
        *names
    }


def test_wheel_runs_the_pipeline_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    # The dependencies of this interpreter. A path within a .pth file adds no .pth files of its own,
    # so the checkout that is installed here is not seen.
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    where = run(python, "-c", "import ray_jobs; print(ray_jobs.__file__)", cwd=empty)
    assert Path(where).is_relative_to(tmp_path / "venv")
    finsent = tmp_path / "venv" / "bin" / "finsent"
    out = run(finsent, "pipeline", "debug", "storage.root=out", cwd=empty)
    assert json.loads(out.splitlines()[-1])["alias"] == "debug"
    arguments = ("classify", "debug.yaml", "storage.root=out", "Profit rose.")
    out = run(finsent, *arguments, cwd=empty)
    assert len(json.loads(out.splitlines()[-1])["predictions"]) == 1


def test_wheel_alone_is_the_client(wheel: Path, tmp_path: Path) -> None:
    """As `pip install finsent` makes it: the required dependencies, no Ray and no torch."""
    python = linked_venv(tmp_path / "venv", distributions([Requirement("httpx")]))
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    code = (
        "from finsent import Client\n"
        "from finsent.client import ServiceError\n"
        "try:\n"
        "    Client('http://127.0.0.1:1', retries=0).predict('Profit rose.')\n"
        "except ServiceError as error:\n"
        "    print(error.code)\n"
    )
    assert run(python, "-c", code, cwd=tmp_path) == "unreachable\n"
    finsent = tmp_path / "venv" / "bin" / "finsent"
    done = subprocess.run((finsent, "demo"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        "error: finsent: only the client of the service is installed. "
        "Run: pip install 'finsent[platform]'\n"
    )
