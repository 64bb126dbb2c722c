"""Settings of the engine."""

from __future__ import annotations

from typing import Literal

from finsent.config import Section, setting

Truncate = Literal["right", "left", "error"]


class EngineConfig(Section):
    """How texts become probabilities."""

    backend: Literal["auto", "torch", "onnxruntime", "openvino"] = setting(
        "auto",
        "what computes; auto: the fastest that the model was exported for and that kept its "
        "quality, measured at load; evaluation takes torch in fp32 where this says auto",
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = setting(
        "auto", "number format of weights and products; auto: any that kept the model's quality"
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
        "right", "side on which a text longer than the model's max_length is cut; error: refuse it"
    )
    compile: bool = setting(False, "backend torch: compile the model at load (torch.compile)")

    def exact(self) -> EngineConfig:
        """These settings with torch in fp32 where the choice is left open.

        What is measured then does not depend on which machine it is measured on.
        """
        if (self.backend, self.precision) != ("auto", "auto"):
            return self
        return self.replaced(backend="torch", precision="fp32")
