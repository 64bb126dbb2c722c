"""Fragile APIs of OpenVINO and NNCF. Imports neither."""

from __future__ import annotations

import logging
import sys


def forbid_telemetry() -> None:
    """Turn off the usage reports of openvino and nncf; call before their first import.

    Both send usage to Google Analytics unless the user has opted out by a command. They do so from
    a forked process that can wait for a lock forever, which keeps this process from ending. Both
    skip the reports where the package `openvino_telemetry` cannot be imported.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # import raises ImportError


def quiet_nncf() -> None:
    """Let nncf log errors only.

    `nncf.set_log_level` is not used: it sets the level of handlers, which other loggers may share.
    """
    logging.getLogger("nncf").setLevel(logging.ERROR)
