"""A trained recogniser as an ONNX file with its declaration, its answers compared with torch's before it is published.

torch's own exporters need the packages ``onnx`` or ``onnxscript``; recognition backbones are nine kinds of operations,
so the graph of ``torch.export`` is written here, as protobuf by the field numbers of onnx.proto3 (IR 8, opset 13).
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
from torch import Tensor, fx, nn

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


class _Graph:
    """Collects nodes and weights under the names of torch's graph, its two ends under ours."""

    def __init__(self, weights: dict[str, Tensor], ends: dict[str, str]):
        self.weights, self.ends, self.used, self.nodes = weights, ends, dict[str, Tensor](), list[bytes]()

    def name(self, argument: fx.Node) -> str:
        name = self.ends.get(argument.name, f"/{argument.name}")
        if argument.name in self.weights:
            self.used[name] = self.weights[argument.name]
        return name

    def given(self, name: str, value: Tensor) -> str:
        """A weight that torch's graph does not have in this form."""
        self.used[name] = value
        return name

    def node(self, operation: str, inputs: Sequence[str], output: fx.Node, **attributes: Any) -> None:
        parts = [_field(1, name) for name in inputs] + [_field(2, self.name(output)), _field(4, operation)]
        self.nodes.append(b"".join(parts + [_field(5, _attribute(key, value)) for key, value in attributes.items()]))


def _arguments(node: fx.Node, *defaults: Any) -> list[Any]:
    """Positional arguments, those left out filled from the end of ``defaults``."""
    return [*node.args, *defaults[len(node.args) :]]


def _conv(graph: _Graph, node: fx.Node) -> None:
    images, weight, bias, stride, padding, dilation, groups = _arguments(
        node, None, None, None, [1, 1], [0, 0], [1, 1], 1)
    inputs = [graph.name(item) for item in (images, weight, bias) if item is not None]
    graph.node("Conv", inputs, node, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups)


def _batch_norm(graph: _Graph, node: fx.Node) -> None:
    hidden, weight, bias, mean, variance = node.args[:5]
    ones = torch.ones_like(graph.weights[mean.name])
    scale = graph.name(weight) if weight is not None else graph.given(f"{node.name}_scale", ones)
    shift = graph.name(bias) if bias is not None else graph.given(f"{node.name}_shift", 0 * ones)
    inputs = [graph.name(hidden), scale, shift, graph.name(mean), graph.name(variance)]
    graph.node("BatchNormalization", inputs, node, epsilon=float(node.args[7]))


def _prelu(graph: _Graph, node: fx.Node) -> None:
    slopes = graph.weights[node.args[1].name]
    axes = node.args[0].meta["val"].dim() - 2
    name = graph.given(f"{node.name}_slopes", slopes.reshape(-1, *[1] * axes))
    graph.node("PRelu", [graph.name(node.args[0]), name], node)


def _linear(graph: _Graph, node: fx.Node) -> None:
    inputs = [graph.name(item) for item in node.args if item is not None]
    graph.node("Gemm", inputs, node, transB=1)


def _mean(graph: _Graph, node: fx.Node) -> None:
    hidden, axes, keep = _arguments(node, None, None, False)
    graph.node("ReduceMean", [graph.name(hidden)], node, axes=list(axes), keepdims=int(keep))


def _flatten(graph: _Graph, node: fx.Node) -> None:
    hidden, start = _arguments(node, None, 0)[:2]
    if start != 1:
        raise InputError(f"flattens from axis {start}", where="ONNX export")
    graph.node("Flatten", [graph.name(hidden)], node, axis=1)


def _plain(operation: str, n_inputs: int) -> Callable[[_Graph, fx.Node], None]:
    return lambda graph, node: graph.node(operation, [graph.name(item) for item in node.args[:n_inputs]], node)


_WRITERS: dict[str, Callable[[_Graph, fx.Node], None]] = {
    "aten.conv2d.default": _conv,
    "aten.batch_norm.default": _batch_norm,
    "aten.prelu.default": _prelu,
    "aten.linear.default": _linear,
    "aten.mean.dim": _mean,
    "aten.flatten.using_ints": _flatten,
    "aten.relu.default": _plain("Relu", 1),
    "aten.add.Tensor": _plain("Add", 2),
    "aten.dropout.default": _plain("Identity", 1),
}


def onnx_bytes(backbone: nn.Module, size: tuple[int, int], dim: int) -> bytes:
    """The ONNX file of a backbone ``[n, 3, h, w] -> [n, dim]`` in evaluation mode, weights as float32.

    Raises ``InputError`` for an operation that no recognition backbone here uses.
    """
    backbone = backbone.eval().float().to("cpu", memory_format=torch.contiguous_format)
    program = torch.export.export(
        backbone, (torch.zeros(2, 3, *size),), dynamic_shapes=({0: torch.export.Dim("n")},), strict=False)
    signature, state = program.graph_signature, program.state_dict
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    ends = {signature.user_inputs[0]: INPUT, signature.user_outputs[0]: OUTPUT}
    graph = _Graph({name: state[key] for name, key in names.items() if key in state}, ends)
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        writer = _WRITERS.get(str(node.target))
        if writer is None:
            raise InputError(f"operation {node.target} cannot be written", where="ONNX export",
                             fix=f"it writes: {', '.join(_WRITERS)}")
        writer(graph, node)
    parts = (
        (1, graph.nodes),
        (2, ["recogniser"]),
        (5, [_tensor(name, value) for name, value in graph.used.items()]),
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
