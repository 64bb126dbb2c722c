"""Download of data sets: Hugging Face's hub by `datasets`, Kaggle by `kagglehub`."""

from __future__ import annotations

import logging
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.config import SourceConfig
from finsent.disk import find_disk_error, translate_disk_errors
from finsent.errors import InputError, one_line
from finsent.extras import missing_extra
from finsent.files import sha256_file, staged_dir

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class Fetched:
    """A data set that a hub delivered, as a local file."""

    path: Path
    name: str  # of the data set; it stays when the rows change
    columns: tuple[str, ...] = ()  # empty: not known


def fetch(source: SourceConfig, cache: Path, field: str = "data.sources") -> Fetched:
    """Download a hub's data set into a file.

    Args:
        source: with a URI `hf://...` or `kaggle://...`.
        cache: directory for the files, on storage that every machine sees.
        field: the setting, for messages.

    Raises:
        InputError: the data set does not exist, is damaged, or cannot be reached; the message
            names what to install or set.
    """
    where = f"{field}: {source.uri!r}"
    with translate_disk_errors(cache, "storage.root"):
        cache.mkdir(parents=True, exist_ok=True)
        if source.uri.startswith("hf://"):
            return _fetch_hf(source.uri, cache, where)
        return _fetch_kaggle(source.uri, cache, where)


# --- Hugging Face -------------------------------------------------------------------------------


def _fetch_hf(uri: str, cache: Path, where: str) -> Fetched:
    path_and_split = uri.removeprefix("hf://")
    name, colon, split = path_and_split.rpartition(":")
    if not colon or "/" in split:
        name, split = path_and_split, ""
    if not name.strip("/") or (colon and not split):
        raise InputError(
            f"{where}: not a data set. Write hf://owner/name[/config][:split], or hf:///PATH[:split]."
        )
    is_local = re.match(r"[/.~]", name) is not None
    splits = _load_splits(where, name, split, is_local)
    temporary = cache / f".{uuid.uuid4().hex}.parquet"
    try:
        schema = _write(where, splits, temporary)
        path = cache / f"hf-{sha256_file(temporary)[:16]}.parquet"
        if not path.is_file():  # another job may be reading an existing file
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    title = Path(name).expanduser().absolute().name if is_local else name.strip("/")
    return Fetched(path, f"{title}:{split}" if split else title, tuple(schema.names))


def _load_splits(where: str, name: str, split: str, is_local: bool) -> dict[str, Dataset]:
    """Return the splits of a data set by name: all, or the requested one."""
    # Not imported at the top: costs a second, and few sources are of a hub.
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # the error below has the same text
    try:
        loaded = _load_local(where, name) if is_local else _load_remote(name)
    except InputError:
        raise
    except (DatasetsError, OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        cause = error.__cause__ or error
        if (full := find_disk_error(error)) is not None:
            raise full.with_setting("HF_HOME", datasets.config.HF_DATASETS_CACHE) from None
        if is_local or not isinstance(error, DatasetNotFoundError | OSError):
            raise InputError(
                f"{where}: cannot be loaded ({one_line(cause)}). Repair the data set, or name "
                "another."
            ) from None
        raise InputError(
            f"{where}: no such data set, or the hub does not answer "
            f"({one_line(error)}). Check the name and the network (HF_HUB_OFFLINE must not be "
            "set), or give a local folder as hf:///PATH[:split]."
        ) from None
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {str(loaded.split): loaded}
    if split and [*splits] == ["None"]:
        raise InputError(f"{where}: it has no splits. Leave :{split} out.")
    if split and split not in splits:
        raise InputError(f"{where}: no split {split!r}. Choose one of {', '.join(splits)}.")
    return {split: splits[split]} if split else dict(splits)


def _load_local(where: str, name: str) -> Dataset | DatasetDict:
    from datasets import load_from_disk  # see `_load_splits`

    folder = Path(name).expanduser().absolute()
    if not folder.is_dir():
        raise InputError(
            f"{where}: {str(folder)!r} is not a directory. Name a folder of CSV, JSON "
            "Lines or Parquet files, or one that `save_to_disk` made."
        )
    is_saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
    return load_from_disk(str(folder)) if is_saved else _load_as_written(str(folder), None)


def _load_remote(name: str) -> Dataset | DatasetDict:
    parts = name.split("/")
    return _load_as_written("/".join(parts[:2]), "/".join(parts[2:]) or None)


def _load_as_written(path: str, config: str | None) -> Dataset | DatasetDict:
    """Return a data set; `NA` and `null` in its CSV files are texts, as in other sources."""
    from datasets import load_dataset, load_dataset_builder  # see `_load_splits`

    if hasattr(load_dataset_builder(path, config).config, "keep_default_na"):
        return load_dataset(path, config, keep_default_na=False)
    return load_dataset(path, config)


def _write(where: str, splits: dict[str, Dataset], path: Path) -> pa.Schema:
    """Write all splits to one Parquet file, with one batch in memory at a time.

    Returns:
        The schema of the file.

    Raises:
        InputError: the data set has no rows, or the splits have different columns.
    """
    tables = (table for dataset in splits.values() for table in _tables(dataset))
    first_table = next(tables, None)
    if first_table is None:
        raise InputError(f"{where}: has no rows. Name another data set or split.")
    with pq.ParquetWriter(path, first_table.schema, compression="zstd") as writer:
        writer.write_table(first_table)
        for table in tables:
            try:
                aligned = table.select(first_table.schema.names).cast(first_table.schema)
            except (KeyError, pa.ArrowException):
                raise InputError(
                    f"{where}: its splits {', '.join(splits)} have different "
                    f"columns. Name one at its end, e.g. :{next(iter(splits))}."
                ) from None
            writer.write_table(aligned)
    return first_table.schema


def _tables(dataset: Dataset) -> Iterator[pa.Table]:
    """Yield the rows of a split, with class labels by their names."""
    from datasets import ClassLabel  # see `_load_splits`

    classes = {n: f.names for n, f in dataset.features.items() if isinstance(f, ClassLabel)}
    for table in dataset.with_format("arrow").iter(batch_size=_BATCH_ROWS):
        for name, names in classes.items():
            ids = table[name].combine_chunks()
            known = pa.array([i if i is not None and i >= 0 else None for i in ids.to_pylist()])
            labels = pa.array(names, pa.string()).take(known.cast(pa.int64()))
            table = table.set_column(table.schema.get_field_index(name), name, labels)
        yield table.replace_schema_metadata(None)


# --- Kaggle -------------------------------------------------------------------------------------


def _reason(error: BaseException) -> str:
    host = re.match(r"HTTPS?ConnectionPool\(host='([^']+)'", str(error))
    return f"no connection to {host[1]}" if host else one_line(error)


def _fetch_kaggle(uri: str, cache: Path, where: str) -> Fetched:
    match = re.fullmatch(r"kaggle://([^/]+/[^/]+)/(.+)", uri)
    if match is None:
        raise InputError(f"{where}: not a file of a data set. Write kaggle://owner/name/file.csv.")
    dataset, file_path = match.groups()
    try:
        # An optional package.
        import kagglehub
        from kagglehub import exceptions
        from kagglehub.config import get_cache_folder
    except ImportError:
        raise missing_extra("kagglehub", where) from None
    try:
        file = Path(kagglehub.dataset_download(dataset, path=file_path))
    except (
        OSError,  # errors of requests: no network, no such data set, not allowed
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
            f"{where}: Kaggle did not deliver it ({_reason(error)}). Check the name "
            "and the network, and set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or put "
            "kaggle.json into ~/.kaggle."
        ) from None
    # The download is in this user's home, which other machines do not see.
    shared = cache / f"kaggle-{sha256_file(file)[:16]}"
    if not shared.is_dir():
        with staged_dir(shared) as staging:
            shutil.copyfile(file, staging / file.name)
    return Fetched(shared / file.name, f"{dataset}/{file_path}")
