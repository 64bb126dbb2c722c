"""Texts to token ids, as the model was trained to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer

from finsent.data.normalise import normalise
from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.modeling.layout import REMEDY


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as the model reads it."""

    ids: list[int]  # with the special tokens, at most max_length of them
    truncated: bool  # a part of the text was left out


class Encoder:
    """The tokenizer of a model's directory, without transformers' overhead on each call."""

    def __init__(self, model_dir: Path, max_length: int) -> None:
        """Load it.

        Raises:
            InputError: the tokenizer's file is damaged.
        """
        file = str(model_dir / "tokenizer.json")
        self._by_side: dict[str, Tokenizer] = {}
        for side in ("right", "left"):
            try:
                tokenizer = Tokenizer.from_file(file)
            except Exception as error:  # tokenizers raises nothing more special
                raise InputError(
                    f"{str(model_dir)!r}: tokenizer.json cannot be read ({error}); {REMEDY}"
                ) from None
            tokenizer.enable_truncation(max_length, direction=side)
            tokenizer.no_padding()
            self._by_side[side] = tokenizer

    def __call__(self, texts: Sequence[str], truncate: Truncate) -> list[Encoded]:
        """Normalise and tokenise. With `error`, too long texts are cut as with `right`, and say so.

        Raises:
            InputError: a text is not valid Unicode.
        """
        return [
            Encoded(row.ids, bool(row.overflowing))
            for row in self._tokenizer(truncate).encode_batch_fast(cleaned(texts))
        ]

    def _tokenizer(self, truncate: Truncate) -> Tokenizer:
        return self._by_side["right" if truncate == "error" else truncate]


def cleaned(texts: Sequence[str]) -> list[str]:
    """Texts as ingest leaves them: the model has seen no others.

    Raises:
        InputError: a text is not valid Unicode.
    """
    try:
        found: list[str] = normalise(pa.array(texts, pa.string())).text.to_pylist()
    except UnicodeEncodeError as error:
        raise InputError(f"text is not valid Unicode ({error.reason}); mend it") from None
    return found
