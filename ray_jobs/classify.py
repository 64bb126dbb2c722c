"""Label texts with a trained or published model."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table

from finsent.data.config import SourceConfig
from finsent.data.readers.json_header import is_json
from finsent.data.readers.signatures import binary_kind
from finsent.data.sources.files import find_texts
from finsent.data.sources.format_detection import detect
from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.normalize import is_blank
from finsent.registry.model_handle import Model
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, main, table_console
from ray_jobs._domains import calibration_of

if TYPE_CHECKING:
    from finsent.inference.engine import Prediction

log = logging.getLogger(__name__)

_HEAD_CHARS = 1 << 20  # of the input, which are checked for a table
_MAX_TABLE_ROWS = 100
_MAX_TABLE_CHARS = 200  # of a text


@dataclass(frozen=True)
class ClassifyResult:
    """Result of the job: a prediction for each text."""

    model: str
    model_version: Annotated[str | None, "null: not published"]
    model_dir: str
    calibration: Annotated[str | None, "null: the model's own"]
    temperature: float | None
    threshold: Annotated[float | None, "null: the model never abstains"]
    truncation: Annotated[dict[str, Any], "texts cut, tokens left out"]
    predictions: Annotated[
        list[dict[str, Any]], "row of the input, text, label, score, probabilities, abstained"
    ]


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
    _check_no_table(content[:_HEAD_CHARS], where, column)
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


def run(call: Call) -> ClassifyResult:
    """Run the job."""
    from finsent.inference.engine import Engine  # 0.6 s; wrong arguments fail before
    from finsent.inference.truncation import Truncation, truncation_line

    settings, config = call.settings, call.settings.classify
    texts = read_texts(call.arguments, settings)
    model = Model.find(config.model, settings.workspace, "classify.model")
    domain = calibration_of(settings, model.folder, config.calibration, "classify.calibration")
    engine = Engine(model.folder, settings.engine, domain=domain)
    encoded = engine.encode_checked([text.text for text in texts])
    predictions = engine.predictions(engine.logits_of_rows([text.ids for text in encoded]))
    truncation = Truncation.of(encoded, engine.max_length).record()
    if line := truncation_line(truncation):
        log.warning("classify: %s", line)
    if len(texts) <= _MAX_TABLE_ROWS:
        table_console().print(_table(texts, predictions))
    return ClassifyResult(
        model=config.model,
        model_version=model.version,
        model_dir=str(model.folder),
        calibration=engine.calibration.name,
        temperature=engine.calibration.fitted,
        threshold=engine.threshold,
        truncation=truncation,
        predictions=[
            {
                **({} if text.row is None else {"row": text.row}),
                "text": text.text,
                **asdict(prediction),
            }
            for text, prediction in zip(texts, predictions, strict=True)
        ],
    )


def _table(texts: Sequence[Text], predictions: Sequence[Prediction]) -> Table:
    table = Table("label", *LABELS, "abstains", "text")
    for text, prediction in zip(texts, predictions, strict=True):
        probabilities = (f"{prediction.probabilities[label]:.2f}" for label in LABELS)
        abstains = "yes" if prediction.abstained else ""
        table.add_row(prediction.label, *probabilities, abstains, _shortened(text.text))
    return table


def _shortened(text: str) -> str:
    return text if len(text) < _MAX_TABLE_CHARS else f"{text[: _MAX_TABLE_CHARS - 1]}…"


JOB = Job(
    name="classify",
    summary="Label texts given as arguments, as a file (classify.input=FILE: a table, of which "
    "the column data.text_column is read, or lines), or as lines of standard input. Write `--` "
    "before texts that look like key=value.",
    result=ClassifyResult,
    sections=("classify", "data", "engine", "registry", "storage"),
    run=run,
    keeps_run=False,
    arguments="[TEXT ...]",
)

if __name__ == "__main__":
    main(JOB)
