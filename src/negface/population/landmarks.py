"""Landmarks on the chart: the 68 of the iBUG convention (Sagonas et al., 300-W, 2013) and the five of alignment.

Numbers run as in iBUG: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, outer lips 48-59, inner lips 60-67; the first of
each pair lies on the left of the picture.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from .features import ARC, brow_axis, gap_half_height, lid_heights, lip_edges, mouth_line
from .surface import JAW
from .values import Columns

MIRROR_68 = np.array([*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1),
                      45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1),
                      64, 63, 62, 61, 60, 67, 66, 65])
"""Where each landmark goes when the picture is mirrored: ``mirrored[i] = flipped[MIRROR_68[i]]``."""
MIRROR_5 = np.array([1, 0, 2, 4, 3])
PUPILS, EAR_BASES, BRIDGE, CHIN, FOREHEAD = slice(68, 70), slice(70, 72), 72, 73, slice(74, 77)
"""Further points after the landmarks."""


def _pairs(f: SimpleNamespace, numbers: list[float]) -> torch.Tensor:
    return torch.tensor([numbers], device=f.eye_x.device, dtype=f.eye_x.dtype)


def _join(points: list[tuple[torch.Tensor, torch.Tensor]], n: int) -> torch.Tensor:
    """Rows of (s, t), each ``[1 or n, k]``, to ``[n, sum k, 2]``."""
    return torch.cat([torch.stack(torch.broadcast_tensors(*pair), -1).expand(n, -1, -1) for pair in points], 1)


def _eye(f: SimpleNamespace, sign: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Six points of an eye: iBUG goes clockwise in the picture from the corner on the left of the picture."""
    upper_a, lower_a = _pairs(f, [-0.38, 0.38]), _pairs(f, [0.38, -0.38])
    inner, outer = _pairs(f, [-1.0]), _pairs(f, [1.0])
    heights = [lid_heights(f, upper_a)[0], lid_heights(f, lower_a)[1]]
    corner = torch.zeros_like(f.eye_x)
    if sign > 0:  # the corner on the left of the picture is the inner one
        a = torch.cat([inner, upper_a, outer, lower_a], 1)
        h = torch.cat([corner, heights[0], corner, heights[1]], 1)
    else:
        a = torch.cat([outer, upper_a.flip(1), inner, lower_a.flip(1)], 1)
        h = torch.cat([corner, heights[0].flip(1), corner, heights[1].flip(1)], 1)
    side = f.eye_x + f.eye_w * a
    return sign * side, f.eye_y + h + f.eye_tilt * (side - f.eye_x)


def _brow(f: SimpleNamespace, sign: int) -> tuple[torch.Tensor, torch.Tensor]:
    u = _pairs(f, [0.0, 0.25, 0.5, 0.75, 1.0])
    u = u if sign > 0 else u.flip(1)
    return sign * (f.brow_in + u * (f.brow_out - f.brow_in)), brow_axis(f, u)


def _mouth(p: Columns, f: SimpleNamespace) -> list[tuple[torch.Tensor, torch.Tensor]]:
    top = _pairs(f, [-1.0, -0.62, -0.22, 0.0, 0.22, 0.62, 1.0]) * f.mouth_w
    bottom = _pairs(f, [0.62, 0.25, 0.0, -0.25, -0.62]) * f.mouth_w
    inner = _pairs(f, [-0.88, -0.35, 0.0, 0.35, 0.88, 0.35, 0.0, -0.35]) * f.mouth_w
    way = _pairs(f, [0.0, 1, 1, 1, 0, -1, -1, -1])
    return [(top, lip_edges(p, f, top)[0]), (bottom, lip_edges(p, f, bottom)[1]),
            (inner, mouth_line(f, inner) + way * gap_half_height(f, inner))]


def chart_points(p: Columns, f: SimpleNamespace) -> torch.Tensor:
    """Chart coordinates of the 68 landmarks and the further points, ``[n, 77, 2]``."""
    jaw = torch.linspace(-1.45, 1.45, 17, device=f.eye_x.device)[None] * ARC
    down = 1 - (jaw.abs() / (1.45 * ARC)) ** 6
    root = f.eye_y + 0.03
    bridge = root + (f.nose_y - root) * _pairs(f, [0.0, 1 / 3, 2 / 3, 1.0])
    wings = _pairs(f, [-0.92, -0.5, 0.0, 0.5, 0.92]) * f.nose_w
    base = f.nose_y - _pairs(f, [0.075, 0.095, 0.105, 0.095, 0.075])
    points = [(jaw, -0.15 + (JAW + 0.15) * down), _brow(f, -1), _brow(f, 1), (torch.zeros_like(bridge), bridge),
              (wings, base), _eye(f, -1), _eye(f, 1), *_mouth(p, f),
              (torch.cat([-f.eye_x, f.eye_x], 1), torch.cat([f.eye_y, f.eye_y], 1)),
              (_pairs(f, [-1.36, 1.36]), -0.14 + 0.05 * p.ear_height), (torch.zeros_like(root), root - 0.03),
              (torch.zeros_like(root), f.chin_y),
              (_pairs(f, [-0.35, 0.0, 0.35]), _pairs(f, [0.58, 0.62, 0.58]))]
    return _join(points, len(f.eye_x))


def five_points(points: torch.Tensor) -> torch.Tensor:
    """Alignment's five of the 68, any last dimension: middles of the eyes, tip of the nose, corners of the mouth."""
    eyes = [(points[:, first] + points[:, first + 3]) / 2 for first in (36, 42)]
    return torch.stack([*eyes, points[:, 30], points[:, 48], points[:, 54]], 1)
