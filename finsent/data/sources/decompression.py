"""Opening of source files: decompression, and errors of one line for the files' owners."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, cast
from zipfile import BadZipFile, ZipFile

import pyarrow as pa

from finsent.data.sources.locations import Location
from finsent.errors import InputError, one_line

READ_BYTES = 4 << 20
_MAX_EXAMPLES = 5


@contextmanager
def reading(location: Location, where: str) -> Iterator[None]:
    """Turn exceptions while a file is read into an error for the file's owner.

    Args:
        where: the file, for messages.

    Raises:
        InputError: the file is gone, cut off, damaged, compressed or encoded in another way, or
            not readable.
    """
    try:
        location.check_unchanged()
        yield
        location.check_unchanged()
    except EOFError as error:
        raise InputError(
            f"{where} is cut off ({error}). Download the file or create it again."
        ) from None
    except UnicodeError as error:
        raise InputError(
            f"{where}: its bytes are not in its encoding ({error}). Set data.encoding, or the "
            "source's encoding, to the file's own, e.g. cp1252."
        ) from None
    except (pa.ArrowException, lzma.LZMAError, BadZipFile, zlib.error) as error:
        raise InputError(
            f"{where} is damaged ({one_line(error)}). Download the file or create it again."
        ) from None
    except NotImplementedError as error:  # of zipfile: e.g. Deflate64, which Windows writes
        raise InputError(
            f"{where} is packed in a way that cannot be read ({one_line(error)}). Unpack it, and "
            "name the file."
        ) from None
    except OSError as error:
        if error.strerror is None:  # from a decompressor, not from the system
            raise InputError(
                f"{where} is damaged or cut off ({one_line(error)}). Download the file or create "
                "it again."
            ) from None
        raise InputError(
            f"{where}: cannot be read ({error.strerror}). Allow access to it, or name another file."
        ) from None


@contextmanager
def decompressed(location: Location, compression: str | None) -> Iterator[BinaryIO]:
    """Open a file's bytes, decompressed."""
    with location.open() as raw:
        if compression is None:
            yield raw
            return
        with _DECOMPRESSORS[compression](raw) as stream:
            yield stream


@contextmanager
def _open_zip(raw: BinaryIO) -> Iterator[BinaryIO]:
    with ZipFile(raw) as archive, archive.open(_file_names(archive)[0]) as member:
        yield cast(BinaryIO, member)


def _open_zstd(raw: BinaryIO) -> AbstractContextManager[BinaryIO]:
    return cast(AbstractContextManager[BinaryIO], pa.CompressedInputStream(raw, "zstd"))


def _open_gzip(raw: BinaryIO) -> AbstractContextManager[BinaryIO]:
    # Arrow's decompressor reads a file that is cut off without an error.
    return cast(AbstractContextManager[BinaryIO], gzip.open(raw))


def _open_xz(raw: BinaryIO) -> AbstractContextManager[BinaryIO]:
    return cast(AbstractContextManager[BinaryIO], lzma.open(raw))


def _open_bz2(raw: BinaryIO) -> AbstractContextManager[BinaryIO]:
    return cast(AbstractContextManager[BinaryIO], bz2.open(raw))


_DECOMPRESSORS: dict[str, Callable[[BinaryIO], AbstractContextManager[BinaryIO]]] = {
    "gzip": _open_gzip,
    "xz": _open_xz,
    "bz2": _open_bz2,
    "zip": _open_zip,
    "zstd": _open_zstd,
}


def zipped_name(location: Location, where: str) -> str:
    """Return the name of the only file in a zip archive.

    Raises:
        InputError: the archive has no file or several, or it needs a password.
    """
    with location.open() as raw, ZipFile(raw) as archive:
        names = _file_names(archive)
        is_locked = any(archive.getinfo(name).flag_bits & 1 for name in names)
    if len(names) != 1:
        examples = ", ".join(map(repr, names[:_MAX_EXAMPLES]))
        examples += ", ..." if len(names) > _MAX_EXAMPLES else ""
        raise InputError(
            f"{where} is an archive of {len(names)} files{f' ({examples})' if names else ''}. "
            "Unpack it, and name its folder or the files."
        )
    if is_locked:
        raise InputError(f"{where} needs a password. Unpack it, and name the file.")
    return names[0]


def _file_names(archive: ZipFile) -> list[str]:
    """Return the files of an archive, without those that macOS adds."""
    return [
        name
        for name in archive.namelist()
        if not name.endswith("/")
        and not any(name_part.startswith((".", "__MACOSX")) for name_part in name.split("/"))
    ]


def stored_digest(location: Location) -> str:
    """Return the SHA-256 of a file's bytes as they are stored, as hex."""
    sha256 = hashlib.sha256()
    with location.open() as stream:
        while chunk := stream.read(READ_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()
