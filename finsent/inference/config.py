"""Settings of the engine."""

from __future__ import annotations

from typing import Literal

from finsent.config import Section, setting

Truncate = Literal["right", "left", "error"]


class EngineConfig(Section):
    """The backend of the engine and its limits."""

    backend: Literal["auto", "torch", "onnxruntime", "openvino"] = setting(
        "auto",
        "library that computes; auto: the fastest one with an export that kept the model's "
        "quality, measured at load; evaluation uses torch in fp32 where this is auto",
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = setting(
        "auto",
        "number format of the computation; auto: any format with an export that passed the parity "
        "gate",
    )
    threads: int | None = setting(
        None,
        "compute threads; null: one per CPU core that this process may use",
        unit="threads",
        ge=1,
    )
    token_budget: int = setting(
        1024, "padded tokens (rows x longest row) allowed in one micro-batch", unit="tokens", ge=16
    )
    truncate: Truncate = setting(
        "right", "side on which a text beyond the model's max_length is cut; error: refuse the text"
    )
    compile: bool = setting(False, "backend torch: compile the model at load (torch.compile)")

    def exact(self) -> EngineConfig:
        """Return these settings with torch in fp32 where backend and precision are auto.

        Metrics then do not depend on the machine.
        """
        if (self.backend, self.precision) != ("auto", "auto"):
            return self
        return self.replaced(backend="torch", precision="fp32")
