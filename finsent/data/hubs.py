"""Data sets of hubs become local files: Hugging Face by `datasets`, Kaggle by `kagglehub`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.config import SourceConfig
from finsent.errors import InputError
from finsent.files import sha256_file

_ROWS_AT_ONCE = 10_000
TEXT_NAMES = ("text", "sentence", "Sentence")
LABEL_NAMES = ("label", "sentiment", "Sentiment")


@dataclass(frozen=True)
class Fetched:
    """What a hub delivered."""

    path: Path
    columns: tuple[str, ...] = ()  # where the hub says


def usual(columns: tuple[str, ...], wanted: str, names: tuple[str, ...]) -> str:
    """The wanted column, or where there is none the one that data sets usually have."""
    if wanted in columns:
        return wanted
    return next((name for name in names if name in columns), wanted)


def fetch(source: SourceConfig, cache: Path) -> Fetched:
    """Bring a hub's data set here.

    Args:
        source: with a URI `hf://...` or `kaggle://...`.
        cache: directory for the files.

    Raises:
        InputError: there is no such data set, or no way to it; says what to install or set.
    """
    if source.uri.startswith("hf://"):
        return _fetch_hf(source.uri, cache)
    return _fetch_kaggle(source.uri)


# --- Hugging Face -------------------------------------------------------------------------------


def _fetch_hf(uri: str, cache: Path) -> Fetched:
    rest = uri.removeprefix("hf://")
    name, colon, split = rest.rpartition(":")
    if not colon or "/" in split:
        name, split = rest, ""
    splits = _load(uri, name, split)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = cache / f".{uuid.uuid4().hex}.parquet"
    try:
        schema = _write(splits, temporary)
        path = cache / f"hf-{sha256_file(temporary)[:16]}.parquet"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Fetched(path, tuple(schema.names))


def _load(uri: str, name: str, split: str) -> dict[str, Any]:
    """The splits of a data set, by name; all, or the one that is asked for."""
    from datasets import DatasetDict, disable_progress_bars, load_dataset, load_from_disk
    from datasets.exceptions import DatasetNotFoundError

    disable_progress_bars()
    local = re.match(r"[/.~]", name) is not None
    try:
        if local:
            folder = Path(name).expanduser().absolute()
            if not folder.is_dir():
                raise InputError(
                    f"data.sources: {uri!r}: {str(folder)!r} is no directory; give a folder of "
                    "CSV, JSON Lines or Parquet files, or one that `save_to_disk` made"
                )
            saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
            loaded = load_from_disk(str(folder)) if saved else load_dataset(str(folder))
        else:
            owner_and_name, config = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
            loaded = load_dataset(owner_and_name, config or None)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise InputError(
            f"data.sources: {uri!r}: no such data set, or the hub does not answer "
            f"({_short(error)}); check the name and the network (HF_HUB_OFFLINE must not be set), "
            "or give a local folder as hf:///PATH[:split]"
        ) from None
    except (ValueError, FileNotFoundError) as error:  # wrong config, or nothing that can be loaded
        raise InputError(f"data.sources: {uri!r}: cannot be loaded ({_short(error)})") from None
    splits = dict(loaded) if isinstance(loaded, DatasetDict) else {str(loaded.split): loaded}
    if split and split not in splits:
        raise InputError(
            f"data.sources: {uri!r}: no split {split!r}; its splits are {', '.join(splits)}"
        )
    return {split: splits[split]} if split else splits


def _write(splits: dict[str, Any], path: Path) -> pa.Schema:
    """All splits as one Parquet file, a batch in memory at a time."""
    tables = (table for dataset in splits.values() for table in _tables(dataset))
    first = next(tables, None)
    if first is None:
        raise InputError("data.sources: the data set has no rows")
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table.select(first.schema.names).cast(first.schema))
    return first.schema


def _tables(dataset: Any) -> Iterator[pa.Table]:
    from datasets import ClassLabel

    classes = {n: f.names for n, f in dataset.features.items() if isinstance(f, ClassLabel)}
    for table in dataset.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE):
        for name, names in classes.items():
            ids = table[name].combine_chunks()
            known = pa.array([i if i is not None and i >= 0 else None for i in ids.to_pylist()])
            labels = pa.array(names, pa.string()).take(known.cast(pa.int64()))
            table = table.set_column(table.schema.get_field_index(name), name, labels)
        yield table.replace_schema_metadata(None)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# --- Kaggle -------------------------------------------------------------------------------------


def _fetch_kaggle(uri: str) -> Fetched:
    found = re.fullmatch(r"kaggle://([^/]+/[^/]+)/(.+)", uri)
    if found is None:
        raise InputError(f"data.sources: {uri!r}: write kaggle://owner/name/file.csv")
    try:
        import kagglehub
        from kagglehub import exceptions
    except ImportError:
        raise InputError(
            f"data.sources: {uri!r} needs the package kagglehub; pip install 'finsent[kaggle]'"
        ) from None
    try:
        return Fetched(Path(kagglehub.dataset_download(found[1], path=found[2])))
    except (
        OSError,  # requests' errors: no network, no such data set, not allowed
        ValueError,
        exceptions.BackendError,
        exceptions.CredentialError,
        exceptions.DataCorruptionError,
        exceptions.NotFoundError,
        exceptions.UnauthenticatedError,
    ) as error:
        raise InputError(
            f"data.sources: {uri!r}: Kaggle did not deliver it ({_short(error)}); check the name "
            "and the network, and set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or put "
            "kaggle.json into ~/.kaggle"
        ) from None
