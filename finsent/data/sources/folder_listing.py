"""Which files of a folder are data: not the marker files and leftovers of jobs that wrote it."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from finsent.data.config import Format
from finsent.data.sources.format_detection import detect
from finsent.errors import InputError

log = logging.getLogger(__name__)

_DELTA, _HUDI = "_delta_log", ".hoodie"
_ICEBERG = (".metadata.json", "version-hint.text")  # files in a table's folder `metadata`
_METADATA_FILES = frozenset(  # of data sets, by Hugging Face, Kaggle and finsent
    f"{name}.json"
    for name in (
        *("dataset_info", "dataset_infos", "dataset_dict", "state", "dataset-metadata"),
        *("datapackage", "manifest", "metadata", "config"),
    )
)
_MAX_EXAMPLES = 3
Parts = tuple[str, ...]  # of a path within its folder


def is_data(parts: Parts, format: Format | None) -> bool:
    """Return whether a file of a folder is data.

    Args:
        format: of the folder's files; None: their names show it.
    """
    # Jobs write marker files such as _SUCCESS next to their output.
    if any(map(_is_hidden, parts)) or (format is None and parts[-1] in _METADATA_FILES):
        return False
    return detect(parts[-1])[0] is not None or format is not None


def _is_hidden(name: str) -> bool:
    """Return whether Spark, Hive or macOS reserves a name; `_key=value` is a partition."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def is_leftover(parts: Parts, pattern: str) -> bool:
    """Return whether a file that a glob finds is in a hidden folder that the glob does not name."""
    named = pattern.split("/")
    return any(_is_hidden(name) and name not in named for name in parts[:-1])


def log_skipped(uri: str, files: Iterable[Parts]) -> None:
    """Log which files of a folder are not read."""
    names_by_kind: dict[str, list[str]] = {"of no known format": [], "with a hidden name": []}
    for parts in files:
        if any(name.startswith(".") for name in parts):
            continue
        is_known = detect(parts[-1])[0] is not None and any(map(_is_hidden, parts))
        kind = "with a hidden name" if is_known else "of no known format"
        names_by_kind[kind].append("/".join(parts))
    for kind, names in names_by_kind.items():
        if names:
            examples = ", ".join(sorted(names)[:_MAX_EXAMPLES])
            examples += ", ..." if len(names) > _MAX_EXAMPLES else ""
            log.info("%s: %d files %s are left out: %s", uri, len(names), kind, examples)


def refuse_tables(files: Iterable[Parts], folder: str, field: str) -> None:
    """Refuse the folder of a table whose log states which of its files are valid.

    Args:
        folder: path or URI, for messages.
        field: the setting, for messages.


    Raises:
        InputError: the files are those of a Delta, Hudi or Iceberg table.
    """
    for parts in files:
        folders = parts[:-1]
        kind = "Delta" if _DELTA in folders else "Hudi" if _HUDI in folders else ""
        if "metadata" in folders[-1:] and parts[-1].endswith(_ICEBERG):
            kind = "Iceberg"
        if kind:
            raise InputError(f"{field}: {folder!r} {_problem(kind, folder)}")


def _problem(kind: str, folder: str) -> str:
    export = "Export its rows to Parquet, and name that file."
    if kind == "Delta":
        export = (
            'Export its rows (pip install deltalake pyarrow): python -c "import deltalake, '
            f"pyarrow.parquet as pq; pq.write_table(deltalake.DeltaTable('{folder}')"
            ".to_pyarrow_table(), 'labeled.parquet')\"."
        )
    return (
        f"holds a {kind} table, whose log says which of its files are valid. Old ones would be "
        f"read as rows. {export}"
    )


# --- local ----------------------------------------------------------------------------------------


def walk(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, also behind links to folders, each folder once.

    Links that are hidden or in a hidden folder are not followed. Otherwise such a link could count
    as the only path of a folder whose files are data.

    Raises:
        OSError: a folder that is not hidden may not be read.
    """

    def is_hidden(path: Path) -> bool:
        return any(map(_is_hidden, path.relative_to(folder).parts))

    def fail(error: OSError) -> None:
        if not is_hidden(Path(error.filename)):
            raise error

    seen = {os.path.realpath(folder)}
    for top, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        followed = []
        for name in sorted(folders, key=lambda name: (Path(top, name).is_symlink(), name)):
            path, real = Path(top, name), os.path.realpath(f"{top}/{name}")
            if is_hidden(path):
                if not path.is_symlink():
                    followed.append(name)
            elif real not in seen:
                seen.add(real)
                followed.append(name)
        folders[:] = followed
        yield from (Path(top, name) for name in files)


def match(pattern: Path, fixed: Path) -> list[Path]:
    """Return the files that a glob matches, also behind links to folders, each once, in order.

    A file that is reached as a leftover and by another path is returned by both.

    Args:
        fixed: the folder above the first glob sign.
    """
    paths: dict[tuple[bool, str, str], Path] = {}
    names = glob.glob(str(pattern), recursive=True, include_hidden=True)  # noqa: PTH207  follows links
    for path in map(Path, sorted(names, key=lambda name: (name.count("/"), name))):
        if path.is_file():
            is_left = is_leftover(path.relative_to(fixed).parts, str(pattern))
            paths.setdefault((is_left, os.path.realpath(path.parent), path.name), path)
    return sorted(paths.values())


def refuse_dead_links(files: Iterable[Path], field: str) -> None:
    """Refuse a broken link, whose rows would be missing.

    Raises:
        InputError: a broken link has the name of a data file.
    """
    for path in files:
        if not path.exists() and is_data((path.name,), None):
            raise InputError(f"{field}: {str(path)!r} is a broken link. Repair or remove it.")
