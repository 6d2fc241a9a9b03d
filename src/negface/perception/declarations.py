"""Declarations: what a perception model expects and gives, written down once and checked on use.

A model file does not say its colour order, normalisation or alignment; a wrong guess costs accuracy silently. So none
is guessed: a declaration is given, lies beside the file, or is built in for a well-known file (found by SHA-256).
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..foundation.errors import FormatError, InputError, MismatchError
from ..foundation.files import existing_file, read_json
from ..foundation.hashing import sha256_file

TASKS = ("recognizer", "detector", "pose", "quality", "analyser")
KINDS = ("onnx", "torch")
CHANNELS = ("RGB", "BGR")


@dataclass(frozen=True)
class Declaration:
    """One perception model: its file, its input and its output.

    Args:
        name: short name, used in reports.
        sha256: hex SHA-256 of the model file; empty in a hand-written declaration (then filled from the file).
        task: ``recognizer`` | ``detector`` | ``pose`` | ``quality`` | ``analyser``.
        kind: ``onnx``, or ``torch`` (a state dict for the registered model ``architecture``).
        size: input height and width in pixels; ``(0, 0)`` = any size (detectors).
        channels: colour order of the input, ``RGB`` or ``BGR``.
        mean, std: per channel in the order of ``channels``, on the 0..255 scale; the input is ``(x - mean) / std``.
        dim: length of the output vector (0 for detectors).
        batch: the batch size the file is fixed to, or None if it takes any.
        input_name, output_name: names in the graph; empty = its only input, its first output.
        template: alignment its input expects (a name in ``negface.datasets.templates.TEMPLATES``), or empty.
        architecture: for ``torch``: name of the ``model`` registry entry.
        options: for ``torch``: arguments of the architecture, such as ``dim`` and ``image_size``.
        licence, trained_on, source: terms of the weights, what they were trained on, where they come from.
        developed_on: the pairs by which the weights were chosen (``evaluation.provenance.development_text``), or empty.
        measured: figures that were measured on held-out pictures, by name.
    """

    name: str
    sha256: str = ""
    task: str = "recognizer"
    kind: str = "onnx"
    size: tuple[int, int] = (112, 112)
    channels: str = "RGB"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    dim: int = 512
    batch: int | None = None
    input_name: str = ""
    output_name: str = ""
    template: str = "arcface"
    architecture: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    licence: str = "unknown"
    trained_on: str = "unknown"
    source: str = "unknown"
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)
    developed_on: str = ""

    def __post_init__(self) -> None:
        for field, allowed in (("task", TASKS), ("kind", KINDS), ("channels", CHANNELS)):
            if getattr(self, field) not in allowed:
                raise InputError(f"{field} is {getattr(self, field)!r}", where=f"declaration {self.name!r}",
                                 fix=f"one of: {', '.join(allowed)}")
        if len(self.size) != 2 or len(self.mean) != 3 or len(self.std) != 3 or any(value <= 0 for value in self.std):
            raise InputError("size needs 2 numbers, mean 3, std 3 above zero", where=f"declaration {self.name!r}")
        if self.kind == "torch" and not self.architecture:
            raise InputError("a torch model needs an architecture", where=f"declaration {self.name!r}",
                             fix="name the registered model, for example iresnet50")

    @property
    def identity(self) -> dict[str, str]:
        """``{"name", "hash"}``: how banks, models and embeddings refer to this model."""
        return {"name": self.name, "hash": self.sha256}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``developed_on`` only where it says something, so that hashes of others stay theirs."""
        values = dataclasses.asdict(self)
        if not self.developed_on:
            del values["developed_on"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


_FIELDS = {field.name: field for field in dataclasses.fields(Declaration)}
_TYPES = {"options": Mapping, "measured": Mapping, "dim": int, "batch": (int, type(None)),
          "size": (list, tuple), "mean": (list, tuple, int, float), "std": (list, tuple, int, float)}
_NEEDED = ("size", "channels", "mean", "std", "dim")


def _one_value(key: str, value: Any, where: object) -> Any:
    if key not in _FIELDS:
        close = difflib.get_close_matches(key, _FIELDS, n=1)
        raise InputError(f"unknown key {key!r} in the declaration", where=where,
                         fix=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_FIELDS)}")
    if not isinstance(value, _TYPES.get(key, str)) or isinstance(value, bool):
        raise InputError(f"{key} is {value!r}, of the wrong type", where=where)
    if key in ("mean", "std"):
        values = value if isinstance(value, (list, tuple)) else [value] * 3
        kinds: Any = (int, float)
        convert: Any = float
    elif key == "size":
        values, kinds, convert = value, int, int
    else:
        return value
    if not all(isinstance(item, kinds) and not isinstance(item, bool) for item in values):
        raise InputError(f"{key} is {value!r}; numbers were expected", where=where)
    return tuple(convert(item) for item in values)


def declaration_from_dict(values: Mapping[str, Any], *, where: object = "declaration") -> Declaration:
    """A declaration from plain values; every key is checked and what has no safe default must be there."""
    if not isinstance(values, Mapping):
        raise FormatError("a declaration is a table of keys and values", where=where)
    checked = {key: _one_value(key, value, where) for key, value in values.items()}
    missing = [key for key in ("name", *_NEEDED) if key not in checked]
    if missing:
        raise InputError(f"the declaration lacks {', '.join(missing)}", where=where, fix="these are never guessed")
    return Declaration(**checked)


def read_declaration(path: str | os.PathLike) -> Declaration:
    """A declaration from a JSON or TOML file."""
    path = existing_file(path, "declaration")
    if path.suffix.lower() != ".toml":
        return declaration_from_dict(read_json(path), where=path)
    try:
        return declaration_from_dict(tomllib.loads(path.read_text()), where=path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"not valid TOML ({error})", where=path) from error


def sidecar_path(model: str | os.PathLike) -> Path:
    """Where the declaration of a model file lies: ``<model file>.json``."""
    return Path(f"{os.fspath(model)}.json")


def _undeclared(path: Path, sha256: str, task: str) -> InputError:
    example = {"name": path.stem, "task": task, "size": [112, 112], "channels": "RGB", "mean": 127.5, "std": 127.5,
               "dim": 512}
    return InputError(
        f"no declaration for this {task} (SHA-256 {sha256[:12]} is not a known file)", where=path,
        fix=f"write {sidecar_path(path).name} beside it, or pass a declaration, like {json.dumps(example)} "
            "with the values its authors give")


def resolve_declaration(path: str | os.PathLike, declaration: Declaration | Mapping | str | os.PathLike | None = None,
                        *, task: str = "recognizer") -> Declaration:
    """The declaration of a model file, with its hash checked.

    Found in this order: ``declaration`` (a value, a mapping, or a JSON/TOML file), the sidecar ``<file>.json``, the
    built-in table of well-known files. ``InputError`` if there is none or it is of another task, ``MismatchError`` if
    it was written for a file of another hash.
    """
    from .known import KNOWN

    path = _existing_model(Path(path))
    sha256 = sha256_file(path)
    if isinstance(declaration, Mapping):
        found: Declaration | None = declaration_from_dict(declaration)
    elif isinstance(declaration, Declaration) or declaration is None:
        found = declaration
    else:
        found = read_declaration(declaration)
    if found is None:
        found = read_declaration(sidecar_path(path)) if sidecar_path(path).is_file() else KNOWN.get(sha256)
    if found is None:
        raise _undeclared(path, sha256, task)
    if found.task != task:
        raise InputError(f"is declared as a {found.task}, a {task} was expected", where=path)
    if found.sha256 and found.sha256.lower() != sha256:
        raise MismatchError(f"has SHA-256 {sha256[:12]}…, its declaration {found.name!r} is for {found.sha256[:12]}…",
                            where=path, fix="the file is damaged or another one; declare this one")
    return dataclasses.replace(found, sha256=sha256)


def _existing_model(path: Path) -> Path:
    from .known import KNOWN

    known = next((item for item in KNOWN.values() if item.name == str(path)), None)
    if known is not None and not path.exists():
        raise InputError(f"{known.name} is known, but NegFace ships no weights",
                         fix=f"give its file (from {known.source})")
    return existing_file(path, "model file")
