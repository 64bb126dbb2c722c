"""Texts to token ids, as the model was trained to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer

from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.modeling.layout import REMEDY
from finsent.normalize import normalize


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as the model reads it."""

    ids: list[int]  # with the special tokens, at most max_length of them
    left_out: int = 0  # tokens of the text beyond them

    @property
    def truncated(self) -> bool:
        """Whether a part of the text was left out."""
        return self.left_out > 0


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text."""

    id: int
    text: str  # the piece of the text; of a special token its name
    special: bool
    # First character in the text, and the one after the last; None: the token is special, or
    # normalization changed the text, so that no position in the caller's text is certain.
    start: int | None
    stop: int | None


class Encoder:
    """The tokenizer of a model's directory, without transformers' overhead on each call."""

    def __init__(self, model_dir: Path, max_length: int) -> None:
        """Load it.

        Raises:
            InputError: the tokenizer's file is damaged.
        """
        self._model_dir, self._max_length = model_dir, max_length
        self._right = self._load("right")

    def _load(self, side: str) -> Tokenizer:
        try:
            tokenizer = Tokenizer.from_file(str(self._model_dir / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing more special
            raise InputError(
                f"{str(self._model_dir)!r}: tokenizer.json cannot be read ({error}); {REMEDY}"
            ) from None
        tokenizer.enable_truncation(self._max_length, direction=side)
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _left(self) -> Tokenizer:
        return self._load("left")  # rarely asked for, and 9 MB

    @cached_property
    def _uncut(self) -> Tokenizer:
        tokenizer = self._load("right")
        tokenizer.no_truncation()
        return tokenizer

    @property
    def vocabulary(self) -> int:
        """Token ids are below this."""
        return int(self._right.get_vocab_size())

    def tokens(self, text: str, special: bool) -> list[Token]:
        """Return all tokens of a text, also those beyond the model's maximum length.

        Args:
            special: with the special tokens that the model reads around a text.

        Raises:
            InputError: the text is not valid Unicode.
        """
        [clean] = cleaned([text])
        # A batch of one: unlike `encode`, `encode_batch` releases the GIL.
        [row] = self._uncut.encode_batch([clean], add_special_tokens=special)
        found = []
        columns = zip(row.ids, row.tokens, row.offsets, row.special_tokens_mask, strict=True)
        for token_id, name, (start, stop), is_special in columns:
            if is_special:
                found.append(Token(token_id, name, True, None, None))
            elif clean == text:
                found.append(Token(token_id, clean[start:stop], False, start, stop))
            else:
                found.append(Token(token_id, clean[start:stop], False, None, None))
        return found

    def decode(self, ids: list[int], skip_special: bool) -> str:
        """Return the text of token ids, as near as a lossy tokenizer allows."""
        # A batch of one: unlike `decode`, `decode_batch` releases the GIL.
        [text] = self._right.decode_batch([ids], skip_special_tokens=skip_special)
        return str(text)

    def __call__(self, texts: Sequence[str], truncate: Truncate) -> list[Encoded]:
        """Normalize and tokenize. With `error`, too long texts are cut as with `right`, and say so.

        Raises:
            InputError: a text is not valid Unicode.
        """
        return encode_rows(self._tokenizer(truncate), cleaned(texts))

    def _tokenizer(self, truncate: Truncate) -> Tokenizer:
        return self._left if truncate == "left" else self._right


def encode_rows(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoded]:
    """Return token ids of texts, cut as the tokenizer is set to."""
    special = tokenizer.num_special_tokens_to_add(False)
    return [
        Encoded(row.ids, sum(len(piece.ids) - special for piece in row.overflowing))
        for row in tokenizer.encode_batch_fast(texts)
    ]


def cleaned(texts: Sequence[str]) -> list[str]:
    """Texts as ingest leaves them: the model has seen no others.

    Raises:
        InputError: a text is not valid Unicode.
    """
    try:
        found: list[str] = normalize(pa.array(texts, pa.string())).text.to_pylist()
    except UnicodeEncodeError as error:
        raise InputError(f"text is not valid Unicode ({error.reason}); mend it") from None
    return found
