"""Hair: where it grows on the chart, how far it stands off the scalp, and its colour (melanin, red, grey with age)."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from .values import Columns, bump, limit, mix, ramp, smooth_table, table_at

_SPAN = 2.8
# t of the hairline by |s| in steps of 0.2: forehead, temple, sideburn, behind the ear, nape
_LINE = (0.70, 0.695, 0.67, 0.58, 0.37, 0.03, -0.20, -0.05, -0.30, -0.60, -0.72, -0.75, -0.76, -0.76, -0.76)


def length(p: Columns) -> torch.Tensor:
    """Length of the hair, 0 shaved to 1 on the shoulders: the trait, longer with femininity (tensor or number)."""
    return limit(0.62 * p.hair_length + 0.5 * (p.femininity - 0.25), 0.04, 1)


def is_long(p: Columns, e: Columns) -> torch.Tensor:
    """Whether hair falls beside the face, bool ``[n, 1]``."""
    return length(p) > 0.55


def hairline_table(p: Columns, f: SimpleNamespace) -> torch.Tensor:
    """t of the hairline by ``|s|`` from 0 to 2.8, ``[n, m]``."""
    line = torch.tensor([_LINE], device=f.eye_x.device)
    at = torch.linspace(0, _SPAN, len(_LINE), device=line.device)[None]
    forehead, zero = ramp((0.9 - at) / 0.4), torch.zeros_like(at)
    masculine_age = f.old * (1.2 * (1 - p.femininity) + 0.1) * ramp(0.6 + 0.4 * p.hairline_recession)
    recession = (0.045 * p.hairline_recession).clamp(min=0) + 0.16 * masculine_age
    line = line + (0.040 * p.hairline + 0.06 * masculine_age) * forehead + recession * bump(at - 0.45, zero, 0.17, 1.0)
    line = line - 0.035 * p.widows_peak.clamp(min=0) * bump(at, zero, 0.12, 1.0)
    fringe = ramp((p.fringe - 0.5) / 0.8) * ramp((length(p) - 0.25) / 0.1) * (1 - ramp(masculine_age * 2))
    fringe_line = 0.36 + 0.03 * torch.cos(at * 3) + 0.02 * p.hair_volume
    line = mix(line, torch.minimum(line, fringe_line), fringe * ramp((0.85 - at) / 0.25))
    shaved_sides = 0.10 * ramp((0.35 - length(p)) / 0.3) * bump(at - 1.15, zero, 0.2, 1.0)
    return smooth_table(line + shaved_sides, 8)


def above_line(table: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Decimetres above the hairline, negative on bare skin."""
    return t - table_at(s.abs(), table, 0, _SPAN)


def stand_off(p: Columns, f: SimpleNamespace, above: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """How far the surface of the hair lies outside the scalp, decimetres."""
    long = length(p)
    thick = 0.012 + (0.16 + 0.05 * p.hair_volume).clamp(min=0.05) * ramp((long - 0.08) / 0.5)
    parting = bump(s - 0.12 * p.hair_part, torch.zeros_like(s), 0.05, 1.0) * ramp((t - 0.5) / 0.2)
    parted = 1 - 0.35 * ramp(long * 2) * parting
    waves = 1 + 0.30 * p.hair_wave * torch.sin(9 * s + 3 * torch.sin(7 * t)) * torch.sin(11 * t)
    crown = 0.75 + 0.4 * ramp((t - 0.2) / 0.7)
    return thick * ramp(above / 0.13 + 0.15) * parted * waves * crown


def colour(p: Columns, e: Columns) -> torch.Tensor:
    """Linear RGB of the hair, ``[n, 3]``: eumelanin darkens, pheomelanin reddens, age greys."""
    melanin = torch.maximum(p.hair_melanin, 1.35 * p.skin_tone - 0.1).clamp(0, 1)
    blond = torch.tensor([[0.48, 0.33, 0.155]], device=melanin.device)
    brown = torch.tensor([[0.10, 0.050, 0.026]], device=melanin.device)
    black = torch.tensor([[0.011, 0.009, 0.008]], device=melanin.device)
    dark = mix(mix(blond, brown, ramp(melanin / 0.5)), black, ramp((melanin - 0.4) / 0.5))
    red = torch.tensor([[0.30, 0.085, 0.025]], device=melanin.device)
    dark = mix(dark, red, 0.8 * p.hair_red * (1 - ramp((melanin - 0.3) / 0.5)))
    grey = ramp((e.age - 42 - 10 * (1 - p.femininity) + 14 * p.hair_red) / 38)
    return mix(dark, torch.tensor([[0.45, 0.44, 0.43]], device=melanin.device), 0.9 * grey)
