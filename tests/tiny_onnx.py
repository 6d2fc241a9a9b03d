"""Tiny real ONNX files for tests: a hand-written protobuf encoder, a linear recogniser, and a detector of red squares.

Field numbers are those of onnx.proto3 (ONNX 1.8 and later); the package ``onnx`` is not needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FLOAT, INT64 = 1, 7


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, array: np.ndarray) -> bytes:
    kind = {"float32": FLOAT, "int64": INT64}[array.dtype.name]
    dims = b"".join(field(1, size) for size in array.shape)
    return dims + field(2, kind) + field(8, name) + field(9, array.tobytes())


def value_info(name: str, shape: tuple[int | str, ...], kind: int = FLOAT) -> bytes:
    dims = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))


def node(op: str, inputs: list[str], output: str, **ints: list[int]) -> bytes:
    attributes = b"".join(field(5, field(1, key) + b"".join(field(8, value) for value in values) + field(20, 7))
                          for key, values in ints.items())
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, op) + attributes


def model(nodes: list[bytes], tensors: list[bytes], inputs: list[bytes], outputs: list[bytes]) -> bytes:
    parts = ((1, nodes), (2, ["tiny"]), (5, tensors), (11, inputs), (12, outputs))
    graph = b"".join(field(number, part) for number, items in parts for part in items)
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def linear_weights(size: int, dim: int, seed: int = 0) -> np.ndarray:
    """float32 ``[3 * size * size, dim]``."""
    return np.random.default_rng(seed).standard_normal((3 * size * size, dim)).astype(np.float32)


def write_linear(path: Path, *, size: int = 8, dim: int = 4, batch: int | str = "n", seed: int = 0, channels: int = 3,
                 weights: np.ndarray | None = None) -> Path:
    """A recogniser ``flatten(x) @ weights``: input ``input`` ``[batch, channels, size, size]``, output ``output``."""
    weights = linear_weights(size, dim, seed) if weights is None else weights
    path.write_bytes(model(
        [node("Flatten", ["input"], "flat"), node("MatMul", ["flat", "w"], "output")], [tensor("w", weights)],
        [value_info("input", (batch, channels, size, size))], [value_info("output", (batch, dim))]))
    return path


POINTS = np.array([[-1.0, -1.0], [1.0, -1.2], [0.1, 0.2], [-0.8, 1.0], [0.8, 1.1]], np.float32)
"""Offsets of the red-square detector's five points from the cell's corner, in strides of 8 pixels."""


def write_red_detector(path: Path) -> Path:
    """A file with YuNet's twelve outputs that finds 8 x 8 cells by redness (R - G): score = redness, box 16 x 16."""
    nodes, tensors, outputs = [], [], []
    for stride in (8, 16, 32):
        for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            key = f"{name}_{stride}"
            weight, bias = np.zeros((width, 3, stride, stride), np.float32), np.zeros(width, np.float32)
            if stride == 8 and name in ("cls", "obj"):
                weight[0, 2], weight[0, 1] = 1 / (255 * 64), -1 / (255 * 64)  # OpenCV feeds BGR
            elif stride == 8:
                bias = np.array([0.5, 0.5, np.log(2), np.log(2)]) if name == "bbox" else POINTS.ravel() + 0.5
                bias = bias.astype(np.float32)
            tensors += [tensor(f"w_{key}", weight), tensor(f"b_{key}", bias),
                        tensor(f"s_{key}", np.array([1, -1, width], np.int64))]
            nodes += [node("Conv", ["input", f"w_{key}", f"b_{key}"], f"c_{key}", strides=[stride, stride],
                           kernel_shape=[stride, stride]),
                      node("Transpose", [f"c_{key}"], f"t_{key}", perm=[0, 2, 3, 1]),
                      node("Reshape", [f"t_{key}", f"s_{key}"], key)]
            outputs.append(value_info(key, (1, "cells", width)))
    path.write_bytes(model(nodes, tensors, [value_info("input", (1, 3, "height", "width"))], outputs))
    return path


RED_DETECTOR = {"name": "red-squares", "task": "detector", "size": [0, 0], "channels": "BGR", "mean": 0, "std": 1,
                "dim": 0}
