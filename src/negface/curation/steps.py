"""Declared steps: a filter by name, its numbers and its files, as a plan, a manifest and a command line say it.

What is declared names files by content (SHA-256), so a step means the same wherever the files lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..foundation import registry
from ..foundation.errors import InputError, UnknownNameError
from ..foundation.files import existing_file
from ..foundation.hashing import sha256_file

LAST = "duplicates"


@dataclass(frozen=True)
class Step:
    """One declared filter.

    Attributes:
        name: of the registry, kind ``filter``. parameters: its numbers, all of them. files: role to path.
    """

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def declared(self) -> dict[str, Any]:
        """JSON value: the name, the numbers, and each file by name and content."""
        files = {role: {"name": Path(path).name, "sha256": sha256_file(existing_file(path, role))}
                 for role, path in sorted(self.files.items())}
        return {"name": self.name, "parameters": dict(sorted(self.parameters.items())), "files": files}


def filter_names() -> list[str]:
    """Registered filters that can be declared by a line."""
    return [item.name for item in registry.entries("filter") if "step" in item.tags]


def make_step(name: str, values: Mapping[str, Any]) -> Step:
    """A step from its name and ``key: value``; every key is checked and nothing without a safe default is guessed.

    Errors: ``UnknownNameError`` for a filter or key that does not exist, ``InputError`` for a missing or wrong value.
    """
    if name not in filter_names():
        raise UnknownNameError("filter", name, filter_names())
    kind = registry.load("filter", name)
    unknown = sorted(set(values) - set(kind.parameters) - set(kind.files))
    if unknown:
        raise UnknownNameError(f"setting of the filter {name!r}:", unknown[0], [*kind.parameters, *kind.files])
    numbers = {key: _number(name, key, values.get(key, default)) for key, default in kind.parameters.items()
               if values.get(key, default) is not None}
    files = {key: str(values[key]) for key in kind.files if values.get(key)}
    missing = [key for key in kind.required if key not in numbers and key not in files]
    if missing:
        raise InputError(f"needs {', '.join(missing)}", where=f"filter {name!r}", fix=f"for example: {kind.example}")
    return Step(name, numbers, files)


def _number(name: str, key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{key} is {value!r}, a number was expected", where=f"filter {name!r}") from None
    if not abs(number) < 1e9:
        raise InputError(f"{key} is {value!r}, a finite number was expected", where=f"filter {name!r}")
    return number


def parse_step(text: str) -> Step:
    """A step from one line: ``NAME,key=value,key=value``, for example ``face,least=0.7,detector=yunet.onnx``."""
    name, *settings = text.split(",")
    pairs = [setting.partition("=") for setting in settings]
    wrong = next((key for key, sign, _ in pairs if not sign), None)
    if wrong is not None:
        raise InputError(f"{wrong!r} is no key=value", where=f"filter {text!r}", fix="NAME,key=value,key=value")
    return make_step(name.strip(), {key.strip(): value for key, _, value in pairs})


def ordered(steps: list[Step]) -> list[Step]:
    """The order they are applied in: as declared, but copies are looked for last, among what the others kept."""
    names = [step.name for step in steps]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"{twice!r} is declared twice", where="filters", fix="give each filter once")
    return sorted(steps, key=lambda step: step.name == LAST)
