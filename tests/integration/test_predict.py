"""Batch scoring on a real Ray: each row comes out, in order, once, with a label or a reason."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from ray.util import placement_group, remove_placement_group

from finsent.config import load
from finsent.errors import InputError
from finsent.export.config import ExportConfig
from finsent.export.exporter import export_model
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.modeling.model_dir import fingerprint
from finsent.scoring.model import ScoringModel
from finsent.scoring.pool import EnginePool
from ray_jobs import predict
from ray_jobs._cli import Call, as_result
from ray_jobs._settings import JobSettings
from tests.commands import start_job, wait_until
from tests.unit.models import MAX_LENGTH, TEXTS, saved_model

LONG = "order " * 200


@pytest.fixture(scope="module")
def model(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported, as ONNX Runtime loads in no time and torch in seconds."""
    folder = saved_model(tiny, tmp_path_factory.mktemp("predict") / "model")
    rows = pa.table({"text": TEXTS, "label": ["neutral"] * len(TEXTS)})
    export_model(folder, rows, ExportConfig(openvino=False), EngineConfig(), {})
    return folder


def score(model: Path, source: str, out: Path, *overrides: str) -> dict[str, Any]:
    settings = load(
        JobSettings,
        [],
        [
            f"predict.model={model}",
            f"predict.input='{source}'",
            f"predict.output={out}",
            f"storage.root={out.parent}/artifacts",
            "engine.precision=fp32",
            *overrides,
        ],
    )
    return as_result(predict.run(Call(settings, out.parent / "run")))


def write_csv(path: Path, texts: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("id", "Sentence"), *enumerate(texts)])
    return path


def expected(model: Path, texts: list[str]) -> list[str]:
    return [
        answer.label for answer in Engine(model, EngineConfig(precision="fp32")).classify(texts)
    ]


def test_rows_come_out_in_order_with_the_engine_s_answers(model: Path, tmp_path: Path) -> None:
    texts = [f"{TEXTS[i % len(TEXTS)]} {i}" for i in range(9000)]  # several calls of an engine
    result = score(model, str(write_csv(tmp_path / "news.csv", texts)), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / result["files"]["news.csv"])
    assert table["row"].to_pylist() == [*range(2, 9002)]
    assert table["text"].to_pylist() == texts
    assert table["label"].to_pylist()[:300] == expected(model, texts[:300])
    assert set(table["model_version"].to_pylist()) == {"unpublished"}
    assert result["rows"] == 9000 == sum(result["labels"].values())
    assert result["faults"] == {}
    assert result["backends"] == ["onnxruntime-fp32"]
    assert result["rows_per_second"] > 0
    shares = [
        table[f"probability_{name}"].to_numpy() for name in ("negative", "neutral", "positive")
    ]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert table["score"].to_numpy() == pytest.approx(
        pa.array(shares).flatten().to_numpy().reshape(3, -1).max(0)
    )


def test_bad_rows_are_kept_with_a_reason(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(
        "\n".join(
            [
                '{"Sentence": "Profit rose."}',
                "not json",
                '{"Sentence": null}',
                '{"Sentence": " "}',
                json.dumps({"Sentence": LONG}),
                '{"Sentence": ["a"]}',
                '{"Sentence": "Loss widened."}',
            ]
        )
    )
    result = score(
        model,
        str(tmp_path / "bad.jsonl"),
        tmp_path / "out",
        "engine.truncate=error",
        "predict.format=jsonl",
    )
    lines = (tmp_path / "out" / "bad.jsonl.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    faults = [None if row["fault"] is None else row["fault"].partition(":")[0] for row in rows]
    assert faults == [
        None,
        "malformed_row",
        "no_text",
        "no_text",
        "too_long",
        "malformed_row",
        None,
    ]
    assert str(MAX_LENGTH) in rows[4]["fault"]
    assert [row["label"] is None for row in rows] == [fault is not None for fault in faults]
    assert result["faults"] == {"malformed_row": 2, "no_text": 2, "too_long": 1}


def test_a_file_of_bad_rows_alone_is_scored_too(model: Path, tmp_path: Path) -> None:
    result = score(model, str(write_csv(tmp_path / "blank.csv", ["", " "])), tmp_path / "out")
    assert result["faults"] == {"no_text": 2}
    assert result["labels"] == {}


def test_any_format_in_and_out(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_csv(folder / "a.csv", TEXTS)
    (folder / "b.csv.gz").write_bytes(gzip.compress((folder / "a.csv").read_bytes()))
    pq.write_table(pa.table({"Sentence": TEXTS}), folder / "c.parquet")
    (tmp_path / "d.txt").write_text("\n".join([*TEXTS, "", LONG]))
    result = score(model, str(folder), tmp_path / "csv", "predict.format=csv")
    assert [*result["files"].values()] == ["a.csv.csv", "b.csv.gz.csv", "c.parquet.csv"]
    for name in result["files"].values():
        table = pyarrow.csv.read_csv(tmp_path / "csv" / name)
        assert table["label"].to_pylist() == expected(model, TEXTS)
    score(model, str(tmp_path / "d.txt"), tmp_path / "txt")
    table = pq.read_table(tmp_path / "txt" / "d.txt.parquet")
    good, long = expected(model, TEXTS), expected(model, [LONG])
    assert table["label"].to_pylist() == [*good, None, *long]
    assert table["fault"].to_pylist() == [*[None] * len(TEXTS), "no_text", None]
    assert table["truncated"].to_pylist()[-1]
    assert table["row"].to_pylist() == [*range(1, len(TEXTS) + 3)]


def test_finished_files_are_not_scored_again(model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_csv(folder / "a.csv", TEXTS)
    first_result = score(model, str(folder), out)
    made = (out / "a.csv.parquet").stat().st_mtime_ns
    write_csv(folder / "b.csv", ["Loss widened."])
    second = score(model, str(folder), out)
    assert (first_result["finished_before"], second["finished_before"]) == (0, 1)
    assert (out / "a.csv.parquet").stat().st_mtime_ns == made
    assert second["rows"] == len(TEXTS) + 1
    write_csv(folder / "a.csv", [*TEXTS, "Profit rose."])  # another content
    third = score(model, str(folder), out)
    assert third["finished_before"] == 1
    assert pq.read_table(out / "a.csv.parquet").num_rows == len(TEXTS) + 1
    fourth = score(model, str(folder), out, "engine.truncate=left")  # other answers
    assert fourth["finished_before"] == 0
    # A command for other files forgets nothing.
    write_csv(tmp_path / "c.csv", TEXTS)
    score(model, str(tmp_path / "c.csv"), out, "engine.truncate=left")
    fifth = score(model, str(folder), out, "engine.truncate=left")
    assert fifth["finished_before"] == 2


def test_a_fault_in_one_file_leaves_the_finished_ones_and_no_half(
    model: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_csv(folder / "a.csv", TEXTS)
    (folder / "b.csv").write_text('id,Sentence\n1,Fine\n2,"never closed\n' + "3,x\n" * 50)
    with pytest.raises(InputError, match=r"b\.csv.*quote"):
        score(model, str(folder), out)
    assert sorted(path.name for path in out.iterdir()) == ["a.csv.parquet", "manifest.json"]
    write_csv(folder / "b.csv", TEXTS)
    assert score(model, str(folder), out)["finished_before"] == 1


def test_nothing_to_score_and_other_peoples_directories_are_refused(
    model: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"predict\.input: .*no such file"):
        score(model, str(tmp_path / "none.csv"), tmp_path / "out")
    source = str(write_csv(tmp_path / "a.csv", TEXTS))
    out = tmp_path / "other"
    out.mkdir()
    (out / "manifest.json").write_text('{"files": []}')
    with pytest.raises(InputError, match=r"predict\.output=.*Choose another directory"):
        score(model, source, out)
    with pytest.raises(InputError, match=r"^engine\.backend='openvino'"):
        score(model, source, tmp_path / "out", "engine.backend=openvino")
    other = placement_group([{"CPU": 1}])  # another program has one of the four CPUs
    assert other.wait(60)
    try:
        with pytest.raises(InputError, match=r"predict\.start_timeout=1: .* 4 process"):
            score(model, source, tmp_path / "out", "predict.actors=4", "predict.start_timeout=1")
    finally:
        remove_placement_group(other)


def test_answers_of_another_file_stay_and_columns_come_along(model: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "2024-07-01", tmp_path / "2024-07-02"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "news.csv").write_text(f"id,Sentence\n{number}1,Up\n{number}2,A, B\n{number}3,\n")
    out = tmp_path / "out"
    score(model, str(folders[0]), out, "predict.columns=id", "predict.format=csv")
    before = (out / "news.csv.csv").read_bytes()
    with pytest.raises(InputError, match=r"holds the answers for '.*2024-07-01/news\.csv'"):
        score(model, str(folders[1]), out, "predict.columns=id", "predict.format=csv")
    assert (out / "news.csv.csv").read_bytes() == before
    result = score(model, str(tmp_path), out, "predict.columns=id", "predict.format=csv")
    assert [*result["files"]] == [
        "2024-07-01/news.csv",
        "2024-07-02/news.csv",
    ]  # not its own output
    with (out / result["files"]["2024-07-02/news.csv"]).open() as stream:
        rows = [(row["row"], row["id"], row["fault"]) for row in csv.DictReader(stream)]
    assert rows == [
        ("2", "11", ""),
        ("3", "", "malformed_row: 3 fields, not 2"),
        ("4", "13", "no_text"),
    ]


@pytest.mark.cost(25, "a process with its own local Ray, and many rows: a killed run must be long")
def test_a_killed_run_resumes_within_a_file(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"{TEXTS[i % 3]} {i}" for i in range(40_000)]
    source = str(write_csv(tmp_path / "news.csv", texts))
    process = start_job(
        "predict",
        f"predict.model={model}",
        f"predict.input='{source}'",
        "predict.output=out",
        "storage.root=artifacts",
        "engine.precision=fp32",
        "predict.columns=all",
        cwd=tmp_path,
    )
    out = tmp_path / "out"
    wait_until(
        lambda: any(out.glob(".parts/*/*.parquet")) or process.poll() is not None, 120, "a part"
    )
    process.kill()
    process.communicate()
    assert process.returncode < 0, "it ended before it was killed"
    assert sorted(path.name for path in out.iterdir()) == [".parts", "manifest.json"]
    with caplog.at_level(logging.INFO):
        score(model, source, out, "predict.columns=all")
    assert "news.csv resumed after " in caplog.text
    score(model, source, tmp_path / "undisturbed", "predict.columns=all")
    resumed, uninterrupted = (
        folder / "news.csv.parquet" for folder in (out, tmp_path / "undisturbed")
    )
    assert resumed.read_bytes() == uninterrupted.read_bytes()
    assert pq.read_table(resumed)["id"].to_pylist() == [str(i) for i in range(40_000)]
    assert not (out / ".parts").exists()


def test_a_model_that_changes_in_mid_run_stops_it(model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    before = fingerprint(copy)
    (copy / "calibration.json").write_text(
        '{"schema_version": 1, "temperature": 2.0, "abstention": {"threshold": null}}'
    )
    with pytest.raises(InputError, match=r"predict\.model=.*has changed since the run began"):
        scoring_model = ScoringModel(copy, "v1", before, EngineConfig(precision="fp32"))
        EnginePool(scoring_model, None, 1, 60)


@pytest.fixture
def bucket() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = fs.S3FileSystem(
        access_key="test",
        secret_key="test",
        region="us-east-1",
        scheme="http",
        endpoint_override=f"{host}:{port}",
        allow_bucket_creation=True,
    )
    client.create_dir("desk")
    with client.open_output_stream("desk/news.csv", compression=None) as stream:
        stream.write(b"Sentence\nProfit rose.\nLoss widened.\n")
    yield f"s3://desk/news.csv?endpoint_override={host}:{port}&scheme=http&anonymous=true"
    server.stop()


def test_files_on_an_object_store(model: Path, tmp_path: Path, bucket: str) -> None:
    result = score(model, bucket, tmp_path / "out", "predict.actors=2")
    table = pq.read_table(tmp_path / "out" / "news.csv.parquet")
    assert table["label"].to_pylist() == expected(model, ["Profit rose.", "Loss widened."])
    assert result["rows"] == 2
