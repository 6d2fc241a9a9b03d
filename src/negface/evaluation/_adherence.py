"""Adherence: do the images show the identity that was asked for? The conditioner's cosine to the wanted context.

A generator may separate people perfectly and draw other people than it was told to; only this number says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from negface.foundation.errors import InputError, MismatchError
from negface.perception import recognizer_hash

from .bootstrap import mean_with_interval
from .inputs import unit_rows

_BLOCK = 4096


@dataclass(frozen=True)
class Adherence:
    """``adherence`` mean cosine to the wanted context (``low``, ``high``: 95 % over identities); ``rank1`` the share of
    images whose nearest context of the whole bank is the wanted one; ``per_identity_std`` of the identities' means."""

    adherence: float
    low: float | None
    high: float | None
    rank1: float
    rank1_low: float | None
    rank1_high: float | None
    per_identity_std: float
    n_images: int
    n_identities: int
    n_contexts: int

    def to_dict(self) -> dict[str, Any]:
        """``adherence``, ``adherence_low``, ``adherence_high``, ``adherence_rank1``, …"""
        return {"adherence" if key == "adherence" else f"adherence_{key}": value for key, value in asdict(self).items()}


def adherence(embeddings: Any, wanted: Any, contexts: Any, *, bootstrap: int = 1000, seed: int = 0,
              embedded_by: Any = None, conditioner: Any = None, force: bool = False) -> Adherence:
    """Cosine of ``embeddings`` ``[n, d]``, made by the conditioner, to rows ``wanted`` ``[n]`` of ``contexts`` ``[m,
    d]``. Errors: as of ``image_adherence``."""
    cosines, first_place = image_adherence(embeddings, wanted, contexts, embedded_by=embedded_by,
                                           conditioner=conditioner, force=force)
    names, codes = np.unique(np.asarray(wanted), return_inverse=True)
    mean, low, high = mean_with_interval(cosines, codes, replicates=bootstrap, seed=seed)
    first, first_low, first_high = mean_with_interval(first_place * 1.0, codes, replicates=bootstrap, seed=seed)
    per_identity = np.bincount(codes, cosines) / np.bincount(codes)
    return Adherence(mean, low, high, first, first_low, first_high, float(per_identity.std()), len(cosines), len(names),
                     len(contexts))


def image_adherence(embeddings: Any, wanted: Any, contexts: Any, *, embedded_by: Any = None, conditioner: Any = None,
                    force: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Image by image: the cosine to its context, float64 ``[n]``, and whether no other context is nearer, bool ``[n]``.

    Errors: ``InputError`` for shapes, NaN and rows out of range; ``MismatchError`` if ``embedded_by`` is known not to
    be the ``conditioner`` of the contexts (unless ``force``): cosines across recognisers mean nothing.
    """
    _check_conditioner(embedded_by, conditioner, force)
    images, bank = unit_rows(embeddings, "conditioner embeddings"), unit_rows(contexts, "contexts")
    if images.shape[1] != bank.shape[1]:
        raise InputError(f"embeddings have {images.shape[1]} dimensions, contexts {bank.shape[1]}", where="adherence",
                         fix="embed with the recogniser that made the contexts")
    wanted = np.asarray(wanted)
    if wanted.shape != (len(images),) or wanted.dtype.kind not in "iu":
        raise InputError(f"one row of the bank per image is expected, got {wanted.dtype} {list(wanted.shape)}",
                         where="wanted")
    if wanted.min() < 0 or wanted.max() >= len(bank):
        raise InputError(f"rows up to {int(wanted.max())} are wanted from a bank of {len(bank)}", where="wanted")
    cosines = np.einsum("nd,nd->n", images, bank[wanted], dtype=np.float64)
    nearest = np.concatenate([torch.mm(torch.from_numpy(images[at : at + _BLOCK]), torch.from_numpy(bank).T)
                              .argmax(dim=1).numpy() for at in range(0, len(images), _BLOCK)])
    return cosines, nearest == wanted


def _check_conditioner(embedded_by: Any, conditioner: Any, force: bool) -> None:
    one, other = recognizer_hash(embedded_by), recognizer_hash(conditioner)
    if one and other and one.lower() != other.lower() and not force:
        raise MismatchError("these embeddings were not made by the recogniser that made the contexts",
                            where="adherence", fix="embed the images with the conditioner")
