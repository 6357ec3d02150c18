"""Data sets by the names that `mmvae data` shows: which are here, and what could be fetched."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from mmvae_lite.checks import check_name
from mmvae_lite.data import PAIRED
from mmvae_lite.data.parts import MultimodalSet
from mmvae_lite.data.sources import Source, fetch, find, user_folder

#: The files of a data set: the modules and the names there of tuples of `Source`.
FILES = {
    "mnist": ("labelled_images", "MNIST"),
    "fashion-mnist": ("labelled_images", "FASHION_MNIST"),
    "svhn": ("svhn", "SVHN"),
    "fsdd": ("spoken_digits", "FSDD"),
}
#: What each multimodal set is made of: sets of files, and folders that can only be the user's own.
PARTS = {
    "image-label": ("mnist",),
    "noisy-digits": ("mnist",),
    "digits-street": ("mnist", "svhn"),
    "spoken-written": ("mnist", "fsdd"),
    "entangled": ("mnist", "fashion-mnist"),
    "faces": ("celeba/",),
    "birds": ("cub/",),
    "mog": (),
}
STAND_INS = {
    "image-label": "scikit-learn's digits",
    "noisy-digits": "scikit-learn's digits",
    "digits-street": "scikit-learn's digits and drawn street numbers",
    "spoken-written": "scikit-learn's digits and synthesised speech",
    "entangled": "drawn by the decoders that ship",
    "faces": "drawn faces",
    "birds": "drawn birds with written captions",
    "mog": "always made anew",
}


def paired(name: str, **options: object) -> MultimodalSet:
    """The best set of this name at hand.  Raises KeyError for an unknown name."""
    check_name("data set", name, PAIRED)
    return PAIRED[name](**options)


def sources(name: str) -> tuple[Source, ...]:
    """The files of one set of files, or none where this version cannot fetch them."""
    module, attribute = FILES[name]
    try:
        found = getattr(importlib.import_module(f"mmvae_lite.data.{module}"), attribute, ())
    except ImportError:
        return ()
    return (found,) if isinstance(found, Source) else tuple(found)


def here(part: str) -> bool:
    """Whether all files of a set of files, or a folder of the user's own, are there."""
    if part.endswith("/"):
        folder = user_folder()
        return folder is not None and (folder / part).is_dir()
    wanted = sources(part)
    return bool(wanted) and all(find(source) for source in wanted)


def at_hand(name: str, options: dict[str, object] | None = None) -> str:
    """`real` or `stand-in`: what an experiment on this set would train on now."""
    images = (options or {}).get("images")
    parts = (images,) if images in FILES else PARTS.get(name, ())
    return "real" if all(here(part) for part in parts) else "stand-in"


def describe() -> list[dict[str, object]]:
    """One row for each set of files and each multimodal set: its name, its state and where it is or how to get it."""
    rows = []
    for name in FILES:
        found = [(source, find(source)) for source in sources(name)]
        have = [path for _, path in found if path]
        if found and len(have) == len(found):
            size = sum(path.stat().st_size for path in have) / 2**20
            words = f"{len(have)} files, {size:.1f} MiB, {have[0].parent}"
        elif found:
            words = f"{len(found) - len(have)} files missing; mmvae data fetch {name} takes them from {found[0][0].url.rpartition('/')[0]}"
        else:
            words = "put the files in the folder that MMVAE_DATA names"
        rows.append({"name": name, "state": "here" if have and len(have) == len(found) else "missing", "words": words,
                     "files": [str(path) for path in have], "urls": [s.url for s, path in found if not path]})  # fmt: skip
    for name, parts in PARTS.items():
        state = at_hand(name)
        missing = ", ".join(part.rstrip("/") for part in parts if not here(part))
        words = f"made of {', '.join(part.rstrip('/') for part in parts)}" if parts else STAND_INS[name]
        rows.append({"name": name, "state": state, "words": f"{STAND_INS[name]}; the real set lacks {missing}" if missing else words, "files": [], "urls": []})
    return rows


def fetch_all(name: str, say: Callable[[str], None]) -> list[Path]:
    """Download what a set lacks into the cache, saying what comes from where; returns the paths of all its files.

    Raises KeyError for an unknown name, ValueError for what cannot be fetched, DownloadError for a download that failed.
    """
    check_name("data set", name, {**FILES, **PARTS})
    parts = PARTS.get(name, (name,))
    own = [part.rstrip("/") for part in parts if part.endswith("/")]
    if own:
        raise ValueError(f"{name}: its licence forbids a download by us; put the folder {', '.join(own)} into the one that MMVAE_DATA names")
    paths = []
    for part in parts:
        wanted = sources(part)
        if not wanted:
            raise ValueError(f"{name}: {part} cannot be fetched by this version; put its files in the folder that MMVAE_DATA names")
        for source in wanted:
            at = find(source)
            say(f"{source.name}: is here" if at else f"{source.name}: from {source.url}")
            paths.append(at or fetch(source))
    return paths
