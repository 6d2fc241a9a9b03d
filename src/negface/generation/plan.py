"""The plan: all that decides the bytes of a dataset, as one frozen value with a hash, and the units it is cut into.

Same plan, same kind of processor, same versions: identical bytes, for any number of workers and any number of kills.
Paths are no part of a plan: a model, a bank or a detector is named by its content.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from negface.foundation.errors import FormatError, InputError, UnknownNameError
from negface.foundation.files import existing_folder
from negface.foundation.hashing import canonical_json, sha256_file, sha256_json

LAYOUT = 1
FORMATS = ("folder", "shards")
ALIGNMENTS = ("none", "template", "detect")
DTYPES = ("fp32", "bf16")
SCOPES = ("identity", "image")
TRIES = 3
TEMPLATE_SIZE = 112
_LEFT_OUT = ("filters", "decoder", "compiled")
_UNIT_BATCHES = {"folder": 4, "shards": 16}


class Unit(NamedTuple):
    """A run of whole identities made and published together: labels ``first`` to ``first + count - 1``."""

    number: int
    first: int
    count: int

    @property
    def labels(self) -> range:
        """The labels of its identities."""
        return range(self.first, self.first + self.count)


def _as_json(value: Any, name: str) -> Any:
    try:
        return json.loads(canonical_json(value))
    except ValueError as error:
        raise InputError(f"{name} holds a number that is not finite", where="plan",
                         fix="look for NaN or Infinity in the model's configuration") from error


@dataclass(frozen=True)
class Plan:
    """What a dataset is made of and how.

    Attributes:
        model: ``{"name", "hash", "licence", "template"}`` of the pipeline folder.
        contexts: ``{"hash", "dim", "conditioner", "describes_real_people", "provenance"}`` of the bank.
        identities: the bank's ids, in label order.
        negatives: ``{"strategy", "scope", "hash", "pool", "seed"}``.
        guidance: ``Guidance.to_dict()``; ``mean_weight`` over the run's timesteps.
        scheduler: ``Scheduler.to_dict()``, the full configuration; ``steps`` how many.
        seed: dataset seed of all noise.
        images: pictures of each identity, exactly.
        batch: rows of every batch; the last is padded to it.
        threads: torch threads of a worker. dtype: ``fp32`` or ``bf16``. device: ``cpu`` or ``cuda``.
        latent_shape: ``(c, h, w)``.
        size: side of the written picture in pixels, ``None`` for the model's own.
        align: ``{"mode": "none"|"template"|"detect", "detector": {...} or None}``.
        codec: ``Codec.to_dict()``. format: ``folder`` or ``shards``.
        identities_per_unit: the unit of work, publication and resuming.
        tries: a picture in which no face is found, or that a filter rejects, is replaced; at most ``tries * images``
            are made of a person.
        versions: of what computes; processor: the kind of processor.
        filters: declared steps (``Step.declared``), in the order they are applied.
        decoder: ``{"name", "hash"}`` where it is not the model's own choice: ``fast`` with the hash of its folder, or
            ``full``.
        compiled: whether the denoiser is compiled (``torch.compile``), which rounds otherwise.
    """

    model: dict[str, Any]
    contexts: dict[str, Any]
    identities: tuple[str, ...]
    negatives: dict[str, Any]
    guidance: dict[str, Any]
    mean_weight: float
    scheduler: dict[str, Any]
    steps: int
    seed: int
    images: int
    batch: int
    threads: int
    dtype: str
    device: str
    latent_shape: tuple[int, int, int]
    size: int | None
    align: dict[str, Any]
    codec: dict[str, Any]
    format: str
    identities_per_unit: int
    tries: int
    versions: dict[str, str]
    processor: str
    layout: int = LAYOUT
    filters: tuple[dict[str, Any], ...] = ()
    decoder: dict[str, Any] | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, dict):  # as JSON would give it back, so that a plan equals the one read from its file
                object.__setattr__(self, item.name, _as_json(value, item.name))
        object.__setattr__(self, "filters", tuple(_as_json(list(self.filters), "filters")))
        if self.layout != LAYOUT:
            raise FormatError(f"has layout {self.layout}, this version of negface writes {LAYOUT}", where="plan")
        if not self.identities:
            raise InputError("no identities", where="plan")
        for name in ("steps", "images", "batch", "threads", "identities_per_unit", "tries"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"must be a whole number of at least 1, not {getattr(self, name)!r}", where=name)
        if self.size is not None and not 8 <= self.size <= 4096:
            raise InputError(f"must be 8 to 4096 pixels, not {self.size}", where="size")
        for name, value, known in (("format", self.format, FORMATS), ("dtype", self.dtype, DTYPES),
                                   ("alignment", self.align.get("mode"), ALIGNMENTS),
                                   ("negative scope", self.negatives.get("scope"), SCOPES)):
            if value not in known:
                raise UnknownNameError(name, str(value), known)

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of the plan."""
        return sha256_json(self.to_dict())

    @property
    def total_images(self) -> int:
        """Pictures asked for."""
        return len(self.identities) * self.images

    @property
    def replaces(self) -> bool:
        """Whether a picture may be rejected, and another made in its place."""
        return self.align["mode"] == "detect" or bool(self.filters)

    @property
    def rejecting_steps(self) -> list[str]:
        """The steps that may reject a picture, in order."""
        return [*(["align"] if self.align["mode"] == "detect" else []), *(item["name"] for item in self.filters)]

    def to_dict(self) -> dict[str, Any]:
        """JSON value; ``from_dict`` gives an equal plan. What is not there (filters, a decoder) is not named."""
        value = {**asdict(self), "identities": list(self.identities), "latent_shape": list(self.latent_shape),
                 "filters": list(self.filters)}
        return {key: item for key, item in value.items() if item or key not in _LEFT_OUT}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: object = "plan") -> Plan:
        """The plan of a ``to_dict`` value; ``FormatError`` if it is not one."""
        try:
            known = {key: item for key, item in value.items() if key != "hash"}
            canonical_json(known)
            lists = {key: tuple(known[key]) for key in ("identities", "latent_shape")}
            return cls(**{**known, **lists, "filters": tuple(known.get("filters", ()))})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise FormatError(f"not a plan ({error})", where=where) from error

    def units(self) -> list[Unit]:
        """The fixed units of work, in label order."""
        step, total = self.identities_per_unit, len(self.identities)
        return [Unit(number, first, min(step, total - first)) for number, first in enumerate(range(0, total, step))]

    def differences(self, other: Plan) -> list[str]:
        """Names of the fields that differ, with both values where they are short: ``"steps: 20 / 50"``."""
        found = []
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if mine == theirs:
                continue
            if isinstance(mine, dict) and isinstance(theirs, dict):
                found += [f"{item.name}.{key}{_both(mine.get(key), theirs.get(key))}"
                          for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
            else:
                found.append(f"{item.name}{_both(mine, theirs)}")
        return found


def _both(mine: Any, theirs: Any) -> str:
    texts = [value[:12] if isinstance(value, str) and len(value) == 64 else str(value) for value in (mine, theirs)]
    return f": {texts[0]} / {texts[1]}" if max(map(len, texts)) <= 40 else ""


def unit_size(images: int, batch: int, format: str) -> int:
    """Identities in a unit: about 4 batches of pictures (16 for shards), chosen so that padding wastes least."""
    if format not in _UNIT_BATCHES:
        raise UnknownNameError("format", format, FORMATS)
    target = _UNIT_BATCHES[format] * batch
    most = max(1, math.ceil(target / images))
    least = max(1, most // 2)
    return min(range(least, most + 1), key=lambda n: (-(-n * images // batch) * batch / (n * images), -n))


def model_hash(folder: str | os.PathLike) -> str:
    """SHA-256 over the names and contents of a model folder's files, apart from hidden ones and READMEs."""
    folder = existing_folder(folder, "model folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.lower().startswith("readme")
                   and not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if not files:
        raise InputError("is empty: no model", where=folder)
    return sha256_json({path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


def model_licence(folder: str | os.PathLike) -> str:
    """The ``license:`` line of the model's card, or ``"not stated"``."""
    for name in ("README.md", "LICENSE.md"):
        card = Path(folder) / name
        if card.is_file():
            found = re.search(r"^licen[sc]e:\s*(.+)$", card.read_text(errors="replace"), re.MULTILINE | re.IGNORECASE)
            if found:
                return found.group(1).strip()
    return "not stated"
