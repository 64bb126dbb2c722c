"""Label texts with a trained or published model."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from finsent.data.config import SourceConfig
from finsent.data.sources.files import find_texts
from finsent.data.sources.heads import binary_kind, detect, is_json
from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.normalize import is_blank
from finsent.registry.choose_calibration import find_calibration
from finsent.settings import Settings
from finsent.workspace import Workspace
from ray_jobs._cli import Call, Job, Result, main, table_console

log = logging.getLogger(__name__)

_HEAD = 1 << 20  # characters


@dataclass(frozen=True)
class Text:
    """A text to label."""

    text: str
    row: int | None = None  # number of its line or record in the input, from 1


def read_texts(arguments: list[str], settings: Settings) -> list[Text]:
    """Return texts from the arguments, or from a file or standard input, without blank ones.

    Raises:
        InputError: arguments and a file are both given, there is no text at all, or the input is
            not what its name says or lines of UTF-8.
    """
    config = settings.classify
    if arguments and config.input:
        raise InputError(
            f"classify.input={config.input!r}: texts are given as arguments, too; choose one"
        )
    source = config.input or (None if arguments else "-")
    if source is None:
        given = [Text(_no_file(argument)) for argument in arguments]
    elif source == "-":
        given = _lines(sys.stdin.buffer.read(), "standard input", settings.data.text_column)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise InputError(f"classify.input={source!r}: no such file; give one text per line")
        if detect(path.name) == (None, None):
            given = _lines(path.read_bytes(), source, settings.data.text_column)
        else:
            given = _records(path, settings)
    texts = [one for one in given if not is_blank(one.text)]
    if not texts:
        raise InputError(
            "classify: no text; give texts as arguments, a file as classify.input=FILE, or lines "
            "on standard input"
        )
    if len(texts) < len(given) and source is not None:
        log.info("classify: %d blank row(s) are left out", len(given) - len(texts))
    return texts


def _no_file(argument: str) -> str:
    """Refuse the name of a file in the place of a text."""
    is_name = re.fullmatch(r"\S{1,200}\.\w+", argument) is not None
    if is_name and Path(argument).expanduser().is_file():
        raise InputError(
            f"argument {argument!r}: is a file, not a text. Write classify.input={argument}."
        )
    return argument


def _records(path: Path, settings: Settings) -> list[Text]:
    """Read the text column of a table, or the lines of a compressed file."""
    source = SourceConfig(uri=str(path.absolute()))
    [file] = find_texts([source], settings.data, settings.sources_dir, "classify.input")
    texts = []
    for table in file.rows(0):
        columns = (table[name].to_pylist() for name in ("row", "raw_text", "fault"))
        for row, text, fault in zip(*columns, strict=True):
            if fault is not None:
                raise InputError(
                    f"classify.input={str(path)!r}: record {row} cannot be read ({fault}). Mend "
                    "it, or use ray_jobs.predict, which keeps such records with the reason."
                )
            texts.append(Text(text or "", row))
    return texts


def _lines(raw: bytes, source: str, column: str) -> list[Text]:
    where = f"classify.input={source!r}"
    if kind := binary_kind(raw):
        raise InputError(
            f"{where}: is {kind}, not lines of text. Save it as CSV, or give it the ending of its "
            "format."
        )
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 ({error}); convert it") from None
    if "\0" in content:
        raise InputError(f"{where}: has NUL characters: UTF-16, or no text. Convert it to UTF-8.")
    # Not splitlines(): a text may hold U+2028 and the like.
    lines = [line.removesuffix("\r") for line in content.split("\n")]
    _check_no_table(content[:_HEAD], where, column)
    # The end of the last line is not the start of another.
    return [Text(line, row) for row, line in enumerate(lines[:-1] if not lines[-1] else lines, 1)]


def _check_no_table(head: str, where: str, column: str) -> None:
    """Refuse a table or JSON whose name does not say so: each of its lines would pass as a text.

    Args:
        head: the beginning of the input.
        column: name of the text column.
    """
    first = next((line for line in head.split("\n") if line.strip()), "")
    fields = [field.strip().strip('"') for field in re.split(r"[,;|\t]", first)]
    if column in fields:
        raise InputError(
            f"{where}: its first line is a header with the column {column!r}. Name a file that "
            "ends in .csv or .tsv."
        )
    if is_json(head):
        raise InputError(
            f"{where}: is JSON, not lines of text. Name a file of JSON Lines that ends in .jsonl."
        )


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    given = read_texts(call.arguments, settings)
    texts = [one.text for one in given]
    workspace = Workspace.of(settings)
    model_dir = workspace.find_model(settings.classify.model, "classify.model")
    from finsent.inference.engine import Engine
    from finsent.inference.truncation import Truncation, truncation_line

    config = settings.classify
    domain = find_calibration(
        workspace.registry, model_dir, config.calibration, "classify.calibration"
    )
    engine = Engine(model_dir, settings.engine, domain=domain)
    encoded = engine.read(texts)
    predictions = engine.predictions(engine.logits_of([text.ids for text in encoded]))
    truncation = Truncation.of(encoded, engine.max_length).record()
    if line := truncation_line(truncation):
        log.warning("classify: %s", line)
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
        "calibration": engine.calibration.name,
        "temperature": engine.calibration.fitted,
        "threshold": engine.threshold,
        "truncation": truncation,
        "predictions": [
            {**({} if one.row is None else {"row": one.row}), "text": one.text, **asdict(found)}
            for one, found in zip(given, predictions, strict=True)
        ],
    }


JOB = Job(
    name="classify",
    summary="Label texts given as arguments, as a file (classify.input=FILE: a table, of which "
    "the column data.text_column is read, or lines), or as lines of standard input. Write `--` "
    "before texts that look like key=value.",
    result="model, model_version, model_dir, calibration (null: the model's own), temperature, "
    "threshold (null: the model never abstains), truncation (texts cut, tokens left out), "
    "predictions (row of the input, text, "
    "label, score, probabilities, abstained), seconds",
    sections=("classify", "data", "engine", "registry", "storage"),
    run=run,
    keeps_run=False,
    arguments="[TEXT ...]",
)

if __name__ == "__main__":
    main(JOB)
