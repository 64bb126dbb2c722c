"""OpenVINO still does without its telemetry, which `finsent.adapters.openvino` relies on."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from finsent.adapters.openvino import quiet_nncf
from finsent.extras import is_installed

IMPORTS = """
import sys
from finsent.adapters.openvino import forbid_telemetry
forbid_telemetry()
import openvino, nncf
sender = sys.modules["openvino_telemetry"]
assert sender is None, f"openvino or nncf replaced the blocked package: {sender}"
"""


@pytest.mark.cost(6, "imports OpenVINO and NNCF in a process")
@pytest.mark.skipif(not is_installed("nncf"), reason="the extra openvino is not installed")
def test_openvino_and_nncf_import_without_telemetry() -> None:
    process = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr


def test_only_the_logger_of_nncf_is_quiet() -> None:
    logger = logging.getLogger("nncf")
    level, root_level = logger.level, logging.getLogger().level
    try:
        quiet_nncf()
        assert not logger.isEnabledFor(logging.WARNING)
        assert logging.getLogger().level == root_level
    finally:
        logger.setLevel(level)
