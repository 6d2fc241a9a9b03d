"""Variation of a context from image to image of one identity.

``angular`` is IDperturb (arXiv 2602.18831): a random rotation of the context by an angle whose cosine is drawn from
``[lower, 1]``, optionally kept on the identity's own side of every bisector.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..foundation.errors import InputError, UnknownNameError
from ..foundation.noise import keyed_generator
from . import similarity
from .bank import ContextBank

_ANGULAR = re.compile(r"angular-(0(?:\.\d+)?|1(?:\.0*)?)(-safe)?")


def variation_of(name: str, seed: int) -> dict[str, Any] | None:
    """``none``, ``angular-<lower>`` or ``angular-<lower>-safe`` as a plan records it and generation takes it.

    ``lower`` in [0, 1] is the least cosine of a picture's context and its person's; ``safe`` keeps every picture's
    context nearest to its own person (``safe_lower_bounds``). ``UnknownNameError`` for others.
    """
    if name == "none":
        return None
    found = _ANGULAR.fullmatch(name)
    if found is None:
        raise UnknownNameError("variation", name, ["none", "angular-0.6", "angular-0.6-safe"])
    return {"name": "angular", "lower": float(found[1]), "safe": found[2] is not None, "seed": seed}


def angular(bank: ContextBank, rows: Sequence[int], images: Sequence[int], *, lower: float | np.ndarray = 0.6,
            seed: int = 0) -> np.ndarray:
    """Contexts of images: ``v' = s v + sqrt(1 - s^2) u``, ``s ~ U[lower, 1]``, u a random unit vector orthogonal to v.

    Args:
        rows, images: image ``images[k]`` of identity ``rows[k]``; the draw is keyed by (seed, identity id, image).
        lower: least cosine of varied and original context, in [-1, 1]; a number, or one for each identity of the bank
            (``safe_lower_bounds``). The paper's best average is at 0.6.

    Returns float32 ``[k, d]`` unit rows, ``cos(v', v) = s``.
    """
    rows, images = np.asarray(rows, dtype=np.int64), np.asarray(images, dtype=np.int64)
    if rows.shape != images.shape or rows.ndim != 1:
        raise InputError(f"{list(rows.shape)} rows for {list(images.shape)} images", where="images")
    if len(rows) and (rows.min() < 0 or rows.max() >= len(bank)):
        raise InputError(f"rows must lie in 0 … {len(bank) - 1}", where="rows")
    if bank.dim < 2:
        raise InputError("contexts of length 1 cannot be rotated", where="contexts")
    lower = np.broadcast_to(np.asarray(lower, dtype=np.float64), (len(bank),))
    if not ((lower >= -1) & (lower <= 1)).all():
        raise InputError("must lie in [-1, 1]", where="lower")
    varied = [_rotate(bank.contexts[row], lower[row], seed, bank.ids[row], image)
              for row, image in zip(rows.tolist(), images.tolist())]
    return np.stack(varied) if varied else np.empty((0, bank.dim), dtype=np.float32)


def safe_lower_bounds(bank: ContextBank, lower: float = 0.6) -> np.ndarray:
    """float64 ``[n]``: ``max(lower, max_j cos(theta_ij / 2))``: a varied context stays nearest to its own identity.

    ``cos(theta / 2) = sqrt((1 + cos theta) / 2)``. With 10,000 uniform contexts of 512 the bound is about 0.764 to
    0.788 for everybody, so a smaller ``lower`` does nothing. A bank of one identity keeps ``lower``.
    """
    if len(bank) == 1:
        return np.array([float(lower)])
    own = np.arange(len(bank), dtype=np.int64)
    nearest = similarity.pick(bank.contexts, bank.contexts, own, similarity.choose_nearest, label="nearest identities")
    cosines = similarity.paired_cosines(bank.contexts, bank.contexts[nearest])
    return np.maximum(float(lower), np.sqrt(np.clip((1 + cosines) / 2, 0, 1)))


def _rotate(context: np.ndarray, lower: float, seed: int, identity: str, image: int) -> np.ndarray:
    generator = keyed_generator(int(seed), identity, image, "variation/angular")
    cosine = lower + (1 - lower) * generator.random()
    positive = context.astype(np.float64)
    positive /= np.sqrt(np.square(positive).sum())
    direction = generator.standard_normal(len(positive), dtype=np.float32).astype(np.float64)
    # Twice: one pass leaves a residue where the draw is nearly parallel to the context (short vectors).
    for _ in range(2):
        direction -= (direction * positive).sum() * positive
        direction /= np.sqrt(np.square(direction).sum())
    return (cosine * positive + np.sqrt(1 - cosine**2) * direction).astype(np.float32)
