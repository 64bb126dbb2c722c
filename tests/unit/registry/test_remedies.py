"""Errors on damaged versions and calibrations end with a sentence that states the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.modeling.domain_calibration import DomainCalibration
from finsent.registry.calibrations import Calibrations
from finsent.registry.registry import Registry
from tests.unit.models import domain_content
from tests.unit.registry.model_dirs import Publish, refusal


def test_a_damaged_version(registry: Registry, publish: Publish) -> None:
    version = publish(0)
    (version.path / "tokenizer.json").unlink()
    text = refusal(lambda: registry.get(version.version))
    fix = f"Use another version, or delete {str(version.path)!r} and publish the model again."
    assert text.endswith(f"is damaged: tokenizer.json is missing. {fix}")


@pytest.mark.parametrize("content", ["[]", "{", '{"name": 1}'])
def test_a_damaged_calibration(content: str, tmp_path: Path) -> None:
    calibration = DomainCalibration.of(domain_content())
    store = Calibrations(tmp_path, calibration.model_version)
    store.publish(calibration)
    file = store.path(calibration.name)
    file.chmod(0o644)
    file.write_text(content)
    text = refusal(lambda: store.get(calibration.name, "serve.calibrations"))
    assert text.startswith(f"{file}: is damaged (")
    assert text.endswith("). Delete the file and calibrate again.")
