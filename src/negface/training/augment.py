"""Augmentation of recognition training, batched on the device: mirror images, RandAugment, AdaFace's set.

What happens to a picture is drawn beforehand from a keyed generator (``draw``), so it does not depend on the number of
processes or on who asks; ``augment`` only carries it out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import randaugment
from .randaugment import blend, contrast

POLICIES = ("none", "randaugment", "adaface")
ADAFACE_PROBABILITY = 0.2
SMALLEST_SIDE = 0.2
CROP_AREA, CROP_RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
_UP = ("nearest", "bilinear", "bicubic")

Draws = dict[str, np.ndarray]


def draw(
    policy: str,
    n: int,
    size: int,
    generator: np.random.Generator,
    *,
    flips: bool = True,
    operations: int = 4,
    largest: int = 16,
) -> Draws:
    """What is to happen to ``n`` pictures of side ``size``.

    Args:
        policy: one of ``POLICIES``.
        flips: mirror half of the pictures.
        operations, largest: of ``randaugment``: operations a picture, largest bin of 31.

    Returns:
        Arrays of ``n`` rows; slicing them all alike gives the draws of those pictures.
    """
    draws = {"flip": (generator.random(n) < 0.5) & flips}
    if policy == "randaugment":
        shape = (n, operations)
        draws["operation"] = generator.integers(0, len(randaugment.OPERATIONS), shape)
        bins = generator.integers(1, largest + 1, shape)
        signs = np.where(generator.random(shape) < 0.5, -1, 1)
        draws["strength"] = (signs * bins / (randaugment.BINS - 1)).astype(np.float32)
    elif policy == "adaface":
        draws |= _draw_adaface(n, size, generator)
    return draws


def _draw_adaface(n: int, size: int, generator: np.random.Generator) -> Draws:
    """Crop, low resolution and light, each with probability 0.2 (AdaFace, arXiv 2204.00964, sec. 4)."""
    chance = generator.random((3, n)) < ADAFACE_PROBABILITY
    area = generator.uniform(*CROP_AREA, n) * size * size
    ratio = np.exp(generator.uniform(*np.log(CROP_RATIO), n))
    sides = np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], axis=1).round().clip(1, size)
    corner = np.floor(generator.random((n, 2)) * (size - sides + 1))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.int64)
    boxes[~chance[0]] = (0, 0, size, size)
    small = np.maximum(2, np.round(generator.uniform(SMALLEST_SIDE, 1, n) * size)).astype(np.int64)
    return {
        "box": boxes,
        "side": np.where(chance[1], small, size),
        "up": generator.integers(0, len(_UP), n),
        "brightness": np.where(chance[2], generator.uniform(0.5, 1.5, n), 1).astype(np.float32),
        "contrast": np.where(chance[2], generator.uniform(-0.5, 0.5, n), 0).astype(np.float32),
    }


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Carry out the draws of ``draw`` on uint8 ``[n, 3, S, S]``; returns the same shape and type."""
    device = images.device
    flip = torch.from_numpy(draws["flip"]).to(device)
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    if "operation" in draws:
        operations, strengths = (torch.from_numpy(draws[key]).to(device) for key in ("operation", "strength"))
        for place in range(operations.shape[1]):
            images = randaugment.apply(images, operations[:, place], strengths[:, place])
    if "box" in draws:
        images = crop(images, torch.from_numpy(draws["box"]).to(device))
        images = _lower(images, draws)
        images = _relight(images, draws)
    return images


def crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Black outside of boxes int64 ``[n, 4]`` (top, left, bottom, right)."""
    place = torch.arange(images.shape[2], device=images.device)
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    rows, columns = (place >= top) & (place < bottom), (place >= left) & (place < right)
    return images * (rows[:, :, None] & columns[:, None, :])[:, None]


@lru_cache(maxsize=1024)
def resampling(size: int, side: int, up: str) -> Tensor:
    """float32 ``[size, size]``: what reducing a line of pixels to ``side`` and bringing it back does to it.

    Reduced bilinearly with antialiasing; a picture becomes ``M X Mᵀ``, so that pictures of different ``side`` share a
    batched product.
    """
    unit = torch.eye(size)[None, None]
    small = F.interpolate(unit, (side, size), mode="bilinear", antialias=True, align_corners=False)
    options = {} if up == "nearest" else {"align_corners": False}
    return F.interpolate(small, (size, size), mode=up, **options)[0, 0]


def _lower(images: Tensor, draws: Draws) -> Tensor:
    size = images.shape[2]
    chosen = np.flatnonzero(draws["side"] < size)
    if not len(chosen):
        return images
    kernels = [resampling(size, int(draws["side"][i]), _UP[draws["up"][i]]) for i in chosen]
    matrices = torch.stack(kernels).to(images.device)[:, None]
    places = torch.from_numpy(chosen).to(images.device)
    blurred = matrices @ images[places].float() @ matrices.transpose(2, 3)
    return images.index_copy(0, places, blurred.round().clamp(0, 255).to(torch.uint8))


def _relight(images: Tensor, draws: Draws) -> Tensor:
    chosen = np.flatnonzero(draws["brightness"] != 1)
    if not len(chosen):
        return images
    places = torch.from_numpy(chosen).to(images.device)
    bright, factor = (torch.from_numpy(draws[key][chosen]).to(images.device) for key in ("brightness", "contrast"))
    lit = blend(images[places], torch.zeros((), device=images.device), bright)
    return images.index_copy(0, places, contrast(lit, factor / 0.9))
