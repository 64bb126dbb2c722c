"""Exports of other weights, and damaged exports, are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finsent.errors import InputError
from finsent.files import write_json
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.inference.export_record import read_exports
from finsent.metrics_record import StoredMetrics
from finsent.modeling.model_dir import EXPORTS
from finsent.registry.registry import Registry
from tests.unit.exports.engines import ALL, EXACT, engine
from tests.unit.models import saved_model

pytestmark = [
    pytest.mark.cost(8, "loads and measures backends"),
    pytest.mark.usefixtures("keep_threads"),
]


def test_exports_of_other_weights_are_refused(exported: Path, tiny: Path, tmp_path: Path) -> None:
    other = saved_model(tiny, tmp_path / "other", seed=4)
    for name in ("onnx", "openvino", EXPORTS):
        (other / name).symlink_to(exported / name)
    with pytest.raises(InputError, match="exports are of other weights"):
        Engine(other, EngineConfig())
    Engine(other, EXACT)  # torch needs none of them


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda record: record.update(schema_version=0), "schema"),
        (lambda record: record["exports"][0].pop("bytes"), r"exports\.0\.bytes: Field required"),
        (lambda record: record["exports"][0].update(file="onnx/none.onnx"), "none.onnx is missing"),
    ],
)
def test_damaged_record_is_refused(copied: Path, change: Any, word: str) -> None:
    record = json.loads((copied / EXPORTS).read_text())
    change(record)
    write_json(copied / EXPORTS, record)
    with pytest.raises(InputError, match=word):
        read_exports(copied)


def test_damaged_graph_is_refused(copied: Path) -> None:
    (copied / "onnx" / "model.onnx").write_bytes(b"half a graph")
    (copied / "openvino" / "model_int8.xml").write_text("<net")
    for name in ("onnxruntime-fp32", "openvino-int8"):
        with pytest.raises(InputError, match="cannot be loaded"):
            engine(copied, name)


def test_registry_takes_exports_along_and_verifies_them(
    own: Path, copied: Path, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry")
    metrics = StoredMetrics(rows=1, macro_f1=1.0, accuracy=1.0, labels={})
    plain = registry.publish(own, metrics, {})
    assert plain.manifest.exports == ()
    (copied / "openvino" / "pytorch_model.bin").write_bytes(b"a pickle")  # not exported
    version = registry.publish(copied, metrics, {})
    assert version.version != plain.version
    assert {export.backend for export in version.manifest.exports} == {"onnxruntime", "openvino"}
    listed = {file.path for file in version.manifest.files}
    assert {"onnx/model.onnx", "openvino/model_int8.bin", EXPORTS} <= listed
    assert not (version.path / "openvino" / "pytorch_model.bin").exists()
    assert Engine(version.path, EngineConfig(threads=1)).rates.keys() == ALL
    (version.path / "openvino" / "model_int8.bin").chmod(0o644)
    with (version.path / "openvino" / "model_int8.bin").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(InputError, match=r"model_int8\.bin does not match its SHA-256"):
        registry.get(version.version)


_QUANTISE = """
import multiprocessing, socket, sys
from pathlib import Path

def refuse(*_, **__):
    raise SystemExit("somebody was asked for something")

socket.getaddrinfo = refuse
started = []
multiprocessing.Process.start = lambda process: started.append(process)
from finsent.export.onnx import write_onnx
from finsent.export.openvino import write_int8_openvino
raw, out = Path(sys.argv[2]), Path(sys.argv[3])
write_onnx(Path(sys.argv[1]), raw)
write_int8_openvino(raw, [[5, 6, 7]] * 16, out)
assert out.is_file()
assert not started, started
"""


def test_exporting_reports_to_nobody(own: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _QUANTISE,
            str(own),
            str(tmp_path / "raw.onnx"),
            str(tmp_path / "model.xml"),
        ],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()
