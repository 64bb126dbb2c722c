"""A server by LitServe with its own batching, a peer of `benchmarks.serve`.

`python litserve_api.py MODEL.onnx TOKENIZER.json PORT` starts it, by path as for `predecessor.py`.
LitServe's workers import this file again, so the API is a class of the module.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve as ls
from predecessor import answer, load  # type: ignore[import-not-found] # next to this file

BATCH = 32
BATCH_SECONDS = 0.005  # longest wait for a batch to fill


class Api(ls.LitAPI):  # type: ignore[misc]
    """Classify texts in batches."""

    files: tuple[str, str]

    def setup(self, _device: Any) -> None:
        """Load the model in a worker."""
        self.session, self.encoder = load(*self.files, None)

    def decode_request(self, request):  # type: ignore[no-untyped-def] # LitServe makes a schema of a type
        """Return the text of a body."""
        return request["text"]

    def batch(self, inputs: Any) -> Any:
        """Return the texts of a batch as a list."""
        return list(inputs)

    def predict(self, texts: Any) -> Any:
        """Classify the texts of a batch."""
        answers: Any = answer(self.session, self.encoder, texts)
        return answers

    def unbatch(self, output: Any) -> Any:
        """Return one answer per text."""
        return output

    def encode_response(self, output: Any) -> Any:
        """Return the answer, which is JSON already."""
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=BATCH_SECONDS)
    api.files = (sys.argv[1], sys.argv[2])
    server = ls.LitServer(api, accelerator="cpu", timeout=60)
    server.run(
        host="127.0.0.1", port=int(sys.argv[3]), generate_client_file=False, log_level="warning"
    )
