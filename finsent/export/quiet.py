"""Silence the libraries that write graphs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("onnxruntime", "nncf", "torch.onnx", "")  # onnxruntime's tools use the root logger


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide warnings that these libraries address to developers of exporters."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
