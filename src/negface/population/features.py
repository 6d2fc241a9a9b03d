"""Where the features of a face lie on its chart, in decimetres: from traits and expression to plain measures.

The chart of a head has s to the right of the picture around the head (arc length at the front) and t up, with the
eyes at t = 0, the edge of the jaw at t = -1.17 and the crown at 1.15. Mean sizes follow adult anthropometry
(Farkas, Anthropometry of the Head and Face, 1994): pupils 6.3 cm apart, mouth 5 cm wide, nose 5 cm long.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch

from .values import Columns, bump, limit

ARC = 0.87
"""Decimetres of s in one radian around the head."""


def measure(p: Columns, e: Columns) -> SimpleNamespace:
    """Measures of the features, each float32 ``[n, 1]``, from traits ``p`` and shot ``e``."""
    f = SimpleNamespace()
    f.old = ((e.age - 35) / 40).clamp(0, 1.2)
    f.eye_x, f.eye_y = 0.315 + 0.017 * p.eye_distance, 0.022 * p.eye_height
    f.eye_w = 0.155 + 0.010 * p.eye_size
    f.eye_tilt = 0.05 + 0.07 * p.eye_tilt
    opening = (0.059 + 0.009 * p.eye_opening + 0.003 * p.eye_size).clamp(min=0.022)
    opening = opening * (1 - 0.15 * f.old) * (1 - 0.25 * e.smile.clamp(min=0))
    f.lid_low = -0.5 * opening - 0.012
    f.lid_up = opening * (1 + 0.15 * e.brow_raise.clamp(min=0)) * (1 - e.blink) + (f.lid_low + 0.006) * e.blink
    f.iris = 0.058 + 0.0025 * p.iris_size
    f.brow_y = f.eye_y + 0.205 + 0.022 * p.brow_height
    f.brow_in = f.eye_x - 0.185 - 0.012 * p.brow_length
    f.brow_out = f.eye_x + 0.215 + 0.020 * p.brow_length
    f.brow_h = (0.040 + 0.0085 * p.brow_thickness).clamp(min=0.012)
    f.brow_arch, f.brow_tilt = 0.035 + 0.016 * p.brow_arch, 0.02 + 0.018 * p.brow_tilt
    f.nose_y = -0.425 - 0.030 * p.nose_length + f.eye_y * 0.5
    f.nose_w = 0.150 + 0.016 * p.nose_width
    f.mouth_y = -0.715 + 0.025 * p.mouth_height - 0.012 * p.nose_length
    f.mouth_w = (0.245 + 0.018 * p.mouth_width) * (1 + 0.06 * e.smile)
    age_thin = 1 - 0.3 * f.old
    f.lip_up = (0.078 + 0.018 * p.upper_lip).clamp(min=0.030) * age_thin * (1 - 0.2 * e.smile.clamp(min=0))
    f.lip_low = (0.098 + 0.020 * p.lower_lip).clamp(min=0.036) * age_thin * (1 - 0.15 * e.smile.clamp(min=0))
    f.mouth_curve = 0.012 * p.mouth_curve
    f.gap = 0.003 + 0.027 * (4 * e.mouth_open).clamp(0, 1)
    f.chin_y = torch.full_like(f.eye_y, -1.03)
    return f


def mouth_line(f: SimpleNamespace, s: torch.Tensor) -> torch.Tensor:
    """t of the line where the lips meet."""
    return f.mouth_y + f.mouth_curve * (s / f.mouth_w) ** 2


def lip_edges(p: Columns, f: SimpleNamespace, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """t of the upper edge of the upper lip and of the lower edge of the lower lip (the line itself at the corners)."""
    line, x = mouth_line(f, s), (s / f.mouth_w).abs().clamp(max=1)
    bow = 1 - limit(0.16 + 0.09 * p.cupid_bow, low=0) * bump(s, torch.zeros_like(s), 0.035, 1.0)
    return line + f.lip_up * (1 - x**1.8) * bow, line - f.lip_low * (1 - x**2.2)


def gap_half_height(f: SimpleNamespace, s: torch.Tensor) -> torch.Tensor:
    """Half height on the chart of the opening between the lips (stretched when the jaw opens)."""
    return f.gap * (1 - (s / (0.92 * f.mouth_w)) ** 2).clamp(min=0)


def eye_local(f: SimpleNamespace, side: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates in the eye: a from -1 (inner corner) to 1 (outer), and height above the axis in decimetres.

    ``side`` is ``|s|``: both eyes are one.
    """
    a = side - f.eye_x
    return a / f.eye_w, t - f.eye_y - f.eye_tilt * a


def lid_heights(f: SimpleNamespace, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Heights of the upper and of the lower lid's edge above the eye's axis at ``a`` (equal at the corners)."""
    inside = (1 - a * a).clamp(min=0)
    return f.lid_up * inside**0.75 * (1 - 0.12 * a), f.lid_low * inside * (1 + 0.15 * a)


def brow_local(f: SimpleNamespace, side: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates in the brow: 0 (inner end) to 1 (outer end), and height above its axis in decimetres."""
    u = (side - f.brow_in) / (f.brow_out - f.brow_in)
    return u, t - brow_axis(f, u)


def brow_axis(f: SimpleNamespace, u: torch.Tensor) -> torch.Tensor:
    """t of the brow's axis at ``u`` from 0 (inner end) to 1."""
    return f.brow_y + f.brow_tilt * (u - 0.3) + f.brow_arch * (1 - ((u - 0.62) / 0.62) ** 2) - 0.02
