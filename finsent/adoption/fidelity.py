"""Compare an adopted model with plain transformers on the source's files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finsent.adoption.adopt import ForeignModel
from finsent.errors import InputError, one_line
from finsent.inference.encoder import normalize_texts
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.modeling.weights import neutral_options

_TEXTS = (
    "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn a year earlier.",
    "The company cut its outlook after a weak spring, and the shares fell 8 %.",
    "The annual general meeting is on 4 May.",
    "Up",
    "$TSLA & #EV: Zürich-based Albis earned CHF 5.5 mn, TWICE last year's figure",
    "Sales of paper were flat; those of board fell, but margins held up well. " * 3,
)
_LONG = "Net sales grew in each of the segments, while costs fell. "


def difference(engine: Engine, foreign: ForeignModel) -> float:
    """Return the largest difference of any probability from plain transformers, in fp32.

    Transformers computes text by text and adds up the probabilities of labels that mean one of
    ours. The engine computes all texts in micro-batches.

    Args:
        engine: of the adopted model.
        foreign: the model that was adopted.
    """
    # The engine normalizes texts first: both must read the same.
    texts = normalize_texts([*_TEXTS, _LONG * (foreign.max_length // 8)])
    model, tokenizer = _load(foreign)
    expected = np.stack([_probabilities(text, model, tokenizer, foreign) for text in texts])
    return float(np.abs(engine.probabilities(texts).astype(np.float64) - expected).max())


def check_same(engine: Engine, foreign: ForeignModel, max_difference: float) -> float:
    """Check that an adopted model answers as the foreign model does.

    Returns:
        The largest difference of any probability.

    Raises:
        InputError: the difference is above `max_difference`, or not a number; or the model needs
            other inputs.
    """
    try:
        engine.warm_up()
        largest = difference(engine, foreign)
    except InputError:
        raise
    except Exception as error:  # each architecture fails in its own way
        problem = one_line(error)
        raise InputError(
            f"{foreign.field}: cannot answer a batch of token ids and a mask ("
            f"{type(error).__name__}: {problem}). Use a model that can."
        ) from None
    if not largest <= max_difference:  # also where the difference is not a number
        raise InputError(
            f"{foreign.field}: a probability differs by {largest:.1e} from plain transformers; at "
            f"most {max_difference:.1e} is allowed (adopt.max_difference). The model "
            "needs more than token ids and a mask, or depends on padding. Use another model, or "
            "raise adopt.max_difference."
        )
    return largest


def _load(foreign: ForeignModel) -> tuple[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(
        foreign.path,
        use_safetensors=not foreign.is_pickled,
        weights_only=True,
        local_files_only=True,
        trust_remote_code=False,
        dtype=torch.float32,
        **neutral_options(foreign.config),
    )
    # Where AutoTokenizer would drop rules of tokenizer.json, a note reports that.
    tokenizer: Any = foreign.read.tokenizer
    if not foreign.read.has_other_rules:
        tokenizer = AutoTokenizer.from_pretrained(
            foreign.path, truncation_side="right", trust_remote_code=False
        )
    return model.eval(), tokenizer


@torch.inference_mode()
def _probabilities(
    text: str, model: Any, tokenizer: Any, foreign: ForeignModel
) -> npt.NDArray[np.float64]:
    """Return probabilities of `LABELS`, shape (labels,)."""
    inputs = tokenizer(text, truncation=True, max_length=foreign.max_length, return_tensors="pt")
    probabilities = model(**inputs).logits.double().softmax(-1)[0].tolist()
    sums = dict.fromkeys(LABELS, 0.0)
    for target, probability in zip(foreign.label_map.targets, probabilities, strict=True):
        sums[target] += probability
    return np.array([sums[label] for label in LABELS])
