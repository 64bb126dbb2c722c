"""Settings of the model."""

from __future__ import annotations

from finsent.config import Section, setting


class ModelConfig(Section):
    """Which pre-trained encoder is fine-tuned."""

    backbone: str = setting(
        "bert-base-uncased",
        "pre-trained encoder: `demo` (MiniLM from the extra `demo`, no network), a local folder in "
        "Hugging Face layout, or a hub id; with random weights, for dry runs and speed: `tiny` and "
        "`random-base` (BERT-base's shape)",
        min_length=1,
    )
    revision: str | None = setting(None, "commit, tag or branch of a hub id; null: its default")
    max_length: int = setting(
        128, "longest input; the rest of a text is cut off", unit="tokens", ge=8, le=512
    )
