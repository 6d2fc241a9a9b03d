"""Eyeballs: true spheres behind the lids, met by the view's ray at each pixel, so gaze and iris turn as they should."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch

from .camera import LEVEL
from .skin import put
from .values import Columns, mix, ramp

RADIUS = 0.122


def iris_colour(p: Columns) -> torch.Tensor:
    """Linear RGB ``[n, 3]``: blue to green to dark brown with melanin."""
    melanin = torch.maximum(p.iris_melanin, 1.5 * p.skin_tone - 0.15).clamp(0, 1)
    colours = torch.tensor([[0.13, 0.22, 0.34], [0.12, 0.16, 0.08], [0.075, 0.033, 0.012], [0.018, 0.009, 0.005]],
                           device=melanin.device)
    at = melanin * 3
    colour = colours[None, 0]
    for step in range(3):
        colour = mix(colour, colours[None, step + 1], ramp(at - step))
    return colour


def eyeballs(e: SimpleNamespace, f: SimpleNamespace, colour: torch.Tensor, look: SimpleNamespace, normal: torch.Tensor,
             places: torch.Tensor, centres: torch.Tensor, radius: torch.Tensor, rotation: torch.Tensor) -> None:
    """Paint what is seen between the lids of one head into ``look``, and give ``normal`` the eyeballs' own there.

    Args:
        e, f: shot and measures as plain numbers.
        colour: of the iris, linear, ``[1, 3]``.
        normal: ``[k, 3]``, changed in place.
        places: of the points on the screen, ``[k, 2]``, y down.
        centres: middles of the two eyeballs on the screen, left of the picture first, ``[2, 2]``.
        radius: of an eyeball on the screen, in the unit of ``places``.
        rotation: of the head, ``[3, 3]``.
    """
    index = look.lids[0].nonzero()[:, 0]
    if not len(index):
        return
    middle = torch.where((look.s[0, index] > 0)[:, None], centres[1], centres[0])
    x, y = ((places[index] - middle) / radius).unbind(-1)
    y = -y
    z = torch.sqrt((1 - x * x - y * y).clamp(min=0.02))
    ball = torch.stack([x, y, z], -1) / torch.sqrt(x * x + y * y + z * z)[:, None]
    turn, lift = math.radians(-e.gaze_x), math.radians(e.gaze_y - LEVEL)
    gaze = torch.tensor([math.sin(turn) * math.cos(lift), math.sin(lift), math.cos(turn) * math.cos(lift)],
                        device=places.device)
    ahead = (ball * (rotation * gaze).sum(1)).sum(1)
    away = torch.sqrt((2 - 2 * ahead).clamp(min=0))[None] * RADIUS
    iris, pupil = ((ramp((share * f.iris - away) / 0.010 + 0.5) * (ahead > 0)) for share in (1.0, 0.40))
    ring = ramp((away - 0.70 * f.iris) / (0.30 * f.iris))
    red = 0.25 * ramp((look.eye_corner[:, index].abs() - 0.6) / 0.5)
    white = torch.stack([0.52 - 0.05 * red, 0.47 - 0.35 * red, 0.44 - 0.35 * red], 1)
    colour = colour[..., None] * (1.15 - 0.70 * ring)[:, None]
    colour = mix(mix(white, colour, iris[:, None]), torch.full_like(white, 0.006), pupil[:, None])
    put(look.albedo, index, colour * (0.45 + 0.55 * ramp(look.below_lid[:, index]))[:, None])
    look.gloss[:, index] = 0.07
    look.translucent[:, index] = 0.0
    normal[index] = ball
