"""Weights that we trained: half-precision safetensors, each beside a card that says what it is and holds its hash.

NAME.safetensors holds the numbers and NAME.json, the card, says how they came about.  A network's weights, a model's and
an exhibit (what a model made of held-out items) are kept alike; nothing is unpickled, and nothing is used whose hash is
not the card's.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import mmvae_lite
from mmvae_lite.checks import check_name
from mmvae_lite.results import _commit

SHIPPED = Path(__file__).resolve().parent
LICENCE = "CC0-1.0"
REQUIRED = ("what", "network", "data", "items", "seed", "minutes", "device")
ADDED = ("name", "sha256", "bytes", "values", "licence", "library", "commit", "torch")
N = TypeVar("N", bound=nn.Module)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


class BadWeights(ValueError):
    """Weights or a card that are broken, of something else, or do not fit."""


def save(name: str, module: nn.Module, card: Mapping[str, Any], folder: str | os.PathLike | None = None) -> Path:
    """Write the weights and buffers of a network in half precision, and its card; returns the path of the card.

    card: plain JSON with `what` (one sentence), `network` (how to build it, an expression or a sentence), `data` (name of
        the set), `items` (how many it was trained on), `seed`, `minutes`, `device`, and whatever else is known, such as
        `metrics`, a dict of name -> {"value", "n"}.  Added here: `name`, `sha256`, `bytes`, `values`, `library`, `commit`,
        `torch`, and `licence` unless given.
    folder: where; the package's own by default.

    Raises ValueError for a malformed name or card and for numbers that half precision cannot hold, OSError where nothing
    can be written; nothing half-written remains.
    """
    return save_tensors(name, module.state_dict(), card, folder)


def save_tensors(name: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any], folder: str | os.PathLike | None = None) -> Path:
    """`save` for any named tensors, such as an exhibit; floats become half precision, whole numbers stay as they are."""
    _check(name, card)
    folder = Path(folder or SHIPPED)
    weights = safetensors.torch.save({k: _half(k, v) for k, v in tensors.items()}, {"name": name})
    entry = {
        "name": name,
        **card,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "bytes": len(weights),
        "values": sum(v.numel() for v in tensors.values()),
        "licence": card.get("licence", LICENCE),
        "library": mmvae_lite.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
    }
    text = json.dumps(entry, indent=2, ensure_ascii=False) + "\n"
    _replace({folder / f"{name}.safetensors": weights, folder / f"{name}.json": text.encode()})
    return folder / f"{name}.json"


def load_weights(name: str, module: nn.Module, folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """Put weights that `save` wrote into a network, in its own precision and on its device; returns the card.

    Raises KeyError for an unknown name, BadWeights where weights or card are missing or broken, where the hash is
    another, or where the network has other layers; the network is then as it was.
    """
    tensors, card = load_tensors(name, folder)
    wanted = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise BadWeights(
                f"weights {name!r}: {key} is {_shape(found, key)}, the network's is {_shape(wanted, key)}; build it as the card says: {card['network']}"
            )
    module.load_state_dict(tensors)
    return card


def load_network(name: str, build: Callable[[], N], folder: str | os.PathLike | None = None) -> tuple[N, dict[str, Any]]:
    """The network that `build` makes, with the weights saved under a name, and their card.

    It is in evaluation mode on the CPU and its weights are fixed; nothing is drawn from the caller's generator.
    Raises as `load_weights`.
    """
    with torch.device("meta"):  # no random start
        network = build()
    network = network.to_empty(device="cpu")
    card = load_weights(name, network, folder)
    return network.eval().requires_grad_(False), card


def load_tensors(name: str, folder: str | os.PathLike | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors that were saved under a name, on the CPU, floats in half precision, and their card.

    Raises as `load_weights`.
    """
    folder = Path(folder or SHIPPED)
    check_name("weights", name, _names(folder))
    card = _card(folder / f"{name}.json")
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise BadWeights(f"weights {name!r}: the card is there but {path.name} is missing; install the package again")
    held = path.read_bytes()
    found = hashlib.sha256(held).hexdigest()
    if found != card["sha256"]:
        raise BadWeights(f"weights {name!r}: {path.name} has SHA-256 {found[:12]}…, its card says {str(card['sha256'])[:12]}…; install the package again")
    try:
        return safetensors.torch.load(held), card
    except (SafetensorError, ValueError) as e:
        raise BadWeights(f"weights {name!r}: {path.name} is no safetensors file ({e}); save it again") from None


def cards(folder: str | os.PathLike | None = None) -> dict[str, dict[str, Any]]:
    """Name -> card of everything that is here.  Raises BadWeights for a broken card."""
    folder = Path(folder or SHIPPED)
    return {name: _card(folder / f"{name}.json") for name in _names(folder)}


def _names(folder: Path) -> list[str]:
    return sorted({p.name.removesuffix(p.suffix) for pattern in ("*.json", "*.safetensors") for p in folder.glob(pattern)})


def _card(path: Path) -> dict[str, Any]:
    name = path.name.removesuffix(".json")
    if not path.is_file():
        raise BadWeights(f"weights {name!r}: the weights are there but their card {path.name} is missing; install the package again")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise BadWeights(f"weights {name!r}: the card {path.name} is broken ({e}); install the package again") from None
    missing = [key for key in (*REQUIRED, *ADDED) if not isinstance(card, dict) or key not in card]
    if missing:
        raise BadWeights(f"weights {name!r}: the card {path.name} lacks {', '.join(missing)}; save them again")
    if card["name"] != name:
        raise BadWeights(f"weights {name!r}: the card {path.name} is that of {card['name']!r}; do not rename these files")
    return card


def _check(name: str, card: Mapping[str, Any]) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"weights: found the name {name!r}, wanted small letters, digits and - _ . only")
    missing = [key for key in REQUIRED if key not in card]
    if missing:
        raise ValueError(f"weights {name!r}: the card lacks {', '.join(missing)}")
    own = [key for key in ADDED if key in card and key != "licence"]
    if own:
        raise ValueError(f"weights {name!r}: the card gives {', '.join(own)}, which save itself adds; leave it out")
    for metric, entry in card.get("metrics", {}).items():
        if not isinstance(entry, Mapping) or not {"value", "n"} <= entry.keys() or not math.isfinite(entry["value"]):
            raise ValueError(f"weights {name!r}: metric {metric!r} is {entry!r}, wanted a finite value and n, what it is a mean of")


def _half(key: str, x: Tensor) -> Tensor:
    x = x.detach().cpu().contiguous()
    if not x.is_floating_point():
        return x.clone()
    half = x.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise ValueError(f"{key} holds a number that is not finite or too large for half precision (65504)")
    return half.clone()


def _shape(shapes: Mapping[str, tuple[int, ...]], key: str) -> str:
    return f"{list(shapes[key])}" if key in shapes else "missing"


def _replace(files: Mapping[Path, bytes]) -> None:
    """Write all files beside their places, then move them in; a reader between two moves sees a hash that disagrees."""
    parts: dict[Path, str] = {}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, parts[path] = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(parts[path], 0o644)
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as e:
        raise OSError(f"weights {next(iter(files)).name} could not be written ({e.strerror}); choose another folder or free some space") from None
    finally:
        for part in parts.values():
            Path(part).unlink(missing_ok=True)
