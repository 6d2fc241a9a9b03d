"""``ContextBank``: the identities of a dataset as unit vectors, with ids and with where they came from.

Contract: architecture, "Context". A bank never loses which source, seed and recogniser (hash) made it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..foundation.errors import FormatError, InputError, MismatchError
from ..foundation.hashing import canonical_json, sha256_array, sha256_json
from ..foundation.tensors import read_tensors, write_tensors

UNIT_TOLERANCE = 1e-3
BLOCK = 16384
REAL_PEOPLE_NOTE = "not for release as anonymous: the contexts describe real people"
PROVENANCE_DEFAULTS: dict[str, Any] = {
    "source": "vectors", "seed": None, "parameters": {}, "conditioner": None, "describes_real_people": False,
    "parent": None,
}


@dataclass(frozen=True, eq=False)
class ContextBank:
    """Identity contexts with ids and provenance; immutable and validated.

    Args:
        contexts: float32 ``[n, d]``, finite, rows of unit length within 1e-3 (else ``InputError`` naming the row).
        ids: n distinct identity ids; they become folder names, so no ``/``, ``\\`` or control characters.
        provenance: ``source``, ``seed``, ``parameters``, ``conditioner`` (name and hash, or None where no recogniser
            was involved), ``describes_real_people``, ``parent`` (hash of the bank or embeddings it was made from).
            Missing keys get defaults; further keys are kept.
    """

    contexts: np.ndarray
    ids: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        contexts = np.asarray(self.contexts)
        _check_contexts(contexts)
        ids = tuple(str(item) for item in self.ids)
        _check_ids(ids, len(contexts))
        object.__setattr__(self, "contexts", np.ascontiguousarray(contexts))
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "provenance", _checked_provenance(self.provenance))

    @classmethod
    def from_vectors(cls, vectors: Any, ids: Sequence[object] | None = None, *, normalise: bool = False,
                     **provenance: Any) -> ContextBank:
        """A bank of any real vectors ``[n, d]`` (numpy or torch, any float dtype); ids default to ``"0" … "n-1"``.

        With ``normalise`` each row is divided by its length (in float64); a zero row is an ``InputError``.
        """
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
            raise InputError(f"vectors must be real numbers [n, d], not {vectors.dtype} {list(vectors.shape)}")
        if normalise:
            vectors = unit_rows(vectors)
        ids = range(len(vectors)) if ids is None else ids
        return cls(vectors.astype(np.float32, copy=False), tuple(str(item) for item in ids), provenance)

    def __len__(self) -> int:
        return len(self.contexts)

    def __repr__(self) -> str:
        return f"ContextBank({len(self)} x {self.dim}, source {self.provenance['source']!r}, hash {self.hash[:12]})"

    @property
    def dim(self) -> int:
        """Length of a context."""
        return self.contexts.shape[1]

    @property
    def conditioner(self) -> dict[str, Any] | None:
        """Name and hash of the recogniser in whose space the contexts live; None if no recogniser was involved."""
        return self.provenance["conditioner"]

    @property
    def describes_real_people(self) -> bool:
        """Whether a context stands for somebody who exists."""
        return bool(self.provenance["describes_real_people"])

    @property
    def release_note(self) -> str | None:
        """What manifests and reports must carry unless the leakage check passes; None where nothing is needed."""
        return REAL_PEOPLE_NOTE if self.describes_real_people else None

    @cached_property
    def hash(self) -> str:
        """Hex SHA-256 of contexts, ids and provenance."""
        return sha256_json({"contexts": sha256_array(self.contexts), "ids": self.ids, "provenance": self.provenance})

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each identity id."""
        return {identity: row for row, identity in enumerate(self.ids)}

    def subset(self, indices: Any) -> ContextBank:
        """The bank of some rows (a slice, a boolean mask or row numbers), in that order; ids are kept."""
        rows = np.arange(len(self))[indices if isinstance(indices, slice) else np.asarray(indices)]
        rows = np.atleast_1d(rows)
        provenance = {**self.provenance, "parent": self.hash, "subset_of": len(self)}
        return ContextBank(self.contexts[rows], tuple(self.ids[row] for row in rows), provenance)

    def check_conditioner(self, other: Mapping[str, Any] | None, *, allow_mismatch: bool = False,
                          what: str = "the model") -> None:
        """Refuse a model (or bank) made with another recogniser.

        ``MismatchError`` if both sides name one and the hashes differ (names, where a hash is missing). A side
        without one (uniform contexts, a model that does not say) is accepted: there is nothing to compare.
        """
        mine = self.conditioner
        if allow_mismatch or not mine or not other or _same_recogniser(mine, other):
            return
        raise MismatchError(f"these contexts are embeddings of {_named(mine)}, {what} expects {_named(other)}",
                            where="conditioner", fix="use contexts of that recogniser, or allow the mismatch")

    def save(self, path: str | os.PathLike) -> None:
        """Write safetensors (``contexts`` plus one metadata key), atomically; equal banks give identical bytes."""
        write_tensors(path, {"contexts": self.contexts}, {"ids": list(self.ids), "provenance": dict(self.provenance)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> ContextBank:
        """Read a bank; ``FormatError`` if it is truncated or breaks the contract.

        A file without our metadata gets ids ``"0" … "n-1"``, source ``"unknown"``, and counts as describing real
        people, because nothing says that it does not.
        """
        tensors, metadata = read_tensors(path, required=("contexts",))
        ids = metadata.get("ids", [str(row) for row in range(len(tensors["contexts"]))])
        if not isinstance(ids, list):
            raise FormatError(f"ids are a {type(ids).__name__}, a list was expected", where=path)
        provenance = metadata.get("provenance", {"source": "unknown", "describes_real_people": True})
        try:
            return cls(tensors["contexts"], tuple(ids), provenance)
        except InputError as error:
            where = f"{path}, {error.where}" if error.where else path
            raise FormatError(error.what, where=where, fix=error.fix) from error


def unit_rows(vectors: np.ndarray, *, what: str = "row") -> np.ndarray:
    """float32 rows of unit length, computed in float64; ``InputError`` names a zero or non-finite row."""
    result = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        wide = np.asarray(vectors[start:start + BLOCK], dtype=np.float64)
        lengths = np.sqrt(np.square(wide).sum(axis=1))
        bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(bad):
            reason = "has length zero" if lengths[bad[0]] == 0 else "holds NaN or infinity"
            raise InputError(f"{what} {start + bad[0]} {reason} and cannot be normalised", where="vectors",
                             fix="remove such rows")
        result[start:start + BLOCK] = wide / lengths[:, None]
    return result


def _check_contexts(contexts: np.ndarray) -> None:
    if contexts.dtype != np.float32:
        raise InputError(f"contexts must be float32, not {contexts.dtype}", where="contexts",
                         fix="use ContextBank.from_vectors")
    if contexts.ndim != 2 or 0 in contexts.shape:
        raise InputError(f"contexts must be [n, d], n and d at least 1, not {list(contexts.shape)}", where="contexts")
    lengths = np.sqrt(np.einsum("nd,nd->n", contexts, contexts, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(lengths))
    if len(bad):
        raise InputError("holds NaN or infinity", where=f"contexts, row {bad[0]}",
                         fix=f"remove or recompute such rows ({len(bad)} in all)")
    bad = np.flatnonzero(np.abs(lengths - 1) > UNIT_TOLERANCE)
    if len(bad):
        raise InputError(f"has length {lengths[bad[0]]:.6g}, contexts are unit vectors",
                         where=f"contexts, row {bad[0]}",
                         fix=f"normalise them: ContextBank.from_vectors(..., normalise=True) ({len(bad)} such rows)")


def _check_ids(ids: tuple[str, ...], count: int) -> None:
    if len(ids) != count:
        raise InputError(f"{len(ids)} ids for {count} contexts", where="ids")
    if len(set(ids)) != count:
        seen: set[str] = set()
        twice = next(item for item in ids if item in seen or seen.add(item))
        raise InputError(f"{twice!r} stands twice", where="ids", fix="identity ids must be distinct")
    for item in ids:
        if item in ("", ".", "..") or any(sign in "/\\" or ord(sign) < 32 for sign in item):
            raise InputError(f"{item!r} cannot be a folder name", where="ids",
                             fix="leave out '/', '\\' and control characters")


def _checked_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(provenance, Mapping):
        raise InputError(f"is a {type(provenance).__name__}, not named values", where="provenance")
    provenance = {**PROVENANCE_DEFAULTS, **provenance}
    try:
        canonical_json(provenance)
    except (TypeError, ValueError) as error:
        raise InputError(f"is not plain JSON data ({error})", where="provenance") from error
    conditioner = provenance["conditioner"]
    if conditioner is not None and not (isinstance(conditioner, dict) and all(
            isinstance(conditioner.get(key), str | None) for key in ("name", "hash", "sha256"))):
        raise InputError(f"must be a dict with name and hash, or None, not {conditioner!r}", where="conditioner")
    return provenance


def recogniser_hash(recogniser: Mapping[str, Any]) -> str | None:
    """The hash a recogniser's description carries (``hash``, or ``sha256`` in a declaration)."""
    return recogniser.get("hash") or recogniser.get("sha256")


def _same_recogniser(mine: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    hashes = recogniser_hash(mine), recogniser_hash(other)
    return hashes[0] == hashes[1] if all(hashes) else mine.get("name") == other.get("name")


def _named(recogniser: Mapping[str, Any]) -> str:
    return f"{recogniser.get('name', 'an unnamed recogniser')} ({(recogniser_hash(recogniser) or 'no hash')[:12]})"
