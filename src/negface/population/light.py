"""Light: a key light with soft shadows, a sky that does not reach into hollows, and skin that lets red light through.

Shadows are a depth map seen from the light, compared at nine places around each vertex (percentage-closer filtering,
Reeves et al., SIGGRAPH 1987); wrapped diffuse shading per colour stands for scattering under the skin.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch

from .values import Columns

_MAP = 112
_REACH = 1.75
_BIAS = 0.055


def direction(e: Columns) -> torch.Tensor:
    """Unit vector towards the key light, ``[n, 3]``."""
    azimuth, elevation = torch.deg2rad(e.light_azimuth), torch.deg2rad(e.light_elevation)
    return torch.cat([torch.cos(elevation) * torch.sin(azimuth), torch.sin(elevation),
                      torch.cos(elevation) * torch.cos(azimuth)], 1)


def _basis(towards: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    helper = torch.tensor([[0.0, 1.0, 0.0]], device=towards.device).expand_as(towards)
    helper = torch.where(towards[:, 1:2].abs() > 0.95, torch.tensor([[0.0, 0.0, -1.0]], device=towards.device), helper)
    right = torch.linalg.cross(helper, towards)
    right = right / right.norm(dim=1, keepdim=True)
    return right, torch.linalg.cross(towards, right)


def _dot(vectors: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """``[n, k, 3]`` with ``[n, 3]``, term by term (not a matrix product: the same bits in any batch)."""
    return vectors[..., 0] * one[:, None, 0] + vectors[..., 1] * one[:, None, 1] + vectors[..., 2] * one[:, None, 2]


def visibility(space: torch.Tensor, towards: torch.Tensor, spacing: torch.Tensor) -> torch.Tensor:
    """Share of light from a direction that reaches each vertex.

    Args:
        space: ``[n, v, 3]``, NaN where there is nothing.
        towards: unit vectors ``[n, 3]``.
        spacing: texels between the nine places, ``[n, 1]``: how soft.

    Returns:
        0..1, ``[n, v]``.
    """
    n, count = space.shape[:2]
    right, up = _basis(towards)
    there = torch.isfinite(space[..., 0])
    space = torch.nan_to_num(space)
    near = _dot(space, towards)
    x = (_dot(space, right) / (2 * _REACH) + 0.5) * _MAP
    y = (_dot(space, up) / (2 * _REACH) + 0.5) * _MAP
    row = torch.arange(n, device=space.device)[:, None] * (_MAP * _MAP)

    def texel(dx: torch.Tensor | float, dy: torch.Tensor | float) -> torch.Tensor:
        return row + (y + dy).long().clamp(0, _MAP - 1) * _MAP + (x + dx).long().clamp(0, _MAP - 1)

    nearest = torch.full((n * _MAP * _MAP,), -9.0, device=space.device)
    nearest.scatter_reduce_(0, texel(0.0, 0.0).flatten(), torch.where(there, near, -9.0).flatten(), "amax")
    lit = torch.zeros_like(near)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            before = nearest[texel(dx * spacing, dy * spacing)]
            lit = lit + ((near - before) / _BIAS + 2).clamp(0, 1)
    return (lit / 9).view(n, count)


def warmth(share: float) -> tuple[float, float, float]:
    """Colour of a light: -1 bluish, 1 like a lamp; green is 1."""
    return 1 + 0.22 * share, 1.0, 1 - 0.28 * share


def shade(albedo: torch.Tensor, gloss: torch.Tensor, normal: torch.Tensor, key_seen: torch.Tensor,
          sky_seen: torch.Tensor, translucent: torch.Tensor, e: SimpleNamespace, towards: list[float]) -> torch.Tensor:
    """Linear colour of surface points of one picture, ``[1, 3, k]``.

    Args:
        albedo: linear, ``[1, 3, k]``.
        gloss: strength of the mirror-like part, ``[1, k]``.
        normal: unit, towards the camera, ``[1, k, 3]``.
        key_seen, sky_seen: visibility of the key light and of the sky, ``[1, k]``.
        translucent: how far light wraps around (skin 1, others 0), ``[1, k]``.
        e: shot, as plain numbers.
        towards: unit vector to the key light.
    """
    x, up, z = normal.unbind(-1)
    right, above, front = towards
    across = x * right + up * above + z * front
    # the mirror's direction lies half way between the light and the camera
    length = math.sqrt(right**2 + above**2 + (front + 1) ** 2)
    mirror = ((across + z) * (1 / max(length, 1e-3))).clamp(min=0)
    fourth = torch.square(torch.square(mirror))
    shine = gloss * (0.35 * fourth + torch.square(torch.square(fourth))) * key_seen
    sky = (0.62 + 0.38 * up) * (0.40 + 0.60 * sky_seen)
    planes = []
    for plane, key, ambient, wrap in zip(albedo.unbind(1), warmth(e.light_warmth), warmth(e.ambient_warmth),
                                         (0.30, 0.14, 0.10)):
        soft = wrap * translucent
        seen = key_seen + soft * 0.6 * (1 - key_seen)
        direct = ((across + soft) / (1 + soft)).clamp(min=0) * seen
        light = (2.35 * key * e.light_share) * direct + (1.15 * ambient * (1 - e.light_share)) * sky
        planes.append(plane * light + shine * (1.2 * key * e.light_share))
    return torch.stack(planes, 1)
