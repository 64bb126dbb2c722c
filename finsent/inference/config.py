"""Settings of the engine and of one-off classification."""

from __future__ import annotations

from finsent.config import Section, setting


class EngineConfig(Section):
    """How texts are batched on their way through the model."""

    token_budget: int = setting(
        1024, "padded tokens (rows x longest row) allowed in one micro-batch", unit="tokens", ge=16
    )
    threads: int | None = setting(
        None, "compute threads; null: one a CPU core that this process may use", unit="threads",
        ge=1,
    )  # fmt: skip


class ClassifyConfig(Section):
    """What `ray_jobs.classify` reads."""

    model: str = setting(
        "champion", "model to use: an alias, a model version, or a model's directory"
    )
    input: str | None = setting(
        None, "file with one text a line; `-`: standard input; null: texts from the arguments"
    )
