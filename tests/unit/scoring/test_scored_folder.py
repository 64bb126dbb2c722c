"""The output folder of a scoring job: names, records, use as an input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.sources.files import find_sources, find_texts
from finsent.errors import InputError
from finsent.scoring.records import Counts, ScoredFile
from finsent.scoring.scored import ScoredDir, choose_inputs, output_names
from tests.unit.scoring.scored_files import find, write


def names_of(*entries: Path | SourceConfig) -> list[str]:
    return output_names(find(*entries), "csv")


def test_a_name_depends_on_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    july = write(tmp_path / "in" / "2024-07-01" / "news.csv")
    august = write(tmp_path / "in" / "2024-08-01" / "news.csv")
    assert names_of(july) == ["news.csv.csv"]
    assert names_of(july.parent) == ["news.csv.csv"]
    both = ["2024-07-01/news.csv.csv", "2024-08-01/news.csv.csv"]
    assert names_of(tmp_path / "in") == both
    assert names_of(tmp_path / "in" / "2024-*" / "news.csv") == both
    assert names_of(tmp_path / "in" / "2024-0[7]-01" / "news.csv") == both[:1]
    named = SourceConfig(uri=str(july), name="july")
    assert names_of(named) == ["july.csv"]
    assert names_of(SourceConfig(uri=str(tmp_path / "in"), name="all")) == [
        f"all/{name}" for name in both
    ]
    with pytest.raises(InputError, match=r"'news\.csv\.csv'.*name: NAME"):
        names_of(july, august)
    assert names_of(named, august) == ["july.csv", "news.csv.csv"]
    # Below the working directory the path is that from there.
    monkeypatch.chdir(tmp_path / "in")
    assert names_of(Path("2024-07-01/news.csv"), Path("2024-08-01")) == both
    assert names_of(august, july) == both[::-1]


def test_an_object_s_key_leads_to_no_place_outside_the_output(tmp_path: Path) -> None:
    [local] = find(write(tmp_path / "x.csv"))
    location = replace(local.location, uri="s3://b/in/../../../etc/x.csv")
    file = replace(local, location=location, settings=SourceConfig(uri="s3://b/in/"))
    with pytest.raises(InputError, match=r"predict\.input: 's3://b/in/\.\..*outside.*name: NAME"):
        output_names([file], "csv")
    named = replace(file, settings=SourceConfig(uri="s3://b/in/", name="in"))
    assert output_names([named], "csv") == ["in/etc/x.csv.csv"]


def test_a_name_is_not_replaced_by_another_input_s_answers(tmp_path: Path) -> None:
    [july] = find(write(tmp_path / "2024-07-01" / "news.csv"))
    [august] = find(write(tmp_path / "2024-08-01" / "news.csv", 2))
    scored = ScoredDir(tmp_path / "out")
    scored.path.mkdir()
    record = ScoredFile(input=july.origin, identity="a", backend="torch-fp32", finished=False)
    scored.update("news.csv.csv", record)
    scored.check_free("news.csv.csv", august)  # nothing is there yet
    assert scored.finished("news.csv.csv", "a") is None
    scored.update("news.csv.csv", record.finish(Counts()))
    assert scored.finished("news.csv.csv", "a") is None  # the file has gone
    (scored.path / "news.csv.csv").touch()
    assert scored.finished("news.csv.csv", "a") is not None
    assert scored.finished("news.csv.csv", "b") is None
    scored.check_free("news.csv.csv", july)
    with pytest.raises(InputError, match=r"holds the answers for .*2024-07-01.*2024-08-01"):
        scored.check_free("news.csv.csv", august)
    (scored.path / "mine.csv.csv").touch()
    with pytest.raises(InputError, match=r"'mine\.csv\.csv' exists and was not written"):
        scored.check_free("mine.csv.csv", july)
    with pytest.raises(InputError, match=r"is a file"):
        scored.check_free("mine.csv.csv/b.csv", july)


def test_scored_files_are_no_input(tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "inbox" / "scored"
    news = write(inbox / "news.csv")
    answers = write(out / "deep" / "news.csv.csv")
    record = ScoredFile(input="news.csv", identity="a", backend="torch-fp32", finished=True)
    ScoredDir(out).update("deep/news.csv.csv", record)

    def chosen(uri: Path, output: Path) -> list[Path]:
        files = find_texts(
            [SourceConfig(uri=str(uri))],
            DataConfig(text_column="text"),
            tmp_path,
            "predict.input",
            choose_inputs(output),
        )
        return [Path(file.location.uri) for file in files]

    for output in (out, tmp_path / "elsewhere"):
        assert chosen(inbox, output) == [news]
        assert chosen(inbox / "**" / "*.csv", output) == [news]
        with pytest.raises(InputError, match="only files that predict wrote"):
            chosen(out, output)
    assert chosen(answers, tmp_path / "elsewhere") == [answers]
    with pytest.raises(InputError, match=r"was written by predict.*another predict\.output"):
        chosen(answers, out)
    write(out / "own.csv")  # not written by predict
    assert chosen(out, out) == [out / "own.csv"]


def test_predictions_are_no_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "inbox" / "scored"
    news, answers = inbox / "news.csv", out / "news.csv.csv"
    for path in (news, answers):
        path.parent.mkdir(parents=True)
        path.write_text("text,label\nUp,positive\n")
    record = ScoredFile(input="news.csv", identity="a", backend="torch-fp32", finished=True)
    ScoredDir(out).update("news.csv.csv", record)

    def sources_at(uri: Path) -> list[Path]:
        source = SourceConfig(uri=str(uri), text="text", label="label")
        files = find_sources(DataConfig(sources=[source]), tmp_path)
        return [Path(file.location.uri) for file in files]

    caplog.set_level("INFO")
    for uri in (inbox, inbox / "**" / "*.csv"):
        caplog.clear()
        assert sources_at(uri) == [news]
        assert "1 file(s) that predict wrote are left out" in caplog.text
    with pytest.raises(InputError, match=r"data\.sources: .* names only files that predict wrote"):
        sources_at(out)
    assert sources_at(answers) == [answers]  # named by itself


def test_the_place_of_a_finished_file_does_not_matter(tmp_path: Path) -> None:
    monday, tuesday = (find(write(tmp_path / day / "news.csv"))[0] for day in ("monday", "tuesday"))
    assert replace(monday, name="news.csv").identity == replace(tuesday, name="news.csv").identity


def test_damaged_record_is_an_error_that_names_the_file_and_the_key(tmp_path: Path) -> None:
    record = {"input": "a.csv", "identity": "a", "backend": "torch-fp32", "finished": "maybe"}
    (tmp_path / "manifest.json").write_text(json.dumps({"scored": {"a.csv.csv": record}}))
    with pytest.raises(InputError, match=r"manifest\.json: finished: .*predict\.output"):
        ScoredDir(tmp_path).records()


def test_record_of_an_earlier_release_without_truncated_rows_is_read(tmp_path: Path) -> None:
    record = {"input": "a.csv", "identity": "a", "backend": "torch-fp32", "finished": True}
    counts = {"rows": 2, "labels": {"positive": 2}, "faults": {}}
    content = {"scored": {"a.csv.csv": {**record, **counts}}}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    [read] = ScoredDir(tmp_path).records().values()
    assert (read.rows, read.truncated) == (2, 0)
