"""Released recognition backbones (ElasticFace, insightface) as safetensors with a declaration beside them.

The architecture is read from the state dict's own keys; what a state dict cannot say (colour order, normalisation) is
the rule of these families, or given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..foundation.checkpoints import read_checkpoint
from ..foundation.errors import FormatError
from ..foundation.files import atomic_path, existing_file, write_json
from ..foundation.hashing import sha256_file
from ..foundation.tensors import read_metadata
from .declarations import Declaration, declaration_from_dict, sidecar_path
from .networks import open_onnx

IMAGE_SIZE = 112


def convert_backbone(path: str | os.PathLike, out: str | os.PathLike, *,
                     facts: Mapping[str, Any] | None = None) -> Declaration:
    """Write a released backbone as ``out`` with ``out.json``, its declaration.

    Args:
        path: an iResNet-18/34/50/100 state dict (``.pth``, safetensors; other widths and lengths are declared), or an
            ``.onnx`` file, which is copied.
        out: the file to write; ``load_recognizer(out)`` opens it.
        facts: keys of ``Declaration`` that the file cannot say; default 112 px, RGB, ``(x - 127.5) / 127.5``.

    Raises:
        FormatError: not a backbone, or incomplete, by file and key. UnsafePickleError: asks for more than tensors.
        InputError: an unknown or ill-typed fact. MismatchError: an ONNX graph that contradicts the declaration.
    """
    path, out = existing_file(path, "backbone"), Path(out)
    if path.suffix.lower() == ".onnx":
        return _convert_onnx(path, out, facts)
    from ..models import backbones, published

    state, architecture = published.backbone_state(_read(path), path)
    dim, options = _size(state, path)
    with published.without_weights():
        network = getattr(backbones, architecture)(**options)
    published.load_strictly(network, state, path)
    from safetensors.torch import save_file

    with atomic_path(out) as temporary:
        save_file(network.state_dict(), temporary)
    known = {"name": path.stem, "kind": "torch", "architecture": architecture, "dim": dim, "options": options}
    return _declare(out, known, facts)


def _read(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return read_checkpoint(path)
    from safetensors.torch import load_file

    read_metadata(path)
    return load_file(path)


def _size(state: Mapping[str, Any], path: Path) -> tuple[int, dict[str, Any]]:
    """The length of an embedding, and what is not as published: ``widths`` and ``dim`` of the architecture."""
    from ..models.backbones import WIDTHS

    widths = tuple(_first_axis(state, f"layer{stage}.0.conv1.weight", path) for stage in range(1, len(WIDTHS) + 1))
    cells = widths[-1] * (IMAGE_SIZE >> len(widths)) ** 2
    dim = _first_axis(state, "fc.weight", path)
    if list(state["fc.weight"].shape) != [dim, cells]:
        raise FormatError(f"'fc.weight' is {list(state['fc.weight'].shape)}, expected [d, {cells}] (pictures of "
                          f"{IMAGE_SIZE} px)", where=path, fix=f"give an iResNet backbone for {IMAGE_SIZE} px")
    options = {} if widths == WIDTHS else {"widths": list(widths)}
    return dim, options if dim == Declaration(name="").dim else {**options, "dim": dim}


def _first_axis(state: Mapping[str, Any], key: str, path: Path) -> int:
    shape = list(state[key].shape) if key in state else None
    if not shape or 0 in shape:
        raise FormatError(f"{key!r} is {'not there' if shape is None else shape}, a matrix of weights was expected",
                          where=path, fix="give an iResNet backbone")
    return shape[0]


def _convert_onnx(path: Path, out: Path, facts: Mapping[str, Any] | None) -> Declaration:
    declared = _declaration({"name": path.stem, "kind": "onnx"}, facts, sha256_file(path))
    open_onnx(path, declared)
    with atomic_path(out) as temporary:
        temporary.write_bytes(path.read_bytes())
    return _declare(out, {"name": path.stem, "kind": "onnx"}, facts)


def _declare(out: Path, known: Mapping[str, Any], facts: Mapping[str, Any] | None) -> Declaration:
    declaration = _declaration(known, facts, sha256_file(out))
    write_json(sidecar_path(out), declaration.to_dict())
    return declaration


def _declaration(known: Mapping[str, Any], facts: Mapping[str, Any] | None, sha256: str) -> Declaration:
    defaults = {"size": [IMAGE_SIZE, IMAGE_SIZE], "channels": "RGB", "mean": 127.5, "std": 127.5, "dim": 512}
    given = {key: value for key, value in (facts or {}).items() if value is not None}
    return declaration_from_dict({**defaults, **known, **given, "sha256": sha256})
