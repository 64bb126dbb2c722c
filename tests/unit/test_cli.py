"""The command line that all jobs share: arguments, exit codes, streams. No test starts Ray."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finsent.config import load
from finsent.errors import ConfigError, InputError, UserError
from finsent.inference.config import EngineConfig
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_tokenizer, new_classifier, save_classifier
from finsent.modeling.provenance import Provenance
from finsent.scoring.config import ClassifyConfig
from finsent.scoring.texts import Text, read_texts
from finsent.signals import find_cause, is_wanted
from ray_jobs._arguments import parse_arguments
from ray_jobs._cli import Call, Interrupted, Job, Result, invoke, main
from ray_jobs._settings import JobSettings
from ray_jobs.classify import run as classify

pytestmark = pytest.mark.cost(8, "starts processes that import every job")

ROOT = Path(__file__).parents[2]
JOBS = sorted(file.stem for file in (ROOT / "ray_jobs").glob("[!_]*.py"))
Caller = Callable[..., tuple[int, str, str]]


def job(run: Callable[[Call], Result], **settings: Any) -> Job:
    face = {"name": "probe", "summary": "A probe.", "result": "nothing", "keeps_run": False}
    return Job(run=run, **{**face, "sections": ("storage",), **settings})


def nothing(_call: Call) -> Result:
    return {}


PLAIN, WITH_TEXTS = job(nothing), job(nothing, arguments="[TEXT ...]")


def module(name: str) -> Job:
    job: Job = importlib.import_module(f"ray_jobs.{name}").JOB
    return job


@pytest.fixture
def called(capfd: pytest.CaptureFixture[str]) -> Iterator[Caller]:
    """Call a job in this process: exit code, stdout, stderr. Signal handlers are put back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]

    def call(what: Job, *argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(what, argv)
        captured = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    yield call
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "argv", "files", "overrides", "texts"),
    [
        (PLAIN, [], [], [], []),
        (PLAIN, ["a.yaml", "b.yml"], ["a.yaml", "b.yml"], [], []),
        (PLAIN, ["train.seed=1", "a.yaml"], ["a.yaml"], ["train.seed=1"], []),
        (PLAIN, ["run.name=my.yaml"], [], ["run.name=my.yaml"], []),
        (PLAIN, ["data.sources=[a b.csv]"], [], ["data.sources=[a b.csv]"], []),
        (PLAIN, ["ray.address="], [], ["ray.address="], []),
        (WITH_TEXTS, ["Up 5", "a.yaml", "Down"], ["a.yaml"], [], ["Up 5", "Down"]),
        (WITH_TEXTS, ["Q1 margin = 12 %"], [], [], ["Q1 margin = 12 %"]),
        (WITH_TEXTS, ["-5 % in a day"], [], [], ["-5 % in a day"]),
        (
            WITH_TEXTS,
            ["engine.threads=1", "--", "profit=5", "--help", "x.yaml", "--"],
            [],
            ["engine.threads=1"],
            ["profit=5", "--help", "x.yaml", "--"],
        ),
    ],
)
def test_arguments_are_parsed_by_kind(
    what: Job, argv: list[str], files: list[str], overrides: list[str], texts: list[str]
) -> None:
    arguments = parse_arguments(what, argv)
    parsed = (arguments.files, arguments.overrides, arguments.positional)
    assert parsed == (files, overrides, texts)
    assert not arguments.help
    assert not arguments.print_config


def test_flags_are_accepted_in_any_position() -> None:
    assert parse_arguments(PLAIN, ["a.yaml", "-h"]).help
    assert parse_arguments(WITH_TEXTS, ["--help", "Up"]).help
    assert parse_arguments(PLAIN, ["a.yaml", "--print-config", "train.seed=1"]).print_config


@pytest.mark.parametrize(
    ("what", "argv", "words"),
    [
        (PLAIN, ["--epochs=2"], ["'--epochs=2'", "not understood", "key=value", "--help"]),
        (PLAIN, ["Train.epochs=2"], ["'Train.epochs=2'", "not understood"]),
        (PLAIN, ["configs/train.json"], ["'configs/train.json'", "CONFIG.yaml"]),
        (PLAIN, ["-v"], ["'-v'", "--print-config"]),
        (PLAIN, ["=2"], ["'=2'", "key=value"]),
        (PLAIN, ["--", "text"], ["'text'", "probe accepts no texts or names"]),
        (WITH_TEXTS, ["--threads", "2"], ["'--threads'", "not understood"]),
    ],
)
def test_unknown_argument_is_named(what: Job, argv: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_arguments(what, argv)
    assert all(word in str(caught.value) for word in words), str(caught.value)


# --- help and config ------------------------------------------------------------------------------


def keys_of(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:  # an empty mapping is a value
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize("name", JOBS)
def test_help_has_usage_result_and_every_key(called: Caller, name: str) -> None:
    what = module(name)
    assert what.name == name
    code, out, err = called(what, "--help", "no.such.key=1")  # help comes before any check
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: python -m ray_jobs.{name} ")
    assert "\nResult: " in out
    wanted = [*keys_of(JobSettings().model_dump(include={*what.sections}))]
    lines = out.splitlines()
    indices = [i for i, line in enumerate(lines) if line.startswith("  ") and line[2] != " "]
    indices = [i for i in indices if "[]." not in lines[i]]  # keys of a list's items
    assert sorted(lines[i].partition("=")[0].strip() for i in indices) == sorted(wanted)
    assert all(". " in lines[i + 1] for i in indices)  # the type, then a sentence


def test_printed_config_loads_unchanged(called: Caller, tmp_path: Path) -> None:
    overrides = [
        "train.epochs=9",
        "data.sources=['Zürich ä.csv']",
        "ray.num_cpus=6",
        "run.name='007'",
        "engine.threads=null",
    ]
    code, out, err = called(PLAIN, *overrides, "--print-config")
    assert (code, err) == (0, "")
    (tmp_path / "again.yaml").write_text(out, encoding="utf-8")
    assert load(JobSettings, [tmp_path / "again.yaml"], []) == load(JobSettings, [], overrides)
    assert yaml.safe_load(out)["run"]["name"] == "007"
    assert called(PLAIN, str(tmp_path / "again.yaml"), "--print-config")[1] == out


# --- exit codes and streams -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train.epohcs=2"], ["train.epohcs", "Did you mean 'train.epochs'?"]),
        (["train.epochs=zero"], ["train.epochs='zero'", "integer"]),
        (["train.batch_size=1"], ["batch_size=1", "num_workers=2", "Raise batch_size"]),
        (["no-such.yaml"], ["'no-such.yaml'", "no such file"]),
        (["--nonsense"], ["'--nonsense'", "not understood"]),
    ],
)
def test_config_error_is_one_line_and_code_2(
    called: Caller, argv: list[str], words: list[str]
) -> None:
    code, out, err = called(PLAIN, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def failing(error: BaseException, **settings: Any) -> Job:
    def run(_call: Call) -> Result:
        raise error

    return job(run, **settings)


def wrapped(inner: BaseException, levels: int = 1) -> RuntimeError:
    outer = RuntimeError("a worker failed")
    outer.__cause__ = inner if levels == 1 else wrapped(inner, levels - 1)
    return outer


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.csv: is empty;\n  add rows"), 2, "error: a.csv: is empty; add rows"),
        (wrapped(InputError("a.csv: is empty"), 3), 2, "error: a.csv: is empty"),
        (Interrupted(signal.SIGTERM), 128 + 15, "interrupted by SIGTERM; nothing half-written"),
        (Interrupted(signal.SIGINT), 128 + 2, "interrupted by SIGINT; nothing half-written"),
    ],
)
def test_user_error_and_interruption_are_one_line(
    called: Caller, error: BaseException, code: int, line: str
) -> None:
    exit_code, out, err = called(failing(error))
    assert (exit_code, out) == (code, "")
    assert err.count("\n") == 1
    assert err.startswith(line)


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(0), SystemExit("a bug")])
def test_bug_keeps_its_traceback_and_gives_code_1(called: Caller, error: BaseException) -> None:
    code, out, err = called(failing(error))
    assert (code, out) == (1, "")
    assert "Traceback" in err and type(error).__name__ in err


def test_result_is_one_line_of_json_and_stored_in_the_run(called: Caller, tmp_path: Path) -> None:
    what = job(lambda call: {"texts": ["Zürich ↑"], "dir": str(call.run_dir)}, keeps_run=True)
    code, out, _ = called(what, f"storage.root={tmp_path}", "run.name=r1")
    result = json.loads(out)
    assert code == 0
    assert "Zürich ↑" in out  # for people, too
    stored = (tmp_path / "runs" / "r1" / "result.json").read_text(encoding="utf-8")
    assert json.loads(stored) == result
    run_dir = str(tmp_path / "runs" / "r1")
    assert result.pop("seconds") >= 0
    assert result == {"job": "probe", "texts": ["Zürich ↑"], "dir": run_dir, "run_dir": run_dir}


def test_failed_run_stores_no_result(called: Caller, tmp_path: Path) -> None:
    what = failing(InputError("a.csv: is empty"), keeps_run=True)
    assert called(what, f"storage.root={tmp_path}", "run.name=r1")[0] == 2
    files = sorted(file.name for file in (tmp_path / "runs" / "r1").iterdir())
    assert files == ["config.json", "environment.json"]


class WrapperError(Exception):
    """As Ray's errors hold theirs: by `cause`, or by worker."""

    cause: BaseException | None = None
    worker_failures: dict[int, BaseException] | None = None


def by_attribute(error: UserError) -> BaseException:
    outer = WrapperError("task failed")
    outer.cause = wrapped(error)
    return outer


def by_worker(error: UserError) -> BaseException:
    outer = WrapperError("workers failed")
    outer.worker_failures = {0: ValueError("a neighbour left"), 1: by_attribute(error)}
    return outer


@pytest.mark.parametrize("wrap", [wrapped, by_attribute, by_worker])
def test_user_error_is_found_inside_wrapping_errors(
    wrap: Callable[[UserError], BaseException],
) -> None:
    error = InputError("a.csv: is empty")
    assert find_cause(wrap(error), UserError) is error


def test_logs_of_ray_about_a_caught_signal_are_hidden() -> None:
    """A signal may come while Python makes a class, which wraps it in a RuntimeError."""

    def shown(name: str, error: BaseException | None) -> bool:
        info = None if error is None else (type(error), error, None)
        return is_wanted(logging.LogRecord(name, logging.ERROR, "", 1, "", (), info))

    signaled, bug = RuntimeError("__set_name__"), RuntimeError("a bug")
    signaled.__cause__ = Interrupted(signal.SIGTERM)
    assert not shown("ray.data.exceptions", signaled)
    assert shown("ray.data.exceptions", bug) and shown("ray.data", None)
    assert shown("finsent", signaled)
    try:
        raise signaled
    except RuntimeError:  # Ray logs a hint to report the error, without the error
        assert not shown("ray.data.exceptions", None)


def test_bug_is_not_taken_for_a_user_error() -> None:
    outer = WrapperError("workers failed")
    outer.worker_failures, outer.cause = {0: wrapped(ValueError("a bug"))}, outer
    assert find_cause(outer, UserError) is None


NOISY = """
import os, subprocess, sys
from ray_jobs._cli import Job, main
def run(call):
    print("a library prints", flush=True)
    sys.stdout.write("without a line end")
    os.write(1, b"from C")
    subprocess.run(["echo", "a child prints"], check=True)
    return {"answer": 42}
main(Job("probe", "", "", (), run, keeps_run=False), [])
"""


def test_stdout_holds_the_result_only() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISY], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["answer"] == 42
    assert done.stdout.count("\n") == 1
    for words in ("a library prints", "without a line end", "from C", "a child prints"):
        assert words in done.stderr


@pytest.mark.parametrize("module", ["ray_jobs.train", "ray_jobs"])
def test_closed_pipe_is_no_error(module: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "argv", "words"),
    [
        ("train", ["train.epohcs=2"], "Did you mean 'train.epochs'?"),
        ("classify", ["model.max_length=7", "Sales rose"], "model.max_length=7"),
    ],
)
def test_process_reports_a_bad_setting_in_one_line(
    tmp_path: Path, name: str, argv: list[str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"ray_jobs.{name}", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_inference_and_evaluation_load_no_ray() -> None:
    modules = [
        "finsent.inference.engine",
        "finsent.evaluation.evaluate",
        "finsent.evaluation.report",
        "finsent.evaluation.behavior.run",
        "finsent.evaluation.slices",
        "finsent.training.standalone",
        *(f"ray_jobs.{name}" for name in JOBS),
    ]
    code = f"import {', '.join(modules)}, sys; sys.exit('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("modules", "rooms"),
    [
        (
            "finsent.inference.engine, finsent.inference.backends.onnx",
            ["adoption", "data", "evaluation", "export", "registry", "scoring", "training"],
        ),
        (
            "serve_app.service",
            ["adoption", "data", "evaluation", "export", "scoring", "training"],
        ),
        (
            "serve_app.graph",
            ["data.ingest", "data.rows", "data.versions", "evaluation", "export", "training"],
        ),
    ],
)
def test_serving_loads_no_room_that_makes_models(modules: str, rooms: list[str]) -> None:
    """Settings of such rooms (`config`) may be loaded: one type holds all settings."""
    code = f"import {modules}, json, sys; print(json.dumps(sorted(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert process.returncode == 0, process.stderr
    loaded = [name for name in json.loads(process.stdout) if not name.endswith(".config")]
    prefixes = tuple(f"finsent.{room}." for room in rooms)
    assert [name for name in loaded if name.startswith(prefixes)] == []


# --- classify -------------------------------------------------------------------------------------


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
        # Only a line feed ends a line: answers must stay beside the lines of the file.
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
    first = 1 if name == "a.jsonl" else 2
    assert given == [Text("Sales, net, rose", first), Text("Up", first + 2)]


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
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    for word in ("[/b]", "[red]Costs[bold]", ":smile:"):
        assert word in shown


# --- in the process of a caller -------------------------------------------------------------------


def test_invoke_returns_the_output_of_the_command_and_restores_logging() -> None:
    def run(_call: Call) -> Result:
        sys.stdout.write("a library prints\n")
        logging.getLogger("finsent.probe").info("told")
        return {"answer": 42}

    root, ray = logging.getLogger(), logging.getLogger("ray")
    before = (root.handlers[:], root.level, ray.level, signal.getsignal(signal.SIGINT))
    finished = invoke(job(run), [])
    assert (finished.code, finished.result["answer"]) == (0, 42)
    assert finished.out.count("\n") == 1
    assert "a library prints" in finished.err and finished.err.rstrip().endswith("told")
    assert before == (root.handlers[:], root.level, ray.level, signal.getsignal(signal.SIGINT))


def test_invoke_raises_when_a_signal_ends_the_job() -> None:
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        invoke(failing(Interrupted(signal.SIGTERM)), [])
