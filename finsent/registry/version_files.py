"""Files of a model version: which files belong to a model, their digests, and their copies."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from finsent.files import digest, link_or_copy, sha256_file
from finsent.inference.export_record import EXPORT_FOLDERS, read_exports
from finsent.registry.version_manifest import CARD, MANIFEST, VersionFile

_SUFFIXES = (".json", ".safetensors", ".txt", ".model")  # no pickle is ever published
_MIN_SHARED_BYTES = 1 << 20  # smaller files are copied: sharing saves nothing, and people edit them


def version_file(path: Path, root: Path) -> VersionFile:
    """Return the manifest's entry of a file below a directory."""
    name = path.relative_to(root).as_posix()
    return VersionFile(path=name, bytes=path.stat().st_size, sha256=sha256_file(path))


def model_files(model_dir: Path) -> list[VersionFile]:
    """Return the files of a model: its own files, and the exports that its record names.

    Of a published version, manifest and card are left out: publishing writes both anew.
    """
    export_files = {path for export in read_exports(model_dir) for path in export.files(model_dir)}
    export_dirs = {path.parent for path in export_files}
    export_dirs |= {model_dir / name for name in EXPORT_FOLDERS}
    own_files = {
        path
        for path in model_dir.rglob("*")
        if path.is_file() and path.suffix in _SUFFIXES and path.parent not in export_dirs
    }
    written_anew = {model_dir / name for name in (MANIFEST, CARD)}
    paths = sorted((export_files | own_files) - written_anew)
    return [version_file(path, model_dir) for path in paths]


def digest_of_files(files: Sequence[VersionFile]) -> str:
    """Return the id of a version: a digest of the model files.

    The card is left out, as it names the id.
    """
    return digest(sorted([file.path, file.sha256] for file in files if file.path != CARD))[:12]


def copy_files(
    files: Sequence[VersionFile], model_dir: Path, target_dir: Path, *, share: bool
) -> None:
    """Copy a model's files.

    Args:
        share: hard-link large files, where the file system can.
    """
    for file in files:
        source, target = model_dir / file.path, target_dir / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if share and file.bytes >= _MIN_SHARED_BYTES:
            link_or_copy(source, target)
        else:
            shutil.copyfile(source, target)


def make_read_only(folder: Path, mode: int) -> None:
    """Make a version's files read-only.

    Args:
        mode: permissions of a new file; a linked file may have others.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(OSError):  # a file system without permissions
                path.chmod(mode & 0o444)
