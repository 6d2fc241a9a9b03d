"""One lazy registry for every plug-in kind; an entry holds its paper, licence and measured result.

Kinds: identity-source, negative, variation, guidance, scheduler, model, loss, metric, protocol, filter, perception.
Entries name their object as ``"module:attribute"``, which is imported on first use; unknown names get a suggestion.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .errors import UnknownNameError

KINDS = (
    "identity-source",
    "negative",
    "variation",
    "guidance",
    "scheduler",
    "model",
    "loss",
    "metric",
    "protocol",
    "filter",
    "perception",
)


@dataclass(frozen=True)
class Entry:
    """One registered plug-in.

    ``target`` is ``"package.module:attribute"``; ``paper`` an arXiv id or citation with its equation (``"ours"`` if
    there is none); ``licence`` that of the code here (weights carry their own); ``measured`` says what was measured
    here and where the figure stands, or is empty when nothing was.
    """

    kind: str
    name: str
    target: str
    summary: str
    paper: str = "ours"
    licence: str = "Apache-2.0"
    measured: str = ""
    tags: tuple[str, ...] = field(default=())

    def load(self) -> Any:
        """Import and return the object."""
        module, _, attribute = self.target.partition(":")
        value: Any = importlib.import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
        return value


_ENTRIES: dict[tuple[str, str], Entry] = {}


def register(kind: str, name: str, target: str, summary: str, **details: Any) -> Entry:
    """Add an entry; the same name with another target is an error of the programmer."""
    if kind not in KINDS:
        raise UnknownNameError("registry kind", kind, KINDS)
    entry = Entry(kind, name, target, summary, **details)
    if _ENTRIES.setdefault((kind, name), entry) != entry:
        raise ValueError(f"{kind} {name!r} is registered twice")
    return entry


def entry(kind: str, name: str) -> Entry:
    """The entry of a name; ``UnknownNameError`` with a suggestion otherwise."""
    found = _ENTRIES.get((kind, name))
    if found is None:
        raise UnknownNameError(kind, name, names(kind))
    return found


def load(kind: str, name: str) -> Any:
    """The object of a name, imported on first use."""
    return entry(kind, name).load()


def names(kind: str) -> list[str]:
    """Registered names of a kind, in order of registration."""
    return [name for found, name in _ENTRIES if found == kind]


def entries(kind: str | None = None) -> Iterator[Entry]:
    """All entries, or those of one kind."""
    return (item for item in list(_ENTRIES.values()) if kind is None or item.kind == kind)
