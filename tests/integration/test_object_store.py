"""Sources on an object store: a real S3 server on this machine."""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from finsent.config import load
from finsent.data.ingest.ingest import ingest
from finsent.data.sources.files import find_sources
from finsent.data.sources.source_file import SourceFile
from finsent.errors import ConfigError, InputError
from finsent.settings import Settings

BODY = "Sentence,Sentiment\n" + "".join(
    f"{word} {i} of the group {verb} in spring,{label}\n"
    for i, word in enumerate(f"unit{n}" for n in range(60))
    for verb, label in (("rose", "positive"), ("fell", "negative"))
)


def _zipped(body: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("in/a.csv", body)
    return sink.getvalue()


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The options of a URI that leads to the server."""
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
    client.create_dir("news")
    for name, body in {
        "2024/a.csv": BODY.encode(),
        "2024/b.csv.gz": gzip.compress(BODY.replace("group", "bank").encode()),
        "2023/c.csv": BODY.replace("group", "mill").encode(),
        "2023/notes.txt": b"nothing",
        "odd/part-1.csv": BODY.encode(),
        "odd/part-2.csv": BODY.encode(),
        "odd/part-10.csv": BODY.encode(),
        "odd/a#1?b.csv": BODY.encode(),
        "bank/Sentences_AllAgree.txt": b"Sales rose@positive\n",
        "bank/License.txt": b"nothing",
        "hive/day=1/a.csv": BODY.encode(),
        "hive/_temporary/0/b.csv": BODY.encode(),
        "lake/part-0.csv": BODY.encode(),
        "lake/_delta_log/0.json": b"{}",
        "packed/a.zip": _zipped(BODY),
        "packed/a.csv.xz": lzma.compress(BODY.encode()),
    }.items():
        with client.open_output_stream(f"news/{name}", compression=None) as stream:
            stream.write(body)
    yield f"endpoint_override={host}:{port}&scheme=http&region=us-east-1&anonymous=true"
    server.stop()


def settings(path: str, store: str) -> Settings:
    uri = f"s3://{path}?{store}"
    return load(
        Settings,
        [],
        [
            f"data.sources=['{uri}']",
            "data.near_duplicates.enabled=false",
            "data.label_noise.enabled=false",
        ],
    )


def files(path: str, store: str) -> list[SourceFile]:
    return find_sources(settings(path, store).data, Path("unused"))


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("news/2024/a.csv", ["a.csv"]),
        ("news/2024", ["a.csv", "b.csv.gz"]),
        ("news/2023", ["c.csv"]),
        ("news/bank", ["Sentences_AllAgree.txt"]),
        ("news/odd/part-?.csv", ["part-1.csv", "part-2.csv"]),
        ("news/odd/a#1?b.csv", ["a#1?b.csv"]),
        ("news/odd/a#*", ["a#1?b.csv"]),
        ("news/20*/*.csv", ["c.csv", "a.csv"]),
        ("news/**/*.gz", ["b.csv.gz"]),
        ("news/hive", ["a.csv"]),
        ("news/hive/**/*.csv", ["a.csv"]),
        ("news/packed/a.zip", ["a.zip"]),
        ("news/packed/*.xz", ["a.csv.xz"]),
    ],
)
def test_keys_prefixes_and_globs(store: str, path: str, names: list[str]) -> None:
    files_of_path = files(path, store)
    assert [file.name for file in files_of_path] == names
    for file in files_of_path:
        assert sum(map(len, file.rows(0)))  # it is opened where it was found


@pytest.mark.parametrize("path", ["news/lake", "news/lake/*.csv"])
def test_a_table_with_a_log_is_refused(store: str, path: str) -> None:
    with pytest.raises(InputError, match="holds a Delta table"):
        files(path, store)


@pytest.mark.parametrize("path", ["news/2024/none.csv", "news/*.tsv", "nobucket/a.csv"])
def test_what_is_not_there_is_named(store: str, path: str) -> None:
    with pytest.raises(InputError) as caught:
        files(path, store)
    assert f"data.sources: 's3://{path}'" in str(caught.value)


def test_with_a_format_a_prefix_gives_keys_of_any_name(store: str) -> None:
    uri = f"s3://news/2023?{store}"
    with pytest.raises(InputError, match=r"'s3://news/2023/notes\.txt'"):
        sources = [f"data.sources=[{{uri: '{uri}', format: csv}}]"]
        find_sources(load(Settings, [], sources).data, Path("unused"))


def test_credentials_do_not_belong_into_a_uri(store: str) -> None:
    with pytest.raises(ConfigError, match=r"holds credentials.*AWS_ACCESS_KEY_ID"):
        settings("key:secret@news/2024", store)


def test_a_version_is_made_from_it(store: str, tmp_path: Path) -> None:
    config = settings("news/2024", store).data
    version = ingest(config, tmp_path, find_sources(config, tmp_path / "hubs"))
    assert version.manifest.counts.kept == 240
    assert [source.uri for source in version.manifest.inputs] == [
        "s3://news/2024/a.csv",
        "s3://news/2024/b.csv.gz",
    ]
