"""Label texts with a trained or published model."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from finsent.errors import InputError
from finsent.inference.config import ClassifyConfig
from finsent.labels import LABELS
from ray_jobs._cli import Call, Job, Result, main, table_console
from ray_jobs.evaluate import locate


def read_texts(config: ClassifyConfig, arguments: list[str]) -> list[str]:
    """Texts from the arguments, or from the lines of a file or of standard input; blank ones are
    left out.

    Raises:
        InputError: arguments and a file are both given, there is no text at all, or not UTF-8.
    """
    if arguments and config.input:
        raise InputError(
            f"classify.input={config.input!r}: texts are given as arguments, too; choose one"
        )
    source = config.input or (None if arguments else "-")
    if source is None:
        texts = arguments
    elif source == "-":
        texts = _lines(sys.stdin.buffer.read(), "standard input")
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise InputError(f"classify.input={source!r}: no such file; give one text a line")
        texts = _lines(path.read_bytes(), source)
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InputError(
            "classify: no text; give texts as arguments, a file as classify.input=FILE, or lines "
            "on standard input"
        )
    return texts


def _lines(raw: bytes, source: str) -> list[str]:
    try:
        # Not splitlines(): a text may hold U+2028 and the like.
        return [line.removesuffix("\r") for line in raw.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"classify.input={source!r}: not UTF-8 ({error}); convert it") from None


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    texts = read_texts(settings.classify, call.arguments)
    model_dir = locate(settings, settings.classify.model, "classify.model")
    from finsent.inference.engine import Engine

    engine = Engine(model_dir, settings.engine)
    predictions = engine.classify(texts)
    table = Table("label", *LABELS, "abstains", "text")
    for text, found in zip(texts, predictions, strict=True):
        shares = (f"{found.probabilities[label]:.2f}" for label in LABELS)
        abstains = "yes" if found.abstained else ""
        table.add_row(found.label, *shares, abstains, text if len(text) < 200 else text[:199] + "…")
    if len(texts) <= 100:
        table_console().print(table)
    return {
        "model": settings.classify.model,
        "model_version": model_dir.name if model_dir.parent.name == "versions" else None,
        "model_dir": str(model_dir),
        "temperature": engine.temperature,
        "threshold": engine.threshold,
        "predictions": [
            {"text": text, **asdict(p)} for text, p in zip(texts, predictions, strict=True)
        ],
    }


JOB = Job(
    name="classify",
    summary="Label texts given as arguments, as lines of a file (classify.input=FILE), or as "
    "lines of standard input. Write `--` before texts that look like key=value.",
    result="model, model_version, model_dir, temperature, threshold (null: the model never "
    "abstains), predictions (text, label, score, probabilities, abstained), seconds",
    sections=("classify", "engine", "registry", "storage"),
    run=run,
    keeps_run=False,
    arguments="[TEXT ...]",
)

if __name__ == "__main__":
    main(JOB)
