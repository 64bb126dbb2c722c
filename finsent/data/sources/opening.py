"""Opening of source files: unpacked, and with each problem as one line for the file's owner."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pyarrow as pa

from finsent.data.sources.heads import first_line
from finsent.data.sources.places import Place
from finsent.errors import InputError

READ_BYTES = 4 << 20


@contextmanager
def reading(place: Place, where: str) -> Iterator[None]:
    """Tell the owner of a file what went wrong while it was read.

    Raises:
        InputError: the file is gone, cut off, damaged, packed or encoded in another way, or not
            readable.
    """
    import zlib
    from lzma import LZMAError
    from zipfile import BadZipFile

    try:
        place.check_unchanged()
        yield
        place.check_unchanged()
    except EOFError as error:
        raise InputError(f"{where} is cut off ({error}); fetch or make it again") from None
    except UnicodeError as error:
        raise InputError(
            f"{where}: its bytes are not in its encoding ({error}); set data.encoding, or the "
            "source's encoding, to the file's own, e.g. cp1252"
        ) from None
    except (pa.ArrowException, LZMAError, BadZipFile, zlib.error) as error:
        raise InputError(f"{where} is damaged ({_short(error)}); fetch or make it again") from None
    except NotImplementedError as error:  # of zipfile: e.g. Deflate64, which Windows writes
        raise InputError(
            f"{where} is packed in a way that cannot be read ({_short(error)}); unpack it, and "
            "name the file"
        ) from None
    except OSError as error:
        if error.strerror is None:  # not from the system: what unpacks it gave up
            raise InputError(
                f"{where} is damaged or cut off ({_short(error)}); fetch or make it again"
            ) from None
        raise InputError(
            f"{where}: cannot be read ({error.strerror}); mend or allow it, or name another file"
        ) from None


def _short(error: BaseException) -> str:
    return first_line(error)


@contextmanager
def opened(place: Place, compression: str | None) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed."""
    with place.open() as raw:
        if compression is None:
            yield raw
        elif compression == "gzip":
            import gzip

            # Not Arrow's: it takes a cut-off file for a whole one.
            with gzip.open(raw) as stream:
                yield cast(BinaryIO, stream)
        elif compression == "xz":
            import lzma

            with lzma.open(raw) as stream:
                yield cast(BinaryIO, stream)
        elif compression == "bz2":
            import bz2

            with bz2.open(raw) as stream:
                yield cast(BinaryIO, stream)
        elif compression == "zip":
            from zipfile import ZipFile

            with ZipFile(raw) as archive, archive.open(_members(archive)[0]) as member:
                yield cast(BinaryIO, member)
        else:
            with pa.CompressedInputStream(raw, compression) as stream:
                yield cast(BinaryIO, stream)


def zipped_name(place: Place, where: str) -> str:
    """Return the name of the one file in a zip archive.

    Raises:
        InputError: the archive has none or several, or it needs a password.
    """
    from zipfile import ZipFile

    with place.open() as raw, ZipFile(raw) as archive:
        names = _members(archive)
        locked = any(archive.getinfo(name).flag_bits & 1 for name in names)
    if len(names) != 1:
        shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
        raise InputError(
            f"{where} is an archive of {len(names)} files{f' ({shown})' if names else ''}; unpack "
            "it, and name its folder or the files"
        )
    if locked:
        raise InputError(f"{where} needs a password; unpack it, and name the file")
    return names[0]


def _members(archive: object) -> list[str]:
    """The files of an archive, without what macOS adds."""
    names = cast(list[str], archive.namelist())  # type: ignore[attr-defined]
    return [
        name
        for name in names
        if not name.endswith("/")
        and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    ]


def count_lines(stream: BinaryIO) -> int:
    """Return how many lines end in a file, whichever of the three line ends it uses."""
    feeds, returns = 0, 0
    while chunk := stream.read(READ_BYTES):
        feeds += chunk.count(b"\n")
        returns += chunk.count(b"\r")
    return max(feeds, returns)


def digest_of(place: Place) -> str:
    """SHA-256 of a file's bytes as they are stored, as hex."""
    sha256 = hashlib.sha256()
    with place.open() as stream:
        while chunk := stream.read(READ_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()
