"""The predecessor's server, a peer of `benchmarks.serve`, and functions that peers share.

`python predecessor.py MODEL.onnx TOKENIZER.json PORT` starts the server. This file is run by its
path and maybe by another interpreter, so it imports nothing of finsent. All peers answer `POST
/predict` of `{"text": ...}` with label and score; infinity has its own API.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 128
# Packages of each peer besides ONNX Runtime and tokenizers.
PACKAGES = {
    "predecessor": ["fastapi"],
    "litserve": ["litserve"],
    "bentoml": ["bentoml"],
    "infinity": ["infinity_emb", "optimum"],
}


def load(model: str, tokenizer: str, threads: int | None) -> tuple[Any, Any]:
    """Return a session and a tokenizer.

    Args:
        model: path of the ONNX file.
        tokenizer: path of tokenizer.json.
        threads: threads of the session; None: ONNX Runtime's default.
    """
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    encoder = Tokenizer.from_file(tokenizer)
    encoder.enable_truncation(MAX_LENGTH)
    encoder.enable_padding()
    return session, encoder


def answer(session: Any, tokenizer: Any, texts: list[str]) -> list[dict[str, Any]]:
    """Return label and score of each text, computed as one batch padded to its longest text."""
    import numpy as np

    rows = tokenizer.encode_batch(texts)
    ids = np.array([row.ids for row in rows], np.int64)
    mask = np.array([row.attention_mask for row in rows], np.int64)
    [logits] = session.run(None, {"input_ids": ids, "attention_mask": mask})
    exp = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exp / exp.sum(1, keepdims=True)
    return [
        {"label": LABELS[int(row.argmax())], "score": float(row.max())} for row in probabilities
    ]


def predecessor(model: str, tokenizer: str, port: int) -> None:
    """Serve by FastAPI and ONNX Runtime, one request at a time in an async handler."""
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
    """Return whether this interpreter has the packages of a peer."""
    needed = (*PACKAGES[name], "onnxruntime", "tokenizers")
    return all(importlib.util.find_spec(package) is not None for package in needed)


if __name__ == "__main__":
    if sys.argv[1] == "--available":
        print(" ".join(name for name in PACKAGES if available(name)))  # noqa: T201
    else:
        predecessor(sys.argv[1], sys.argv[2], int(sys.argv[3]))
