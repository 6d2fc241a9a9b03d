"""``Selection``: which negative context each row (an identity, or an image) is steered away from.

Contract: architecture, "Selection". Rows without a vector (learned null, none) hold NaN and are never read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..foundation.errors import FormatError, InputError
from ..foundation.tensors import read_tensors, write_tensors

MEMBER, FREE, ZERO, LEARNED, NONE = range(5)
KIND_NAMES = ("member of the pool", "free vector", "zero input", "learned null", "none")


@dataclass(frozen=True, eq=False)
class Selection:
    """The negatives of n rows.

    Args:
        kind: uint8 ``[n]``: 0 member of the pool, 1 free vector, 2 zero input (zeros *before* the model's context
            projection), 3 learned null, 4 none (plain sampling).
        indices: int64 ``[n]``: row in the pool for kind 0, else -1.
        negatives: float32 ``[n, d]``: the vector for kinds 0 and 1, zeros for kind 2, NaN for kinds 3 and 4.
        provenance: strategy, seed, scope, hashes of bank and pool, whether the pool describes real people.
    """

    kind: np.ndarray
    indices: np.ndarray
    negatives: np.ndarray
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind, indices, negatives = (np.asarray(item) for item in (self.kind, self.indices, self.negatives))
        _check(kind, indices, negatives)
        if not isinstance(self.provenance, Mapping):
            raise InputError(f"is a {type(self.provenance).__name__}, not named values", where="provenance")
        for name, value in (("kind", kind), ("indices", indices), ("negatives", negatives)):
            object.__setattr__(self, name, np.ascontiguousarray(value))
        object.__setattr__(self, "provenance", dict(self.provenance))

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def dim(self) -> int:
        """Length of a context."""
        return self.negatives.shape[1]

    @property
    def strategy(self) -> str | None:
        """Name of the strategy that chose, if known."""
        return self.provenance.get("strategy")

    @property
    def has_vector(self) -> np.ndarray:
        """bool ``[n]``: rows whose ``negatives`` may be read (kinds 0, 1 and 2)."""
        return self.kind <= ZERO

    def subset(self, indices: Any) -> Selection:
        """The selection of some rows (a slice, a boolean mask or row numbers), in that order."""
        rows = indices if isinstance(indices, slice) else np.atleast_1d(np.asarray(indices))
        return Selection(self.kind[rows], self.indices[rows], self.negatives[rows], self.provenance)

    def save(self, path: str | os.PathLike) -> None:
        """Write safetensors with ``kind``, ``indices``, ``negatives``, atomically; equal ones give equal bytes."""
        arrays = {"kind": self.kind, "indices": self.indices, "negatives": self.negatives}
        write_tensors(path, arrays, {"provenance": dict(self.provenance)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Selection:
        """Read a selection; ``FormatError`` if it is truncated or breaks the contract."""
        tensors, metadata = read_tensors(path, required=("kind", "indices", "negatives"))
        try:
            return cls(tensors["kind"], tensors["indices"], tensors["negatives"], metadata.get("provenance", {}))
        except InputError as error:
            raise FormatError(error.what, where=f"{path}, {error.where}", fix=error.fix) from error


def _check(kind: np.ndarray, indices: np.ndarray, negatives: np.ndarray) -> None:
    wanted = (("kind", kind, np.uint8, 1), ("indices", indices, np.int64, 1), ("negatives", negatives, np.float32, 2))
    for name, array, dtype, ndim in wanted:
        if array.dtype != dtype or array.ndim != ndim or len(array) != len(kind):
            shape = "[n, d]" if ndim == 2 else "[n]"
            raise InputError(f"must be {np.dtype(dtype)} {shape} with n = {len(kind)}, not {array.dtype} "
                             f"{list(array.shape)}", where=name)
    if len(kind) and kind.max() > NONE:
        raise InputError(f"{kind.max()} is no kind of negative (0 to 4)", where="kind")
    bad = np.flatnonzero((indices >= 0) != (kind == MEMBER))
    if len(bad):
        raise InputError(f"row {bad[0]} is {indices[bad[0]]} for a {KIND_NAMES[kind[bad[0]]]}", where="indices",
                         fix="a member of the pool has its row there, every other kind -1")
    finite = np.isfinite(negatives).all(axis=1)
    bad = np.flatnonzero(~finite & (kind <= ZERO))
    if len(bad):
        raise InputError(f"row {bad[0]} holds NaN or infinity", where="negatives")
    bad = np.flatnonzero(~np.isnan(negatives).all(axis=1) & (kind > ZERO))
    if len(bad):
        raise InputError(f"row {bad[0]} has a vector, but a {KIND_NAMES[kind[bad[0]]]} has none (NaN)",
                         where="negatives")
    bad = np.flatnonzero((kind == ZERO) & negatives.any(axis=1))
    if len(bad):
        raise InputError(f"row {bad[0]} is a zero input but not zero", where="negatives")
