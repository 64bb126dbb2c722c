"""Texts of the job `classify`, from arguments and files."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.inference.config import EngineConfig
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_tokenizer, new_classifier, save_classifier
from finsent.modeling.provenance import Provenance
from finsent.scoring.config import ClassifyConfig
from finsent.scoring.texts import Text, read_texts
from ray_jobs._cli import Call
from ray_jobs._settings import JobSettings
from ray_jobs.classify import run as classify

pytestmark = pytest.mark.cost(8, "starts processes that import every job")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


def texts_of(source: Path | str | None) -> list[str]:
    config = ClassifyConfig(input=None if source is None else str(source))
    return [text.text for text in read_texts([], JobSettings(classify=config))]


def test_texts_are_read_from_the_arguments() -> None:
    given = read_texts(["Sales rose", " ", "&nbsp;", "\u200b", "Up"], JobSettings())
    assert given == [Text("Sales rose"), Text("Up")]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("Sales rose\nCosts fell\n", ["Sales rose", "Costs fell"]),
        ("Sales rose\r\nCosts fell", ["Sales rose", "Costs fell"]),
        ("\ufeffSales rose\n\n   \nCosts fell\n\n", ["Sales rose", "Costs fell"]),
        ("Zürich ↑, \"a\", 'b'\n", ["Zürich ↑, \"a\", 'b'"]),
        # Only a line feed ends a line, so that each answer belongs to one line of the file.
        ("Up\u2028again\x0c5 %\x85in\x1dMay\nDown", ["Up\u2028again\x0c5 %\x85in\x1dMay", "Down"]),
    ],
    ids=["plain", "carriage returns", "mark and blank lines", "any letters", "other separators"],
)
def test_texts_are_read_from_the_lines_of_a_file_or_standard_input(
    tmp_path: Path, typed: Callable[[bytes], None], content: str, texts: list[str]
) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(content.encode())
    assert texts_of(file) == texts
    typed(content.encode())
    assert texts_of("-") == texts
    typed(content.encode())
    assert texts_of(None) == texts  # a pipe needs no setting


@pytest.mark.parametrize(
    ("source", "content", "arguments", "words"),
    [
        ("texts.txt", b"Sales rose", ["Costs fell"], ["classify.input='texts.txt'", "Choose one"]),
        ("-", b"Sales rose", ["Costs fell"], ["classify.input='-'", "Choose one"]),
        ("none.txt", b"", [], ["classify.input='none.txt'", "no such file", "Name a file"]),
        ("texts.txt", b"Caf\xe9", [], ["classify.input='texts.txt'", "not UTF-8", "Convert"]),
        ("-", b"Caf\xe9", [], ["standard input", "not UTF-8", "Convert"]),
        ("texts.txt", b" \n\n", [], ["no text", "classify.input=FILE"]),
        (None, b"", [], ["no text", "standard input"]),
        (None, b"", ["", " "], ["no text", "arguments"]),
        (None, b"", ["Up", "texts.txt"], ["'texts.txt'", "not a text", "classify.input=texts.txt"]),
        ("texts.txt", b"id,Sentence\n1,Up", [], ["header", "'Sentence'", ".csv"]),
        ("-", b'Sentence\n"Up"', [], ["header", "'Sentence'", ".csv"]),
        ("-", b'\n{"Sentence": "Up"}', [], ["is JSON", ".jsonl"]),
        ("texts.txt", b"[\n  5\n]", [], ["is JSON", ".jsonl"]),
        ("texts.txt", b"PK\x03\x04", [], ["Excel workbook", "Save it as CSV"]),
        ("texts.txt", "Up".encode("utf-16-le"), [], ["NUL", "UTF-16"]),
    ],
)
def test_unusable_texts_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: Callable[[bytes], None],
    source: str | None,
    content: bytes,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_bytes(content)
    typed(content)
    with pytest.raises(InputError) as caught:
        read_texts(arguments, JobSettings(classify=ClassifyConfig(input=source)))
    assert all(word in str(caught.value) for word in words), str(caught.value)


TABLES: dict[str, bytes] = {
    "a.csv": b'id,Sentence\n1,"Sales, net, rose"\n\n2,\n3,Up\n',
    "a.tsv": b"Sentence\tid\nSales, net, rose\t1\n\t2\nUp\t3\n",
    "a.jsonl": b'{"Sentence": "Sales, net, rose"}\n{"Sentence": null}\n{"Sentence": "Up"}',
    "a.csv.gz": gzip.compress(b'Sentence\n"Sales, net, rose"\n""\nUp\n'),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_text_column_of_a_table_is_classified(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(TABLES[name])
    given = read_texts([], JobSettings(classify=ClassifyConfig(input=str(file))))
    first_row = 1 if name == "a.jsonl" else 2
    assert given == [Text("Sales, net, rose", first_row), Text("Up", first_row + 2)]


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,Sentence\n1,Up\n2,Sales, net, rose\n")
    with pytest.raises(InputError, match=r"record 3 cannot be read .*4 fields.*predict"):
        texts_of(file)
    file.write_text("id,headline\n1,Up\n")
    with pytest.raises(InputError, match=r"data\.text_column='Sentence'.*'headline'"):
        texts_of(file)


def test_brackets_in_a_text_are_printed_literally(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["Sales rose [/b] sharply", "[red]Costs[bold] fell :smile:"]
    folder = tmp_path / "model"
    model = new_classifier(Backbone("tiny", str(tiny)), seed=1)
    save_classifier(model, load_tokenizer(str(tiny)), folder, Provenance(max_length=32))
    settings = JobSettings(
        classify=ClassifyConfig(model=str(folder)), engine=EngineConfig(threads=1)
    )
    result = classify(Call(settings, tmp_path, texts))
    assert [prediction.text for prediction in result.predictions] == texts
    stderr = " ".join(capsys.readouterr().err.replace("│", " ").split())
    for word in ("[/b]", "[red]Costs[bold]", ":smile:"):
        assert word in stderr
