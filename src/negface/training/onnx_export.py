"""A trained recogniser as an ONNX file with its declaration, its answers compared with torch's before it is published.

torch's own exporters need the packages ``onnx`` or ``onnxscript``; recognition backbones are nine kinds of operations,
so they are watched and written here, as protobuf by the field numbers of onnx.proto3 (IR 8, opset 13).
"""

from __future__ import annotations

import dataclasses
import math
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from negface.foundation.errors import InputError, MismatchError
from negface.foundation.files import atomic_path, write_json
from negface.foundation.hashing import sha256_file
from negface.perception import Declaration
from negface.perception.declarations import sidecar_path
from negface.perception.networks import open_onnx

IR_VERSION, OPSET = 8, 13
INPUT, OUTPUT, BATCH = "images", "embeddings", "n"
TOLERANCE = 1e-4
_FLOAT, _FLOAT_ATTRIBUTE, _INT_ATTRIBUTE, _INTS_ATTRIBUTE = 1, 1, 2, 7


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _attribute(name: str, value: float | int | Sequence[int]) -> bytes:
    if isinstance(value, float):
        body = _varint(2 << 3 | 5) + struct.pack("<f", value) + _field(20, _FLOAT_ATTRIBUTE)
    elif isinstance(value, int):
        body = _field(3, value) + _field(20, _INT_ATTRIBUTE)
    else:
        body = b"".join(_field(8, int(item)) for item in value) + _field(20, _INTS_ATTRIBUTE)
    return _field(1, name) + body


def _tensor(name: str, value: Tensor) -> bytes:
    array = value.detach().cpu().numpy().astype("<f4")
    dims = b"".join(_field(1, side) for side in array.shape)
    return dims + _field(2, _FLOAT) + _field(8, name) + _field(9, np.ascontiguousarray(array).tobytes())


def _value_info(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(side, int) else 2, side)) for side in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, dims)))


class _Graph(TorchFunctionMode):
    """Watches a network answer for one picture and writes down what it does, a node an operation."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        self.weights, self.nodes = dict[str, Tensor](), list[bytes]()
        # Tensors are held beside their names: an id may be given again once its tensor is gone.
        self._named = {id(value): (name, value, True) for name, value in weights.items()}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        watched = any(isinstance(item, Tensor) and id(item) in self._named for item in args)
        if watched and isinstance(result, Tensor):
            writer = _WRITERS.get(function.__name__)
            if writer is None:
                raise InputError(f"operation {function.__name__!r} cannot be written", where="ONNX export",
                                 fix=f"it writes: {', '.join(_WRITERS)}")
            name = f"/{len(self.nodes)}"
            writer(self, name, *args, **(kwargs or {}))
            self.end(result, name)
        return result

    def end(self, value: Tensor, name: str) -> None:
        """Give a result, or the input, its name."""
        self._named[id(value)] = (name, value, False)

    def name(self, value: Tensor) -> str:
        """The name of a result or a weight; a weight is taken into the file."""
        name, _, is_weight = self._named[id(value)]
        if is_weight:
            self.weights[name] = value
        return name

    def given(self, name: str, value: Tensor) -> str:
        """A weight that the network does not have in this form."""
        self.weights[name] = value
        return name

    def node(self, operation: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        parts = [_field(1, name) for name in inputs] + [_field(2, output), _field(4, operation)]
        self.nodes.append(b"".join(parts + [_field(5, _attribute(key, value)) for key, value in attributes.items()]))


def _conv(graph: _Graph, out: str, images: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple, padding: tuple,
          dilation: tuple, groups: int) -> None:
    inputs = [graph.name(item) for item in (images, weight, bias) if item is not None]
    graph.node("Conv", inputs, out, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups)


def _batch_norm(graph: _Graph, out: str, hidden: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None,
                bias: Tensor | None, training: bool, momentum: float, eps: float) -> None:
    scale = graph.name(weight) if weight is not None else graph.given(f"{out}/scale", torch.ones_like(mean))
    shift = graph.name(bias) if bias is not None else graph.given(f"{out}/shift", torch.zeros_like(mean))
    inputs = [graph.name(hidden), scale, shift, graph.name(mean), graph.name(variance)]
    graph.node("BatchNormalization", inputs, out, epsilon=float(eps))


def _prelu(graph: _Graph, out: str, hidden: Tensor, slopes: Tensor) -> None:
    shaped = graph.given(f"{out}/slopes", slopes.detach().reshape(-1, *[1] * (hidden.dim() - 2)))
    graph.node("PRelu", [graph.name(hidden), shaped], out)


def _linear(graph: _Graph, out: str, hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    graph.node("Gemm", [graph.name(item) for item in (hidden, weight, bias) if item is not None], out, transB=1)


def _mean(graph: _Graph, out: str, hidden: Tensor, dim: Sequence[int], keepdim: bool = False) -> None:
    graph.node("ReduceMean", [graph.name(hidden)], out, axes=list(dim), keepdims=int(keepdim))


def _flatten(graph: _Graph, out: str, hidden: Tensor, start_dim: int = 0) -> None:
    if start_dim != 1:
        raise InputError(f"flattens from axis {start_dim}", where="ONNX export")
    graph.node("Flatten", [graph.name(hidden)], out, axis=1)


def _add(graph: _Graph, out: str, one: Tensor, other: Tensor) -> None:
    graph.node("Add", [graph.name(one), graph.name(other)], out)


def _relu(graph: _Graph, out: str, hidden: Tensor, inplace: bool = False) -> None:
    graph.node("Relu", [graph.name(hidden)], out)


def _nothing(graph: _Graph, out: str, hidden: Tensor, *_: Any, **__: Any) -> None:
    graph.node("Identity", [graph.name(hidden)], out)


_WRITERS: dict[str, Callable[..., None]] = {
    "conv2d": _conv,
    "batch_norm": _batch_norm,
    "prelu": _prelu,
    "linear": _linear,
    "mean": _mean,
    "flatten": _flatten,
    "add": _add,
    "__add__": _add,
    "relu": _relu,
    "dropout": _nothing,
}


def onnx_bytes(backbone: nn.Module, size: tuple[int, int], dim: int) -> bytes:
    """The ONNX file of a backbone ``[n, 3, h, w] -> [n, dim]`` in evaluation mode, weights as float32.

    Raises ``InputError`` for an operation that no recognition backbone here uses.
    """
    backbone = backbone.eval().float().to("cpu", memory_format=torch.contiguous_format)
    graph = _Graph({**dict(backbone.named_parameters()), **dict(backbone.named_buffers())})
    images = torch.zeros(1, 3, *size)
    graph.end(images, INPUT)
    with torch.no_grad(), graph:
        answer = backbone(images)
    graph.node("Identity", [graph.name(answer)], OUTPUT)
    parts = (
        (1, graph.nodes),
        (2, ["recogniser"]),
        (5, [_tensor(name, value) for name, value in graph.weights.items()]),
        (11, [_value_info(INPUT, (BATCH, 3, *size))]),
        (12, [_value_info(OUTPUT, (BATCH, dim))]),
    )
    body = b"".join(_field(number, part) for number, items in parts for part in items)
    return _field(1, IR_VERSION) + _field(7, body) + _field(8, _field(1, "") + _field(2, OPSET))


def export_onnx(backbone: nn.Module, declaration: Declaration, path: str | os.PathLike) -> float:
    """Write a recogniser as ONNX with its declaration beside it.

    Args:
        backbone: the network that ``declaration`` describes; put into evaluation mode.
        declaration: of the torch weights; size, colours, normalisation and provenance are taken over.
        path: the ``.onnx`` file.

    Returns:
        Largest difference from torch's answer, as a share of its largest value, over four random pictures.

    Raises:
        MismatchError: that share is above 1e-4; nothing is written. InputError: onnxruntime is not installed.
    """
    path = Path(path)
    found = dataclasses.replace(
        declaration, kind="onnx", architecture="", options={}, input_name=INPUT, output_name=OUTPUT, sha256="")
    with atomic_path(path) as temporary:
        temporary.write_bytes(onnx_bytes(backbone, declaration.size, declaration.dim))
        difference = parity(backbone, open_onnx(temporary, found), declaration.size)
        if not difference <= TOLERANCE:
            raise MismatchError(f"ONNX and torch differ by {difference:.2g} of the largest value", where=path,
                                fix=f"{TOLERANCE} was expected; this is a fault of the export")
    write_json(sidecar_path(path), dataclasses.replace(found, sha256=sha256_file(path)).to_dict())
    return difference


def parity(backbone: nn.Module, network: Callable[[np.ndarray], np.ndarray], size: tuple[int, int]) -> float:
    """Largest difference of two networks as a share of the first one's largest value, on four random pictures."""
    images = torch.randint(0, 256, (4, 3, *size), generator=torch.Generator().manual_seed(0)).float() / 127.5 - 1
    with torch.inference_mode():
        expected = backbone.eval()(images).numpy()
    difference = float(np.abs(network(images.numpy()) - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    return difference if math.isfinite(difference) else math.inf
