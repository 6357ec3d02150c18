"""Reading members of a tar.gz or zip archive from the network, without trusting it.

Nothing is ever extracted to disk, so a name in an archive can at worst be wrong; one that tries to be more is refused
together with the whole archive.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmvae_lite.data.idx import BadFile

BLOCK = tarfile.BLOCKSIZE
EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
LONGEST = 2**20  # bytes of an extended header, which tarfile reads at one go; a name takes less than a thousand


@dataclass(frozen=True)
class Limits:
    """What an archive may hold, decompressed: bytes of one member, bytes in all, and number of members."""

    member: int = 2**28
    total: int = 2**33
    members: int = 500_000


def read_members(path: str | Path, wanted: Callable[[str], bool], limits: Limits = Limits()) -> Iterator[tuple[str, bytes]]:
    """The name and content of every file in the archive whose name `wanted` accepts, one after the other in its order.

    A tar.gz is read as a stream, so that one member at a time is in memory; a reader that keeps what it got must wait
    for the end, since a broken archive may only show there.

    Raises FileNotFoundError, or BadFile with one sentence for a file that is neither a tar.gz nor a zip, for broken or
    partial compression, for more than the limits allow, for a wanted name that occurs twice, and for any name that
    leaves its folder, any link and any device, wanted or not.
    """
    path = Path(path)
    with open(path, "rb") as f:
        magic = f.read(2)
    if magic not in (b"\x1f\x8b", b"PK"):
        raise BadFile(f"{path.name}: begins with bytes {magic.hex() or 'none'}, wanted a tar.gz (1f8b) or a zip (504b)")
    members = _tar_members if magic == b"\x1f\x8b" else _zip_members
    seen: set[str] = set()
    try:
        for name, content in members(path, wanted, limits):
            if name in seen:
                raise BadFile(f"{path.name}: {name!r} occurs twice; fetch the archive again from its authors")
            seen.add(name)
            yield name, content
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as e:
        raise BadFile(f"{path.name}: broken or partial archive ({e}); delete it and fetch it again") from None


class _Header(tarfile.TarInfo):
    """A header that is looked at before tarfile reads what it announces."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        header = super().frombuf(buf, encoding, errors)
        if header.type in EXTENDED and header.size > LONGEST:
            raise tarfile.ReadError(f"an extended header of {header.size} bytes")
        return header


class _Stream:
    """A decompressed file that counts what it gave and remembers its last block."""

    def __init__(self, f: gzip.GzipFile, name: str, limit: int) -> None:
        self.f, self.name, self.left, self.last = f, name, limit, b""

    def read(self, size: int) -> bytes:
        self.last = self.f.read(size)
        self.left -= len(self.last)
        if self.left < 0:
            raise BadFile(f"{self.name}: decompresses to more than is allowed; fetch the archive again from its authors")
        return self.last


def _tar_members(path: Path, wanted: Callable[[str], bool], limits: Limits) -> Iterator[tuple[str, bytes]]:
    with gzip.open(path, "rb") as f:
        # headers and padding take up to three blocks a member, and tar pads its end to twenty
        stream = _Stream(f, path.name, limits.total + 3 * BLOCK * (limits.members + 7))
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK, tarinfo=_Header) as archive:
            for count, member in enumerate(_headers(archive, path.name), 1):
                _check_name(path.name, member.name)
                if member.issparse() or not (member.isreg() or member.isdir()):
                    raise BadFile(f"{path.name}: {member.name!r} is a link or a device, wanted files and folders only")
                _check_size(path.name, member.name, member.size, count, limits)
                if member.isreg() and wanted(member.name):
                    yield member.name, archive.extractfile(member).read()
            # tarfile takes a damaged header for the end, which is a block of zeros
            if stream.last != bytes(BLOCK):
                raise tarfile.ReadError("it ends without its end mark")
        while stream.read(BLOCK):  # gzip compares its checksum when it is read to the end
            pass


def _headers(archive: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    while True:
        try:
            member = archive.next()
        except BadFile:
            raise
        except (ValueError, LookupError, OverflowError) as e:  # from damaged extended headers
            raise tarfile.ReadError(f"damaged header, {e}") from None
        if member is None:
            return
        yield member
        archive.members = []  # it keeps every header otherwise


def _zip_members(path: Path, wanted: Callable[[str], bool], limits: Limits) -> Iterator[tuple[str, bytes]]:
    with _said(zipfile.ZipFile, path) as archive:
        infos = archive.infolist()
        for count, info in enumerate(infos, 1):
            _check_name(path.name, info.orig_filename)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BadFile(f"{path.name}: {info.filename!r} is a link or a device, wanted files and folders only")
            _check_size(path.name, info.filename, info.file_size, count, limits)
        if sum(info.file_size for info in infos) > limits.total:
            raise BadFile(f"{path.name}: announces more than the {limits.total} bytes allowed; fetch the archive again from its authors")
        for info in infos:
            if not info.is_dir() and wanted(info.filename):
                yield info.filename, _said(archive.read, info)


def _said(function: Callable, argument: object) -> Any:
    """What the function of zipfile returns; all of its errors that come of damage or of an unknown feature become one."""
    try:
        return function(argument)
    except (NotImplementedError, RuntimeError, ValueError, lzma.LZMAError, struct.error, OverflowError) as e:
        raise zipfile.BadZipFile(str(e)) from None
    except OSError as e:
        if e.errno in (None, errno.EINVAL):  # bzip2's word for damage, and a seek to before the start
            raise zipfile.BadZipFile(str(e)) from None
        raise


def _check_name(archive: str, name: str) -> None:
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or ":" in parts[0] or "\\" in name or "\0" in name:
        raise BadFile(
            f"{archive}: holds the name {name[:80]!r}, which leaves the archive's folder; fetch the archive again from its authors"
        )


def _check_size(archive: str, name: str, size: int, count: int, limits: Limits) -> None:
    if count > limits.members:
        raise BadFile(f"{archive}: holds more than {limits.members} members; fetch the archive again from its authors")
    if not 0 <= size <= limits.member:
        raise BadFile(f"{archive}: {name!r} announces {size} bytes, wanted at most {limits.member}; fetch it again from its authors")
