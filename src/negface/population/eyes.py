"""Eyeballs: true spheres behind the lids, met by the view's ray at each pixel, so gaze and iris turn as they should."""

from __future__ import annotations

from types import SimpleNamespace

import torch

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


def eyeballs(p: Columns, e: Columns, f: SimpleNamespace, look: SimpleNamespace, normal: torch.Tensor,
             pixel_xy: torch.Tensor, centres: torch.Tensor, scale: torch.Tensor, rotation: torch.Tensor,
             on_right: torch.Tensor) -> torch.Tensor:
    """Paint what is seen between the lids into ``look``; returns the normals with the eyeballs' own.

    Args:
        pixel_xy: place of each pixel on the screen, ``[1, k, 2]``, y down.
        centres: middles of the two eyeballs on the screen, ``[n, 2, 2]``.
        scale: pixels a decimetre, ``[n]``.
        rotation: of the head, ``[n, 3, 3]``.
        on_right: bool ``[n, k]``, whether the point belongs to the eye on the right of the picture.
    """
    middle = torch.where(on_right[..., None], centres[:, 1:2], centres[:, 0:1])
    offset = (pixel_xy - middle) / (RADIUS * scale)[:, None, None]
    x, y = offset[..., 0], -offset[..., 1]
    z = torch.sqrt((1 - x * x - y * y).clamp(min=0.02))
    length = torch.sqrt(x * x + y * y + z * z)
    ball = torch.stack([x / length, y / length, z / length], -1)
    gaze_x, gaze_y = torch.deg2rad(-e.gaze_x), torch.deg2rad(e.gaze_y)
    gaze = torch.cat([torch.sin(gaze_x) * torch.cos(gaze_y), torch.sin(gaze_y), torch.cos(gaze_x) * torch.cos(gaze_y)], 1)
    gaze = (rotation * gaze[:, None]).sum(-1)
    ahead = (ball * gaze[:, None]).sum(-1)
    away = torch.sqrt((2 - 2 * ahead).clamp(min=0)) * RADIUS
    iris = ramp((f.iris - away) / 0.010 + 0.5) * (ahead > 0)
    pupil = ramp((0.40 * f.iris - away) / 0.010 + 0.5) * (ahead > 0)
    ring = ramp((away - 0.70 * f.iris) / (0.30 * f.iris))
    red = 0.25 * ramp((look.eye_corner.abs() - 0.6) / 0.5)
    white = torch.stack([0.66 - 0.05 * red, 0.60 - 0.45 * red, 0.56 - 0.45 * red], 1)
    colour = iris_colour(p)[..., None] * (1.15 - 0.70 * ring)[:, None]
    colour = mix(mix(white, colour, iris[:, None]), torch.full_like(white, 0.006), pupil[:, None])
    colour = colour * (0.45 + 0.55 * ramp(look.below_lid))[:, None]
    inside = look.lids.float()
    look.albedo = look.albedo + (colour - look.albedo) * inside[:, None]
    look.gloss = mix(look.gloss, 0.30 * torch.ones_like(look.gloss), inside)
    look.translucent = look.translucent * (1 - inside)
    return torch.where(look.lids[..., None], ball, normal)
