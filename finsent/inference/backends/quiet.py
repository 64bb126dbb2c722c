"""OpenVINO's tools without their reports to their makers."""

from __future__ import annotations

import sys


def forbid_telemetry() -> None:
    """Must come before the first import of openvino or nncf.

    They send usage to Google Analytics unless told otherwise, from a forked process that can wait
    for a lock for ever, and with it this process at its end. Without the package they send nothing.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # "is not there" to import
