"""What a caller gives a pipeline, checked before the first step: contexts, negatives, starting noise.

Rows of a batch are independent; how a row is steered is its ``kind`` (``negface.contexts.Selection``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from negface.contexts import ContextBank, Selection
from negface.contexts.bank import UNIT_TOLERANCE
from negface.contexts.selection import FREE, LEARNED, NONE, ZERO
from negface.foundation.errors import InputError

NULL_LEARNED = "null-learned"


@dataclass(frozen=True)
class Negatives:
    """Kinds uint8 ``[n]`` (as in ``Selection``) and vectors float32 ``[n, d]`` (read for kinds 0, 1 and 2 only)."""

    kind: np.ndarray
    vectors: Tensor

    @property
    def steered(self) -> np.ndarray:
        """bool ``[n]``: rows that have a negative."""
        return self.kind != NONE


def read_contexts(context: Any, dim: int, conditioner: dict | None, allow_other_conditioner: bool = False) -> Tensor:
    """Identity contexts as float32 ``[n, dim]``.

    Raises:
        InputError: not ``[n, dim]``, NaN, or a row that is no unit vector (tolerance 1e-3).
        MismatchError: a bank of another conditioner than the model's.
    """
    if isinstance(context, ContextBank):
        context.check_conditioner(conditioner, allow_mismatch=allow_other_conditioner)
        context = context.contexts
    vectors = _matrix(context, dim, "context")
    _check_unit(vectors, np.arange(len(vectors)), "context")
    return vectors


def read_negatives(negative: Any, n: int, dim: int, has_learned_null: bool) -> Negatives:
    """Negatives of ``n`` rows: ``None``, ``"null-learned"``, a ``Selection``, or vectors ``[n, dim]``.

    A row of zeros in a tensor is the zero input (zeros before the context projection), as in a ``Selection``.

    Raises:
        InputError: another number of rows than contexts, a wrong size, NaN, a row that is neither a unit vector nor
            zero, or a learned null the model does not have.
    """
    if negative is None:
        return Negatives(np.full(n, NONE, np.uint8), torch.zeros(n, dim))
    if isinstance(negative, str):
        if negative != NULL_LEARNED:
            raise InputError(f"{negative!r} is no negative context", where="negative_context",
                             fix=f"give vectors [n, {dim}], a Selection, {NULL_LEARNED!r} or None")
        kind, vectors = np.full(n, LEARNED, np.uint8), torch.zeros(n, dim)
    elif isinstance(negative, Selection):
        kind = negative.kind
        vectors = _matrix(np.where(negative.has_vector[:, None], negative.negatives, 0), dim, "negative_context")
    else:
        vectors = _matrix(negative, dim, "negative_context")
        kind = np.where(vectors.any(dim=1).numpy(), FREE, ZERO).astype(np.uint8)
    if len(kind) != n:
        raise InputError(f"{len(kind)} negatives for {n} contexts", where="negative_context",
                         fix="give one per context")
    if not has_learned_null and (kind == LEARNED).any():
        raise InputError("the model has no learned null", where="negative_context",
                         fix="use a model trained with whole-context dropout, or the zero input (null-zero)")
    _check_unit(vectors, np.flatnonzero(kind <= FREE), "negative_context")
    return Negatives(kind, vectors)


def read_latents(latents: Any, n: int, shape: tuple[int, int, int]) -> Tensor:
    """Starting noise as float32 ``[n, c, h, w]``; ``InputError`` for another shape or NaN."""
    latents = torch.as_tensor(latents).detach().float()
    if tuple(latents.shape) != (n, *shape):
        raise InputError(f"have shape {list(latents.shape)}, the model and {n} contexts need {[n, *shape]}",
                         where="latents")
    if not torch.isfinite(latents).all():
        raise InputError("hold NaN or infinity", where="latents")
    return latents


def check_count(values: Any, n: int, where: str) -> None:
    """``InputError`` unless there are ``n`` values."""
    if len(values) != n:
        raise InputError(f"{len(values)} values for {n} contexts", where=where, fix="give one per context")


def _matrix(vectors: Any, dim: int, where: str) -> Tensor:
    vectors = vectors.detach() if isinstance(vectors, Tensor) else torch.as_tensor(np.asarray(vectors))
    if vectors.ndim != 2 or vectors.shape[1] != dim or not len(vectors):
        raise InputError(f"has shape {list(vectors.shape)}, the model takes [n, {dim}]", where=where)
    vectors = vectors.to("cpu", torch.float32)
    bad = (~torch.isfinite(vectors).all(dim=1)).nonzero()
    if len(bad):
        raise InputError("holds NaN or infinity", where=f"{where}, row {int(bad[0])}")
    return vectors


def _check_unit(vectors: Tensor, rows: np.ndarray, where: str) -> None:
    lengths = vectors[torch.from_numpy(rows)].double().norm(dim=1)
    bad = ((lengths - 1).abs() > UNIT_TOLERANCE).nonzero()
    if len(bad):
        first = int(bad[0])
        raise InputError(f"has length {float(lengths[first]):.6g}, contexts are unit vectors",
                         where=f"{where}, row {rows[first]}", fix="divide each row by its length")
