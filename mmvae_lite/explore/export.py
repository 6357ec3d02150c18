"""From an `nn.Sequential` decoder to a layer list and one half-precision blob for the page."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

ELEMENTWISE = {nn.ReLU: "relu", nn.SiLU: "silu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
KNOWN = "Linear, ReLU, SiLU, Tanh, Sigmoid, Softmax, Unflatten"


@dataclass(frozen=True)
class ExportedDecoders:
    """`spec` is plain JSON: `decoders` (name -> layers), `dtype`, `values`, `sha256` of `weights`."""

    spec: dict
    weights: bytes


def export_decoders(decoders: Mapping[str, nn.Module]) -> ExportedDecoders:
    """Flatten decoders that map `[batch, latent]` to means or probabilities.

    Every decoder is an `nn.Sequential` (it may hold others) of Linear, ReLU, SiLU, Tanh, Sigmoid,
    Softmax over the last axis and Unflatten.

    Raises:
        ValueError: a layer that the page's engine does not know, or weights that half precision
            cannot hold.
    """
    if not decoders:
        raise ValueError("There is no decoder to export.")
    blob = _Blob()
    layers = {name: [_layer(module, name, blob) for module in _flat(net, name)] for name, net in decoders.items()}
    weights = b"".join(blob.parts)
    spec = {
        "decoders": layers,
        "dtype": "float16",
        "values": blob.values,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    return ExportedDecoders(spec, weights)


def reference_decode(spec: dict, weights: bytes, name: str, z: np.ndarray) -> np.ndarray:
    """Run decoder `name` of an exported spec on `z` `[batch, latent]` in float32: what the page must show."""
    values = np.frombuffer(weights, dtype="<f2").astype(np.float32)
    x = np.asarray(z, dtype=np.float32)
    for layer in spec["decoders"][name]:
        x = _run(layer, values, x)
    return x


class _Blob:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.values = 0

    def put(self, tensor: torch.Tensor, where: str) -> int:
        """Append a tensor; returns where it starts, counted in values."""
        half = tensor.detach().cpu().to(torch.float16)
        if not torch.isfinite(half).all():
            raise ValueError(f"{where} holds a weight that is not finite or too large for half precision.")
        start = self.values
        self.parts.append(half.numpy().astype("<f2").tobytes())
        self.values += half.numel()
        return start


def _flat(net: nn.Module, name: str) -> Iterator[nn.Module]:
    if not isinstance(net, nn.Sequential):
        raise ValueError(f"Decoder {name!r} is a {type(net).__name__}; the page can run an nn.Sequential only.")
    for module in net:
        if isinstance(module, nn.Sequential):
            yield from _flat(module, name)
        else:
            yield module


def _layer(module: nn.Module, name: str, blob: _Blob) -> dict:
    kind = type(module)
    if kind is nn.Linear:
        where = f"A Linear layer of decoder {name!r}"
        return {
            "op": "linear",
            "inputs": module.in_features,
            "outputs": module.out_features,
            "weight": blob.put(module.weight, where),
            "bias": None if module.bias is None else blob.put(module.bias, where),
        }
    if kind is nn.Softmax and module.dim in (-1, 1):
        return {"op": "softmax"}
    if kind is nn.Unflatten and module.dim in (-1, 1):
        return {"op": "unflatten", "shape": [int(size) for size in module.unflattened_size]}
    if kind in ELEMENTWISE:
        return {"op": ELEMENTWISE[kind]}
    raise ValueError(f"Decoder {name!r} has the layer {module}; the page can run {KNOWN}.")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))  # does not overflow


def _run(layer: dict, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    op = layer["op"]
    if op == "linear":
        rows, columns = layer["outputs"], layer["inputs"]
        start = layer["weight"]
        y = x @ values[start : start + rows * columns].reshape(rows, columns).T
        return y if layer["bias"] is None else y + values[layer["bias"] : layer["bias"] + rows]
    if op == "relu":
        return np.maximum(x, 0)
    if op == "silu":
        return x * _sigmoid(x)
    if op == "tanh":
        return np.tanh(x)
    if op == "sigmoid":
        return _sigmoid(x)
    if op == "softmax":
        powers = np.exp(x - x.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)
    if op == "unflatten":
        return x.reshape(len(x), *layer["shape"])
    raise ValueError(f"The layer {op!r} is unknown.")
