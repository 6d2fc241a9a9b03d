"""The thirteen operations of RandAugment on batches of uint8 pictures, each picture with its own strength.

RandAugment, arXiv 1909.13719; the set, the ranges over 31 bins and the draw (four operations, bins 1 to 16) are those
with which the recognisers of IDiff-Face and NegFaceDiff were trained. The integer arithmetic is Pillow's, so one
picture through Pillow is the slow twin. All work is done on the device the pictures lie on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 31
SIGNED = ("shear-x", "translate-x", "rotate", "brightness", "colour", "contrast", "sharpness")


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601, 16-bit fixed point) of ``[n, 3, H, W]``: int32 ``[n, 1, H, W]``."""
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16)[:, None]


def blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    """``other + factor·(image - other)`` cut to whole numbers in 0..255; factors ``[n]``, 1 = the picture."""
    other = other.to(torch.float32)
    mixed = other + factors[:, None, None, None] * (images.float() - other)
    return mixed.clamp(0, 255).to(torch.uint8)


def affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Nearest pixel at ``matrix @ (x + 1/2, y + 1/2, 1)`` for output pixel (x, y), black outside; ``[n, 2, 3]``."""
    n, _, height, width = images.shape
    x = torch.arange(width, device=images.device) + 0.5
    y = torch.arange(height, device=images.device) + 0.5
    grid = torch.meshgrid(y, x, indexing="ij")
    points = torch.stack([grid[1], grid[0], torch.ones_like(grid[0])])
    places = torch.einsum("nij,jyx->niyx", matrices, points).floor().long()
    column, row = places.unbind(1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = (row * width + column).masked_fill(~inside, 0).flatten(1)
    picked = images.flatten(2).gather(2, flat[:, None].expand(n, 3, -1)).view_as(images)
    return picked * inside[:, None]


def _matrices(n: int, device: torch.device) -> Tensor:
    return torch.eye(3, device=device)[:2].repeat(n, 1, 1)


def shear_x(images: Tensor, strength: Tensor) -> Tensor:
    """Rows slide by up to 0.3 of their height."""
    matrices = _matrices(len(images), images.device)
    matrices[:, 0, 1] = 0.3 * strength
    return affine(images, matrices)


def translate_x(images: Tensor, strength: Tensor) -> Tensor:
    """Up to 150/331 of the width, whole pixels."""
    matrices = _matrices(len(images), images.device)
    matrices[:, 0, 2] = (150 / 331 * images.shape[3] * strength).trunc()
    return affine(images, matrices)


def rotate(images: Tensor, strength: Tensor) -> Tensor:
    """About the centre, up to 30 degrees, positive against the clock."""
    height, width = images.shape[2:]
    angles = torch.deg2rad(-30 * strength)
    cosine, sine = angles.cos(), angles.sin()
    centre_x, centre_y = width / 2, height / 2
    first = torch.stack([cosine, sine, centre_x - cosine * centre_x - sine * centre_y], dim=1)
    second = torch.stack([-sine, cosine, centre_y + sine * centre_x - cosine * centre_y], dim=1)
    return affine(images, torch.stack([first, second], dim=1))


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Towards black or away from it."""
    return blend(images, torch.zeros((), device=images.device), 1 + 0.9 * strength)


def colour(images: Tensor, strength: Tensor) -> Tensor:
    """Towards grey or away from it."""
    return blend(images, grey(images), 1 + 0.9 * strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Towards the picture's mean grey or away from it."""
    mean = (grey(images).double().mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor()
    return blend(images, mean, 1 + 0.9 * strength)


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Towards a smoothed picture (3 x 3, weight 5 in the middle; the border stays) or away from it."""
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    inner = F.conv2d(images.float(), (kernel / 13).expand(3, 1, 3, 3), groups=3)
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = (inner + 0.5).clamp(0, 255).to(torch.uint8)
    return blend(images, smooth, 1 + 0.9 * strength)


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Keep the upper bits: 8 down to 4."""
    dropped = (4 * strength).round().to(torch.int32)
    mask = (255 >> dropped) << dropped
    return (images.to(torch.int32) & mask[:, None, None, None]).to(torch.uint8)


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Invert from a threshold on: 255 down to 0."""
    return torch.where(images.float() >= (255 * (1 - strength))[:, None, None, None], 255 - images, images)


def look_up(images: Tensor, table: Tensor) -> Tensor:
    """Each channel through its table ``[n, 3, 256]``."""
    return table.gather(2, images.flatten(2).long()).view_as(images).to(torch.uint8)


def auto_contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Each channel's range stretched to 0..255."""
    flat = images.flatten(2)
    low, high = flat.amin(2).double()[..., None], flat.amax(2).double()[..., None]
    # A number over a tensor is a product with the reciprocal in torch, which rounds otherwise.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    values = torch.arange(256, device=images.device, dtype=torch.float64)
    stretched = (values * scale - low * scale).trunc().clamp(0, 255)
    return look_up(images, torch.where(high > low, stretched, values))


def equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Each channel's histogram made flat."""
    flat = images.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    last = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - last) // 255
    before = counts.cumsum(2) - counts
    values = torch.arange(256, device=images.device).expand_as(counts)
    return look_up(images, torch.where(step > 0, ((step // 2 + before) // step.clamp(min=1)).clamp(max=255), values))


def grayscale(images: Tensor, strength: Tensor) -> Tensor:
    """Luma in all three channels."""
    return grey(images).to(torch.uint8).expand_as(images)


def identity(images: Tensor, strength: Tensor) -> Tensor:
    """The picture."""
    return images


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": identity,
    "shear-x": shear_x,
    "translate-x": translate_x,
    "rotate": rotate,
    "brightness": brightness,
    "colour": colour,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "auto-contrast": auto_contrast,
    "equalize": equalize,
    "grayscale": grayscale,
}
"""Pictures uint8 ``[n, 3, H, W]`` and strengths float32 ``[n]`` in [0, 1], in [-1, 1] for ``SIGNED``."""

_NAMES = tuple(OPERATIONS)


def apply(images: Tensor, operations: Tensor, strengths: Tensor) -> Tensor:
    """One operation a picture.

    Args:
        images: uint8 ``[n, 3, H, W]``.
        operations: int64 ``[n]``, places in ``OPERATIONS``.
        strengths: float32 ``[n]``, the bin as a share of 30 with the drawn sign; the sign is not read by operations
            that have none.
    """
    out = images.clone()
    for place in operations.unique().tolist():
        chosen = (operations == place).nonzero().squeeze(1)
        name, strength = _NAMES[place], strengths[chosen]
        out[chosen] = OPERATIONS[name](images[chosen], strength if name in SIGNED else strength.abs())
    return out
