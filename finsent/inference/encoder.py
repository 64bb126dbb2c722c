"""Turn texts into token ids as training did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer

from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.modeling.model_dir import REMEDY
from finsent.normalize import normalize


@dataclass(frozen=True, slots=True)
class Encoded:
    """The token ids of a text."""

    ids: list[int]  # with special tokens; at most max_length
    cut_tokens: int = 0  # tokens of the text that are not in ids

    @property
    def truncated(self) -> bool:
        """Whether tokens of the text were cut."""
        return self.cut_tokens > 0


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text."""

    id: int
    text: str  # part of the text; the name of a special token
    special: bool
    # Positions of the first character and after the last character in the text; None: the token is
    # special, or normalization changed the text.
    start: int | None
    stop: int | None


class Encoder:
    """The tokenizer of a model's directory, without the overhead of transformers on each call."""

    def __init__(self, model_dir: Path, max_length: int) -> None:
        """Load the tokenizer.

        Args:
            max_length: of a text with its special tokens, in tokens.

        Raises:
            InputError: the tokenizer's file is damaged.
        """
        self._model_dir, self._max_length = model_dir, max_length
        self._right = self._load("right")

    def _load(self, side: str) -> Tokenizer:
        try:
            tokenizer = Tokenizer.from_file(str(self._model_dir / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exceptions
            raise InputError(
                f"{str(self._model_dir)!r}: tokenizer.json cannot be read ({error}). {REMEDY}"
            ) from None
        tokenizer.enable_truncation(self._max_length, direction=side)
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _left(self) -> Tokenizer:
        return self._load("left")  # on demand: rarely used, and 9 MB

    @cached_property
    def _uncut(self) -> Tokenizer:
        tokenizer = self._load("right")
        tokenizer.no_truncation()
        return tokenizer

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the tokenizer knows; ids are smaller."""
        return int(self._right.get_vocab_size())

    def tokens(self, text: str, special: bool) -> list[Token]:
        """Return all tokens of a text, also tokens beyond the model's maximum length.

        Args:
            special: whether to add the special tokens.

        Raises:
            InputError: the text is not valid Unicode.
        """
        [clean] = normalize_texts([text])
        # A batch of one: unlike `encode`, `encode_batch` releases the GIL.
        [row] = self._uncut.encode_batch([clean], add_special_tokens=special)
        tokens = []
        columns = zip(row.ids, row.tokens, row.offsets, row.special_tokens_mask, strict=True)
        for token_id, name, (start, stop), is_special in columns:
            if is_special:
                tokens.append(Token(token_id, name, True, None, None))
            elif clean == text:
                tokens.append(Token(token_id, clean[start:stop], False, start, stop))
            else:
                tokens.append(Token(token_id, clean[start:stop], False, None, None))
        return tokens

    def decode(self, ids: list[int], skip_special: bool) -> str:
        """Return the text of token ids; a tokenizer that lowercases cannot restore the original."""
        # A batch of one: unlike `decode`, `decode_batch` releases the GIL.
        [text] = self._right.decode_batch([ids], skip_special_tokens=skip_special)
        return str(text)

    def __call__(self, texts: Sequence[str], truncate: Truncate) -> list[Encoded]:
        """Normalize and tokenize texts.

        Args:
            truncate: side on which long texts are cut. `error` cuts like `right`; the caller
                refuses texts with `truncated`.

        Raises:
            InputError: a text is not valid Unicode.
        """
        return encode_texts(self._tokenizer(truncate), normalize_texts(texts))

    def _tokenizer(self, truncate: Truncate) -> Tokenizer:
        return self._left if truncate == "left" else self._right


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoded]:
    """Return token ids of texts, truncated by the settings of the tokenizer."""
    special_count = tokenizer.num_special_tokens_to_add(False)
    return [
        Encoded(row.ids, sum(len(piece.ids) - special_count for piece in row.overflowing))
        for row in tokenizer.encode_batch_fast(texts)
    ]


def normalize_texts(texts: Sequence[str]) -> list[str]:
    """Return texts normalized as ingest normalizes the texts of training.

    Raises:
        InputError: a text is not valid Unicode.
    """
    try:
        normalized: list[str] = normalize(pa.array(texts, pa.string())).text.to_pylist()
    except UnicodeEncodeError as error:
        raise InputError(f"text is not valid Unicode ({error.reason}). Correct it.") from None
    return normalized
