"""LitServe with its own batching, as its users write it; a peer of `benchmarks.serve`.

`python litserve_api.py MODEL.onnx TOKENIZER.json PORT`, run by path as `predecessor.py` is.
Its workers import this file again, so the API is a class of the module.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve as ls
from predecessor import answer, load  # type: ignore[import-not-found] # beside this file

BATCH = 32
WAIT = 0.005  # seconds that it waits for a batch to fill


class Api(ls.LitAPI):  # type: ignore[misc]
    """Texts in, labels out."""

    files: tuple[str, str]

    def setup(self, _device: Any) -> None:
        """Load the model in a worker."""
        self.session, self.encoder = load(*self.files, None)

    def decode_request(self, request):  # type: ignore[no-untyped-def] # a type would be a schema
        """The text of a body."""
        return request["text"]

    def batch(self, inputs: Any) -> Any:
        """Texts stay a list."""
        return list(inputs)

    def predict(self, texts: Any) -> Any:
        """All of a batch."""
        found: Any = answer(self.session, self.encoder, texts)
        return found

    def unbatch(self, output: Any) -> Any:
        """One answer a text."""
        return output

    def encode_response(self, output: Any) -> Any:
        """JSON as it is."""
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=WAIT)
    api.files = (sys.argv[1], sys.argv[2])
    server = ls.LitServer(api, accelerator="cpu", timeout=60)
    server.run(
        host="127.0.0.1", port=int(sys.argv[3]), generate_client_file=False, log_level="warning"
    )
