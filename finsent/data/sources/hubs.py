"""Data sets of hubs become local files: Hugging Face by `datasets`, Kaggle by `kagglehub`."""

from __future__ import annotations

import logging
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.config import SourceConfig
from finsent.disk import find_disk_error, translate_disk_errors
from finsent.errors import InputError
from finsent.files import sha256_file, staged_dir

_ROWS_AT_ONCE = 10_000
TEXT_NAMES = ("text", "sentence", "Sentence")
LABEL_NAMES = ("label", "sentiment", "Sentiment")


@dataclass(frozen=True)
class Fetched:
    """What a hub delivered."""

    path: Path
    name: str  # what people call it; the same when its rows change
    columns: tuple[str, ...] = ()  # where the hub says


def usual(columns: tuple[str, ...], wanted: str, names: tuple[str, ...]) -> str:
    """The wanted column, or where there is none the one that data sets usually have."""
    if wanted in columns:
        return wanted
    return next((name for name in names if name in columns), wanted)


def fetch(source: SourceConfig, cache: Path, field: str = "data.sources") -> Fetched:
    """Bring a hub's data set here.

    Args:
        source: with a URI `hf://...` or `kaggle://...`.
        cache: directory for the files, on storage that every machine sees.
        field: the setting, for messages.

    Raises:
        InputError: there is no such data set, it is damaged, or there is no way to it; says what
            to install or set.
    """
    where = f"{field}: {source.uri!r}"
    with translate_disk_errors(cache, "storage.root"):
        cache.mkdir(parents=True, exist_ok=True)
        if source.uri.startswith("hf://"):
            return _fetch_hf(source.uri, cache, where)
        return _fetch_kaggle(source.uri, cache, where)


# --- Hugging Face -------------------------------------------------------------------------------


def _fetch_hf(uri: str, cache: Path, where: str) -> Fetched:
    rest = uri.removeprefix("hf://")
    name, colon, split = rest.rpartition(":")
    if not colon or "/" in split:
        name, split = rest, ""
    if not name.strip("/") or (colon and not split):
        raise InputError(f"{where}: write hf://owner/name[/config][:split], or hf:///PATH[:split]")
    local = re.match(r"[/.~]", name) is not None
    splits = _load(where, name, split, local)
    temporary = cache / f".{uuid.uuid4().hex}.parquet"
    try:
        schema = _write(where, splits, temporary)
        path = cache / f"hf-{sha256_file(temporary)[:16]}.parquet"
        if not path.is_file():  # else another job may be reading it
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    called = Path(name).expanduser().absolute().name if local else name.strip("/")
    return Fetched(path, f"{called}:{split}" if split else called, tuple(schema.names))


def _load(where: str, name: str, split: str, local: bool) -> dict[str, Any]:
    """The splits of a data set, by name; all, or the one that is asked for."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it would say is in the error
    try:
        loaded = _load_local(where, name) if local else _load_remote(name)
    except InputError:
        raise
    except (DatasetsError, OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        cause = error.__cause__ or error
        if (full := find_disk_error(error)) is not None:
            raise full.with_setting("HF_HOME", datasets.config.HF_DATASETS_CACHE) from None
        if local or not isinstance(error, DatasetNotFoundError | OSError):
            raise InputError(
                f"{where}: cannot be loaded ({_short(cause)}); mend the data set, or name another"
            ) from None
        raise InputError(
            f"{where}: no such data set, or the hub does not answer "
            f"({_short(error)}); check the name and the network (HF_HUB_OFFLINE must not be set), "
            "or give a local folder as hf:///PATH[:split]"
        ) from None
    found = loaded if isinstance(loaded, datasets.DatasetDict) else {str(loaded.split): loaded}
    if split and [*found] == ["None"]:
        raise InputError(f"{where}: it has no splits; leave :{split} out")
    if split and split not in found:
        raise InputError(f"{where}: no split {split!r}; its splits are {', '.join(found)}")
    return {split: found[split]} if split else dict(found)


def _load_local(where: str, name: str) -> Any:
    from datasets import load_from_disk

    folder = Path(name).expanduser().absolute()
    if not folder.is_dir():
        raise InputError(
            f"{where}: {str(folder)!r} is no directory; give a folder of CSV, JSON "
            "Lines or Parquet files, or one that `save_to_disk` made"
        )
    saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
    return load_from_disk(str(folder)) if saved else _load_as_written(str(folder), None)


def _load_remote(name: str) -> Any:
    parts = name.split("/")
    return _load_as_written("/".join(parts[:2]), "/".join(parts[2:]) or None)


def _load_as_written(path: str, config: str | None) -> Any:
    """A data set; in its CSV files `NA` and `null` are texts, as in a CSV that a path names."""
    from datasets import load_dataset, load_dataset_builder

    if hasattr(load_dataset_builder(path, config).config, "keep_default_na"):
        return load_dataset(path, config, keep_default_na=False)
    return load_dataset(path, config)


def _write(where: str, splits: dict[str, Any], path: Path) -> pa.Schema:
    """All splits as one Parquet file, a batch in memory at a time."""
    tables = (table for dataset in splits.values() for table in _tables(dataset))
    first = next(tables, None)
    if first is None:
        raise InputError(f"{where}: has no rows; name another data set or split")
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for table in tables:
            try:
                same = table.select(first.schema.names).cast(first.schema)
            except (KeyError, pa.ArrowException):
                raise InputError(
                    f"{where}: its splits {', '.join(splits)} have different "
                    f"columns; name one at its end, e.g. :{next(iter(splits))}"
                ) from None
            writer.write_table(same)
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


def _reason(error: BaseException) -> str:
    host = re.match(r"HTTPS?ConnectionPool\(host='([^']+)'", str(error))
    return f"no connection to {host[1]}" if host else _short(error)


def _fetch_kaggle(uri: str, cache: Path, where: str) -> Fetched:
    found = re.fullmatch(r"kaggle://([^/]+/[^/]+)/(.+)", uri)
    if found is None:
        raise InputError(f"{where}: write kaggle://owner/name/file.csv")
    try:
        import kagglehub
        from kagglehub import exceptions
        from kagglehub.config import get_cache_folder
    except ImportError:
        raise InputError(
            f"{where} needs the package kagglehub; pip install 'finsent[kaggle]'"
        ) from None
    try:
        file = Path(kagglehub.dataset_download(found[1], path=found[2]))
    except (
        OSError,  # requests' errors: no network, no such data set, not allowed
        ValueError,
        exceptions.BackendError,
        exceptions.CredentialError,
        exceptions.DataCorruptionError,
        exceptions.NotFoundError,
        exceptions.UnauthenticatedError,
    ) as error:
        if (full := find_disk_error(error)) is not None:
            raise full.with_setting("KAGGLEHUB_CACHE", get_cache_folder()) from None
        raise InputError(
            f"{where}: Kaggle did not deliver it ({_reason(error)}); check the name "
            "and the network, and set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or put "
            "kaggle.json into ~/.kaggle"
        ) from None
    # It lies in this user's home, which other machines do not see.
    kept = cache / f"kaggle-{sha256_file(file)[:16]}"
    if not kept.is_dir():
        with staged_dir(kept) as staging:
            shutil.copyfile(file, staging / file.name)
    return Fetched(kept / file.name, f"{found[1]}/{found[2]}")
