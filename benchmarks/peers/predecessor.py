"""The predecessor's server, a peer of `benchmarks.serve`, and what other peers share.

Run by path, maybe with another interpreter, so it imports nothing of ours:
`python predecessor.py MODEL.onnx TOKENIZER.json PORT`. All peers but infinity, which has an API
of its own, answer `POST /predict` with `{"text": ...}` and label and score.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 128
# What each needs beside ONNX Runtime and tokenizers.
PACKAGES = {
    "predecessor": ["fastapi"],
    "litserve": ["litserve"],
    "bentoml": ["bentoml"],
    "infinity": ["infinity_emb", "optimum"],
}


def load(model: str, tokenizer: str, threads: int | None) -> tuple[Any, Any]:
    """A session and a tokenizer.

    Args:
        threads: of the session; None: ONNX Runtime's default.
    """
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = Tokenizer.from_file(tokenizer)
    found.enable_truncation(MAX_LENGTH)
    found.enable_padding()
    return session, found


def answer(session: Any, tokenizer: Any, texts: list[str]) -> list[dict[str, Any]]:
    """Label and score of each text, as one batch padded to its longest."""
    import numpy as np

    rows = tokenizer.encode_batch(texts)
    ids = np.array([row.ids for row in rows], np.int64)
    mask = np.array([row.attention_mask for row in rows], np.int64)
    [logits] = session.run(None, {"input_ids": ids, "attention_mask": mask})
    exp = np.exp(logits - logits.max(1, keepdims=True))
    shares = exp / exp.sum(1, keepdims=True)
    return [{"label": LABELS[int(row.argmax())], "score": float(row.max())} for row in shares]


def predecessor(model: str, tokenizer: str, port: int) -> None:
    """FastAPI and ONNX Runtime, one request at a time in an async handler: the student project."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    session, encoder = load(model, tokenizer, None)
    app = FastAPI()

    class Text(BaseModel):
        text: str

    async def predict(body: Text) -> dict[str, Any]:
        return answer(session, encoder, [body.text])[0]

    predict.__annotations__["body"] = Text  # FastAPI could not find a local name
    app.post("/predict")(predict)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def available(name: str) -> bool:
    """Whether this interpreter has what a server needs."""
    needed = (*PACKAGES[name], "onnxruntime", "tokenizers")
    return all(importlib.util.find_spec(package) is not None for package in needed)


if __name__ == "__main__":
    if sys.argv[1] == "--available":
        print(" ".join(name for name in PACKAGES if available(name)))  # noqa: T201
    else:
        predecessor(sys.argv[1], sys.argv[2], int(sys.argv[3]))
