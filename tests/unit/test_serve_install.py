"""The service imports only packages of the extra `serve`, or of an extra that it can do without.

`tests/e2e/test_serve_install.py` starts the service without all other packages.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from finsent.errors import InputError
from finsent.extras import EXTRAS, missing_package
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.inference.selection.candidates import candidate_loaders
from serve_app.workers import HOOK
from tests.commands import PROJECT, environment
from tests.installed import distributions
from tests.unit.models import published, saved_model

TABLE = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
SERVE = [*TABLE["dependencies"], *TABLE["optional-dependencies"]["serve"]]
OWN = ("finsent", "ray_jobs", "serve_app", "tune")
START = (
    "ray_jobs.__main__",
    "ray_jobs.serve",
    "serve_app.deployments.gateway",
    "serve_app.graph",
    "serve_app.launch.deployment",
    HOOK.rpartition(".")[0],
)
WITH_TORCH = {"torch", "transformers"}  # of the backend torch, which other backends never import
OF_SWEEPS = {"sqlalchemy"}  # of tune.storage, whose settings the command line reads


def source_of(module: str) -> Path | None:
    path = PROJECT / module.replace(".", "/")
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def type_checking_nodes(tree: ast.AST) -> set[ast.AST]:
    blocks = (node for node in ast.walk(tree) if isinstance(node, ast.If))
    names = (block for block in blocks if ast.unparse(block.test) == "TYPE_CHECKING")
    return {node for block in names for node in ast.walk(block)}


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, at its top or in a function."""
    tree = ast.parse(file.read_text("utf-8"))
    ignored = type_checking_nodes(tree)
    for node in ast.walk(tree):
        if node in ignored:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reached() -> dict[str, set[str]]:
    """Return the packages that the service can import, with our modules that import them."""
    packages: dict[str, set[str]] = {}
    seen, waiting = set[str](), [*START]
    while waiting:
        module = waiting.pop()
        file = source_of(module)
        if module in seen or file is None:
            continue
        seen.add(module)
        for name in imported(file):
            package = name.partition(".")[0]
            if package in OWN:
                waiting += [name, name.rpartition(".")[0]]
            elif package not in sys.stdlib_module_names:
                packages.setdefault(package, set()).add(module)
    return packages


@pytest.mark.cost(3, "parses all modules of the service")
def test_extra_serve_has_every_package_that_the_service_imports() -> None:
    packages = reached()
    assert {"ray", "onnxruntime", "tokenizers", "ftfy", "torch"} <= packages.keys()
    installed = {*map(canonicalize_name, distributions(map(Requirement, SERVE)))}
    providers = importlib.metadata.packages_distributions()
    optional = {module.partition(".")[0] for module in EXTRAS} | WITH_TORCH | OF_SWEEPS
    missing = {
        package: sorted(modules)
        for package, modules in packages.items()
        if package not in optional | {"haproxy_watchdog"}
        and not installed & {canonicalize_name(name) for name in providers.get(package, ())}
    }
    assert not missing


def test_extra_serve_has_no_torch() -> None:
    names = {*map(canonicalize_name, distributions(map(Requirement, SERVE)))}
    assert not names & {"torch", "transformers", "pandas", "datasets", "wandb", "scikit-learn"}


PROGRAM = """
import json, sys
from pathlib import Path

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
engine = Engine(Path(sys.argv[1]), EngineConfig(threads=1))
[answer] = engine.classify(["Profit rose."])
print(json.dumps([answer.label, answer.score, engine.backend.name]))
"""


@pytest.mark.cost(12, "exports a model, and starts a process that computes an answer")
def test_engine_answers_where_torch_cannot_be_imported(tiny: Path, tmp_path: Path) -> None:
    config = EngineConfig(threads=1)
    model = published(tiny, tmp_path, config).get("champion").path
    blocked = ",".join([*WITH_TORCH, "pandas", "scipy", "ray"])
    command = [sys.executable, "-c", PROGRAM, str(model), blocked]
    done = subprocess.run(
        command, cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    label, score, backend = json.loads(done.stdout)
    assert backend == "onnxruntime-fp32"
    [expected] = Engine(model, config).classify(["Profit rose."])
    assert (label, score) == (expected.label, pytest.approx(expected.score, abs=1e-6))


def test_model_without_an_export_names_the_packages(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved_model(tiny, tmp_path / "model")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError) as caught:
        candidate_loaders(model, EngineConfig())
    assert str(caught.value) == (
        f"engine.backend='auto', engine.precision='auto': {str(model)!r} is exported to nothing, "
        "and neither torch nor the library of an export is installed. Export it with `python -m "
        "ray_jobs.export` and publish it, or run pip install 'finsent[platform]'."
    )
    with pytest.raises(InputError) as caught:
        candidate_loaders(model, EngineConfig(backend="torch"))
    assert str(caught.value) == (
        "engine.backend='torch', engine.precision='auto': needs the package torch. Run pip install "
        "'finsent[platform]', or set engine.backend=auto and use an exported model."
    )


def test_absent_package_is_named_and_a_broken_one_is_not() -> None:
    absent = ModuleNotFoundError("No module named 'absent'", name="absent.part")
    assert str(missing_package(absent, "JOB='train'")) == (
        "JOB='train': needs the package absent. Run pip install 'finsent[platform]'."
    )
    broken = ModuleNotFoundError("No module named 'numpy.absent'", name="numpy.absent")
    assert missing_package(broken, "JOB='train'") is None
