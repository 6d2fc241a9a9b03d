"""What is joined to a head or lies before it: ears, hanging hair, glasses, the peak of a cap, a hand.

Each function places the vertices of one grid of ``mesh``; NaN where the picture has no such thing.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch

from . import hair
from .mesh import BAR_GRID, EAR_GRID, FINGER_GRID, LOCKS_GRID, PEAK_GRID, RING_GRID
from .values import Columns, mix, ramp


def _axes(grid: tuple[int, int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column places 0..1 of a grid's vertices, ``[1, rows * columns]``."""
    v, u = torch.meshgrid(torch.linspace(0, 1, grid[0], device=device), torch.linspace(0, 1, grid[1], device=device),
                          indexing="ij")
    return v.reshape(1, -1), u.reshape(1, -1)


def _stack(*axes: torch.Tensor) -> torch.Tensor:
    return torch.stack(torch.broadcast_tensors(*axes), -1)


def _only(points: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """NaN for the people who do not have it; ``there`` bool ``[n, 1]``."""
    return torch.where(there[..., None], points, torch.nan)


def ear(p: Columns, f: SimpleNamespace, base: torch.Tensor, sign: int) -> torch.Tensor:
    """An ear: a shell hinged at its front edge, with a raised rim and a hollow. ``base`` ``[n, 3]`` on the skull."""
    ring, turn = _axes(EAR_GRID, base.device)
    turn = turn * 2 * math.pi * sign
    size = (0.305 + 0.018 * p.ear_size) * (1 + 0.10 * f.old)
    up = ring * torch.sin(turn)
    wide = size * 0.56 * (1 + 0.22 * up)
    back = wide * (1.0 + ring * torch.cos(turn) * (1 - 0.25 * (-up).clamp(min=0)))
    height = size * up * (1 + (0.05 + 0.05 * p.ear_lobe) * (up < 0))
    rim = torch.exp(-((ring - 0.84) / 0.13) ** 2) - 0.7 * torch.exp(-((ring - 0.35) / 0.28) ** 2)
    out = 0.045 * rim * (1 - 0.5 * (-up).clamp(min=0)) - 0.03 * (ring > 0.99)
    angle = 0.42 + 0.13 * p.ear_projection
    lean = -0.16 * height
    x = sign * (back * torch.sin(angle) + out * torch.cos(angle) - 0.01)
    z = -back * torch.cos(angle) + out * torch.sin(angle) + lean + 0.03
    return base[:, None] + _stack(x, height, z)


def locks(p: Columns, e: Columns, f: SimpleNamespace) -> torch.Tensor:
    """Hair that hangs beside and behind the head, from temple to temple round the back."""
    v, u = _axes(LOCKS_GRID, f.eye_x.device)
    start = 1.16 + 0.05 * p.hairline
    angle = start + (2 * math.pi - 2 * start) * u
    long = hair.length(p)
    end = -0.30 - 1.9 * ((long - 0.5) / 0.5)
    y = 0.42 + (end - 0.42) * v
    thick = 0.10 + 0.03 * p.hair_volume
    breadth = 0.72 * (1 + 0.028 * p.head_width) + thick * (0.4 + 0.6 * ramp(v / 0.3))
    breadth = breadth * (1 - 0.10 * ramp((v - 0.35) / 0.3)) + 0.10 * ramp((v - 0.7) / 0.3)
    waves = 0.025 * p.hair_wave * torch.sin(14 * y + 5 * u) + 0.010 * torch.sin(60 * u) * ramp(v / 0.3)
    x = (breadth + waves) * torch.sin(angle)
    behind = 0.98 * (1 + 0.045 * p.head_length) + thick
    z = torch.where(torch.cos(angle) > 0, 0.80 + 0 * behind, behind - 0.25 * ramp(v / 0.6)) * torch.cos(angle) - 0.02
    return _only(_stack(x + 0 * y, y + 0 * x, z + 0 * y), hair.is_long(p, e))


def _tube(centre: torch.Tensor, around: torch.Tensor, outward: torch.Tensor, radius: float) -> torch.Tensor:
    """A tube along ``centre`` ``[n, k, 3]``: ``outward`` ``[n, k, 3]`` is across it, z the other way across."""
    forward = torch.zeros_like(outward)
    forward[..., 2] = 1.0
    return centre + radius * (torch.cos(around)[..., None] * outward + 0.8 * torch.sin(around)[..., None] * forward)


def glasses(e: Columns, bridge: torch.Tensor, ears: torch.Tensor) -> list[torch.Tensor]:
    """Two rings, the bar between them, and two temples to the ears.

    ``bridge`` ``[n, 3]`` is where they sit on the nose; ``ears`` ``[n, 2, 3]`` the tops of the ears.
    """
    device, there = bridge.device, e.glasses >= 0.5
    square = 2 + 3 * (e.glasses - 1).clamp(0, 2) / 2
    v, u = _axes(RING_GRID, device)
    around, turn = v * 2 * math.pi, u * 2 * math.pi
    wide, high, radius = 0.265, 0.195 + 0.02 * (square - 2), 0.020
    cosine, sine = torch.cos(turn), torch.sin(turn)
    stretch = (cosine.abs().clamp(min=1e-4) ** square + sine.abs().clamp(min=1e-4) ** square) ** (-1 / square)
    parts = []
    for sign in (-1, 1):
        x = sign * 0.335 + wide * stretch * cosine
        y = -0.035 + high * stretch * sine
        centre = _stack(x, y, 0.06 - 0.13 * x**2) + bridge[:, None]
        outward = _stack(cosine + 0 * x, sine + 0 * x, torch.zeros_like(x))
        parts.append(_only(_tube(centre, around, outward, radius), there))
    v, u = _axes(BAR_GRID, device)
    around = v * 2 * math.pi
    x = (u - 0.5) * 0.16 + 0 * high
    middle = _stack(x, 0.02 + 0 * x, 0.06 + 0 * x) + bridge[:, None]
    up = torch.zeros_like(middle)
    up[..., 1] = 1.0
    parts.append(_only(_tube(middle, around, up, radius * 0.9), there))
    for place, sign in enumerate((-1, 1)):
        hinge = bridge + torch.tensor([sign * 0.60, 0.02, 0.01], device=device)
        line = mix(hinge[:, None], ears[:, None, place], u[..., None])
        parts.append(_only(_tube(line, around, up, radius * 0.8), there))
    return parts


def peak(e: Columns, roots: torch.Tensor) -> torch.Tensor:
    """The peak of a cap: ``roots`` ``[n, columns, 3]`` on its front edge, carried forwards."""
    v, u = _axes(PEAK_GRID, roots.device)
    side = 2 * u - 1
    reach = 0.55 * torch.sqrt((1 - side**2).clamp(min=0)) * v
    points = roots.repeat(1, PEAK_GRID[0], 1)
    forward = _stack(torch.zeros_like(reach), -0.25 * reach - 0.05 * side**2 * v, reach)
    return _only(points + forward, (e.hat > 0.5) & (e.hat <= 1.5))


def hand(e: Columns, chin: torch.Tensor) -> list[torch.Tensor]:
    """Fingers laid across the chin and the mouth's corner: long rounded tubes. ``chin`` ``[n, 3]``."""
    v, u = _axes(FINGER_GRID, chin.device)
    around = u * 2 * math.pi
    parts = []
    for finger, (across, long, thick) in enumerate(((-0.02, 0.62, 0.09), (0.15, 0.74, 0.095), (0.33, 0.70, 0.09),
                                                    (0.50, 0.58, 0.08), (0.24, 0.50, 0.36))):
        lift = -0.50 if finger == 4 else 0.05 * across
        swell = thick * torch.sqrt((1 - (2 * v - 1) ** 6).clamp(min=0))
        x = across - 0.02 + swell * torch.cos(around) + 0.10 * v
        y = lift + long * (0.5 - v)
        z = 0.16 + 0.35 * swell * torch.sin(around) - 0.10 * (0.5 - v) ** 2
        parts.append(_only(_stack(x, y, z) + chin[:, None], e.hand > 0.5))
    return parts
