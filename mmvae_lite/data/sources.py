"""Where data comes from: the user's folder, then the cache, then a download that was asked for.

Nothing is downloaded unless asked.  A download resumes, is checked by its published hash, and lands under its
final name only when it is whole.  A file in the user's own folder is used as it is.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 16
SOURCES = ("best", "real", "stand-in")
"""What a set with a stand-in may be asked for: what is at hand, the papers' files or nothing, or what ships."""


class DownloadError(OSError):
    """A download that did not give the file that was wanted."""


class MissingFiles(FileNotFoundError):
    """Files that are neither in the user's folder nor in the cache, where something else may stand in for them."""


@dataclass(frozen=True)
class Source:
    """One file of a data set: its folder, its name, where it can be had, and its published MD5."""

    folder: str
    name: str
    url: str
    md5: str


def user_folder() -> Path | None:
    """The folder that the environment variable MMVAE_DATA names, or None when it is unset.

    Raises FileNotFoundError when it is set to a folder that is not there.
    """
    given = os.environ.get("MMVAE_DATA")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"MMVAE_DATA names {given!r}, which is no folder; create it or unset the variable")
    return folder


def cache_folder() -> Path:
    """Where downloads are kept: MMVAE_CACHE, or mmvae_lite under the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("MMVAE_CACHE") or Path(base, "mmvae_lite")).expanduser()


def find(source: Source) -> Path | None:
    """The path of a file in the user's folder or the cache, or None."""
    folders = [folder for folder in (user_folder(), cache_folder()) if folder is not None]
    paths = [folder / source.folder / source.name for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def obtain(sources: Sequence[Source], download: bool = False) -> list[Path]:
    """The paths of all files, downloading the missing ones only if `download` is True.

    Raises MissingFiles when a file is missing and no download was asked for, FileNotFoundError when MMVAE_DATA names no
    folder, DownloadError when a download failed.
    """
    found = [find(source) for source in sources]
    missing = [source.name for source, path in zip(sources, found) if path is None]
    if missing and not download:
        raise MissingFiles(
            f"missing {', '.join(missing)}: put them under {sources[0].folder}/ in the folder that MMVAE_DATA names, "
            "or ask for a download with download=True"
        )
    return [path or fetch(source) for source, path in zip(sources, found)]


def fetch(source: Source, folder: Path | None = None) -> Path:
    """Download one file into the cache, resuming a partial one, and check its MD5.

    Raises DownloadError in one sentence; a file with a wrong hash is deleted.
    """
    target = (folder or cache_folder()) / source.folder / source.name
    partial = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _download(source.url, partial)
    except (OSError, ValueError, http.client.HTTPException) as e:
        raise DownloadError(
            f"{source.name}: could not be fetched from {source.url} ({str(e).strip() or type(e).__name__}); try again to resume, "
            f"or put the file under {source.folder}/ in the folder that MMVAE_DATA names"
        ) from None
    found = _md5(partial)
    if found != source.md5:
        partial.unlink()
        raise DownloadError(f"{source.name}: found MD5 {found}, wanted {source.md5}; the file was deleted, try again")
    os.replace(partial, target)
    return target


def _download(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as e:
        if e.code != 416:
            raise
        return  # nothing is left to fetch; the hash decides whether the file is whole
    with response, open(partial, "ab" if response.status == 206 else "wb") as f:
        size = response.headers.get("Content-Length")
        whole = f.tell() + int(size) if size else None
        while block := response.read(BLOCK):
            f.write(block)
            _report(partial.stem, f.tell(), whole)
    if whole is not None and partial.stat().st_size < whole:
        raise DownloadError(f"the connection ended after {partial.stat().st_size} of {whole} bytes")


def _report(name: str, done: int, whole: int | None) -> None:
    if sys.stderr.isatty():
        of = f" of {whole / 2**20:.1f}" if whole else ""
        sys.stderr.write(f"\r{name}: {done / 2**20:.1f}{of} MiB" + ("\n" if done == whole else ""))


def _md5(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "md5").hexdigest()
