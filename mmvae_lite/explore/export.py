"""From an `nn.Sequential` decoder to a layer list and one half-precision blob for the page."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood
from mmvae_lite.networks import EveryFrame, WordEmbedding

KNOWN = (
    "Linear, Conv2d, ConvTranspose2d, BatchNorm2d, ReLU, SiLU, ELU, LeakyReLU, Hardtanh, Tanh, Sigmoid, Softmax, MaxPool2d, "
    "Upsample, Flatten, Unflatten, Dropout, Identity, EveryFrame, WordEmbedding"
)
LARGEST = 4_000_000
"""The most bytes of one decoder: what a reader of a page may be asked to load for it."""


@dataclass(frozen=True)
class ExportedDecoders:
    """`spec` is plain JSON: `decoders` (name -> layers), their `inputs`, `shapes` and `macs`, `dtype`, `values`, `sha256` of `weights`."""

    spec: dict
    weights: bytes


def export_decoders(decoders: Mapping[str, nn.Module], tables: Mapping[str, Tensor] | None = None, positions: int = 32) -> ExportedDecoders:
    """Flatten decoders that map `[batch, latent]` to means, probabilities or logits of any shape.

    Every decoder is an `nn.Sequential` (it may hold others) of the layers in `KNOWN`; batch normalisation and dropout are
    those of evaluation.  `spec["macs"]` counts the multiplications of one decoding.  `tables` are matrices [rows, columns]
    that travel with the weights, such as the codes of an exhibit.  A network that starts with a `WordEmbedding` reads word
    numbers [batch, positions] in the page, in place of one-hot words.

    Raises:
        ValueError: a layer that the page's engine does not know, weights that half precision cannot hold, or a decoder
            of more than `LARGEST` bytes.
    """
    if not decoders:
        raise ValueError("There is no decoder to export.")
    blob = _Blob()
    spec: dict = {"decoders": {}, "inputs": {}, "shapes": {}, "macs": {}, "tables": {}}
    for name, net in decoders.items():
        before = blob.values
        modules = list(_flat(net, name))
        spec["inputs"][name] = _inputs(modules, name, positions)
        shape: tuple[int, ...] = (spec["inputs"][name],)
        layers = []
        for module in modules:
            layer, shape = _layer(module, name, shape, blob)
            layers += layer
        spec["decoders"][name], spec["shapes"][name], spec["macs"][name] = layers, list(shape), sum(_macs(layer) for layer in layers)
        size = 2 * (blob.values - before)
        if size > LARGEST:
            raise ValueError(
                f"Decoder {name!r} needs {size / 1e6:.1f} MB, a page takes {LARGEST / 1e6:.0f} MB for one: train a narrower one for the page."
            )
    for name, table in (tables or {}).items():
        spec["tables"][name] = {"start": blob.put(table, f"The table {name!r}"), "rows": table.shape[0], "columns": table.shape[1]}
    weights = b"".join(blob.parts)
    spec |= {"dtype": "float16", "values": blob.values, "sha256": hashlib.sha256(weights).hexdigest()}
    return ExportedDecoders(spec, weights)


def page_decoders(model: nn.Module) -> dict[str, nn.Sequential]:
    """The decoders of a model, each followed by what its likelihood reads: a sigmoid, a softmax, a limit of pictures to [0, 1].

    For the first argument of the explorers.  Words keep their logits.
    """
    nets = {}
    for name, decoder in model.decoders.items():
        likelihood, shape = model.likelihoods[name], tuple(model.event_shapes[name])
        tail: list[nn.Module] = []
        if isinstance(likelihood, BernoulliLikelihood):
            tail = [nn.Sigmoid()]
        elif isinstance(likelihood, CategoricalLikelihood) and len(shape) == 1:
            tail = [nn.Softmax(-1)]
        elif len(shape) == 3:
            tail = [nn.Hardtanh(0.0, 1.0)]
        nets[name] = nn.Sequential(*decoder, *tail)
    return nets


def page_encoder(encoder: nn.Module) -> nn.Sequential:
    """The mean of an encoder with a `trunk` and one `head` of means and scales, as a page can run it."""
    head = nn.Linear(encoder.head.in_features, encoder.head.out_features // 2, bias=encoder.head.bias is not None)
    with torch.no_grad():
        head.weight.copy_(encoder.head.weight[: head.out_features])
        if encoder.head.bias is not None:
            head.bias.copy_(encoder.head.bias[: head.out_features])
    return nn.Sequential(*(encoder.trunk if isinstance(encoder.trunk, nn.Sequential) else [encoder.trunk]), head)


def reference_decode(spec: dict, weights: bytes, name: str, z: np.ndarray) -> np.ndarray:
    """Run decoder `name` of an exported spec on `z` `[batch, latent]` in float32: what the page must show, `[batch, *shape]`."""
    values = torch.from_numpy(np.frombuffer(weights, dtype="<f2").astype(np.float32))
    x = torch.from_numpy(np.array(z, dtype=np.float32))
    for layer in spec["decoders"][name]:
        x = _run(layer, values, x)
    return x.reshape(len(x), *spec["shapes"][name]).numpy()


class _Blob:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.values = 0

    def put(self, tensor: Tensor | None, where: str) -> int | None:
        """Append a tensor; returns where it starts, counted in values."""
        if tensor is None:
            return None
        half = tensor.detach().cpu().to(torch.float16)
        if not torch.isfinite(half).all():
            raise ValueError(f"{where} holds a weight that is not finite or too large for half precision.")
        start = self.values
        self.parts.append(half.contiguous().numpy().astype("<f2").tobytes())
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


def _inputs(modules: list[nn.Module], name: str, positions: int) -> int:
    for module in modules:
        if isinstance(module, nn.Linear):
            return module.in_features
        if isinstance(module, nn.Unflatten):
            return math.prod(module.unflattened_size)
        if isinstance(module, EveryFrame):
            return module.lstm.input_size
        if isinstance(module, WordEmbedding):
            return positions
        if type(module) not in (nn.Identity, nn.Dropout):
            break
    raise _unknown(name, modules[0] if modules else "none")


def _unknown(name: str, module: object) -> ValueError:
    return ValueError(f"Decoder {name!r} has the layer {module}; the page can run {KNOWN}.")


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [int(v) for v in value] if isinstance(value, tuple) else [int(value)] * 2


SIMPLE = {nn.ReLU: "relu", nn.SiLU: "silu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)


def _layer(module: nn.Module, name: str, shape: tuple[int, ...], blob: _Blob) -> tuple[list[dict], tuple[int, ...]]:
    """The page's layers for one module (none or one) and the shape of what comes out, without the batch."""
    kind = type(module)
    where = f"A {kind.__name__} layer of decoder {name!r}"
    if kind in NOTHING:
        return [], shape
    if kind in SIMPLE:
        return [{"op": SIMPLE[kind]}], shape
    if kind is nn.ELU:
        return [{"op": "elu", "alpha": float(module.alpha)}], shape
    if kind is nn.LeakyReLU:
        return [{"op": "leaky", "slope": float(module.negative_slope)}], shape
    if kind is nn.Hardtanh:
        return [{"op": "clamp", "low": float(module.min_val), "high": float(module.max_val)}], shape
    if kind is nn.Softmax and module.dim in (-1, len(shape)):
        return [{"op": "softmax", "size": shape[-1]}], shape
    if kind is nn.Flatten and module.end_dim in (-1, len(shape)) or kind is nn.Flatten and module.start_dim >= 1:
        end = module.end_dim % (len(shape) + 1)
        flat = math.prod(shape[module.start_dim - 1 : end])
        return [], (*shape[: module.start_dim - 1], flat, *shape[end:])
    if kind is nn.Unflatten and module.dim in (-1, len(shape)):
        return [], (*shape[:-1], *(int(size) for size in module.unflattened_size))
    if kind is nn.Linear:
        layer = {"op": "linear", "inputs": module.in_features, "outputs": module.out_features, "rows": math.prod(shape[:-1])}
        layer |= {"weight": blob.put(module.weight, where), "bias": blob.put(module.bias, where)}
        return [layer], (*shape[:-1], module.out_features)
    if kind is WordEmbedding:
        vocabulary, size = module.weight.shape
        layer = {"op": "embed", "positions": shape[0], "vocabulary": vocabulary, "size": size, "weight": blob.put(module.weight, where)}
        return [layer], (1, shape[0], size)
    if kind is EveryFrame:
        lstm = module.lstm
        layer = {"op": "lstm", "inputs": lstm.input_size, "units": lstm.hidden_size, "frames": module.frames}
        layer |= {"input": blob.put(lstm.weight_ih_l0, where), "hidden": blob.put(lstm.weight_hh_l0, where)}
        return [layer | {"bias": blob.put(lstm.bias_ih_l0 + lstm.bias_hh_l0, where)}], (module.frames, lstm.hidden_size)
    if kind is nn.BatchNorm2d and module.running_var is not None:
        scale = (module.running_var + module.eps).rsqrt() * (1 if module.weight is None else module.weight)
        shift = (0 if module.bias is None else module.bias) - module.running_mean * scale
        layer = {"op": "affine", "channels": shape[0], "size": math.prod(shape[1:])}
        return [layer | {"scale": blob.put(scale, where), "shift": blob.put(shift, where)}], shape
    picture = {"in": list(shape)}
    if kind is nn.Upsample and module.mode == "nearest" and module.scale_factor is not None:
        factor = module.scale_factor if isinstance(module.scale_factor, tuple) else (module.scale_factor,) * 2
        if all(float(f).is_integer() for f in factor):
            down, across = (int(f) for f in factor)
            return [{"op": "upsample", **picture, "factor": [down, across]}], (shape[0], shape[1] * down, shape[2] * across)
    plain = getattr(module, "padding_mode", "zeros") == "zeros" and getattr(module, "groups", 1) == 1
    plain = plain and not isinstance(getattr(module, "padding", 0), str) and _pair(getattr(module, "dilation", 1)) == [1, 1]
    if kind in (nn.Conv2d, nn.ConvTranspose2d) and plain:
        with torch.no_grad():
            out = tuple(module(module.weight.new_zeros(1, *shape)).shape[1:])
        layer = {"op": "conv" if kind is nn.Conv2d else "deconv", **picture, "out": list(out), "kernel": _pair(module.kernel_size)}
        layer |= {"stride": _pair(module.stride), "padding": _pair(module.padding)}
        return [layer | {"weight": blob.put(module.weight, where), "bias": blob.put(module.bias, where)}], out
    if kind is nn.MaxPool2d and plain and _pair(module.padding) == [0, 0] and not module.ceil_mode:
        out = tuple(module(torch.zeros(1, *shape)).shape[1:])
        return [{"op": "maxpool", **picture, "out": list(out), "kernel": _pair(module.kernel_size), "stride": _pair(module.stride)}], out
    raise _unknown(name, module)


def _macs(layer: dict) -> int:
    """Multiplications of one decoding."""
    match layer["op"]:
        case "linear":
            return layer["rows"] * layer["inputs"] * layer["outputs"]
        case "conv":
            return math.prod(layer["out"]) * layer["in"][0] * math.prod(layer["kernel"])
        case "deconv":
            return math.prod(layer["in"]) * layer["out"][0] * math.prod(layer["kernel"])
        case "lstm":
            return layer["frames"] * 4 * layer["units"] ** 2
    return 0


def _run(layer: dict, values: Tensor, x: Tensor) -> Tensor:
    def take(key: str, *shape: int) -> Tensor | None:
        return None if layer[key] is None else values[layer[key] : layer[key] + math.prod(shape)].reshape(shape)

    op, batch = layer["op"], len(x)
    if op == "linear":
        x = x.reshape(batch, layer["rows"], layer["inputs"])
        return F.linear(x, take("weight", layer["outputs"], layer["inputs"]), take("bias", layer["outputs"])).reshape(batch, -1)
    if op in ("conv", "deconv"):
        x, channels, out = x.reshape(batch, *layer["in"]), layer["in"][0], layer["out"][0]
        if op == "conv":
            weight = take("weight", out, channels, *layer["kernel"])
            return F.conv2d(x, weight, take("bias", out), layer["stride"], layer["padding"])
        weight = take("weight", channels, out, *layer["kernel"])
        y = F.conv_transpose2d(x, weight, take("bias", out), layer["stride"], layer["padding"])
        missing = [wanted - found for wanted, found in zip(layer["out"][1:], y.shape[2:], strict=True)]
        return y if missing == [0, 0] else F.conv_transpose2d(x, weight, take("bias", out), layer["stride"], layer["padding"], missing)
    if op == "embed":
        return F.embedding(x.long(), take("weight", layer["vocabulary"], layer["size"]))
    if op == "affine":
        x = x.reshape(batch, layer["channels"], layer["size"])
        return x * take("scale", layer["channels"], 1) + take("shift", layer["channels"], 1)
    if op == "upsample":
        return F.interpolate(x.reshape(batch, *layer["in"]), scale_factor=[float(f) for f in layer["factor"]])
    if op == "maxpool":
        return F.max_pool2d(x.reshape(batch, *layer["in"]), layer["kernel"], layer["stride"])
    if op == "lstm":
        return _run_lstm(layer, take, x)
    if op == "softmax":
        return x.reshape(batch, -1, layer["size"]).softmax(-1)
    if op == "clamp":
        return x.clamp(layer["low"], layer["high"])
    if op == "elu":
        return F.elu(x, layer["alpha"])
    if op == "leaky":
        return F.leaky_relu(x, layer["slope"])
    simple = {"relu": F.relu, "silu": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
    if op in simple:
        return simple[op](x)
    raise ValueError(f"The layer {op!r} is unknown.")


def _run_lstm(layer: dict, take, z: Tensor) -> Tensor:
    units = layer["units"]
    fixed = F.linear(z, take("input", 4 * units, layer["inputs"]), take("bias", 4 * units))
    hidden = take("hidden", 4 * units, units)
    h = c = z.new_zeros(len(z), units)
    states = []
    for _ in range(layer["frames"]):
        write, keep, value, show = (fixed + h @ hidden.T).chunk(4, -1)
        c = keep.sigmoid() * c + write.sigmoid() * value.tanh()
        h = show.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states, 1)
