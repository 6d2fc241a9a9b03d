"""The head as a function: a point of the chart goes to a point of space, for a person at an age with an expression.

Vertices and landmarks come from the same function, so landmarks are exact. The chart is lofted over the whole head:
crown, face, edge of the jaw (which rises towards the ears), underside of the jaw, neck, shoulders; hence silhouettes
hold at any pose. Space is in decimetres: x to the right of the picture, y up, z towards the camera, eyes at y = 0.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch

from .features import ARC, gap_half_height, mouth_line
from .values import Columns, bump, edge, mix, ramp, smooth_table, table_at

CROWN, JAW, NECK, HEM = 1.15, -1.17, -1.52, -2.35
"""Levels of t: top of the head, edge of the jaw, where the neck begins, end of the shoulders."""

#                   -1.2  -1.0  -0.8  -0.6  -0.4  -0.2    0    0.2   0.4   0.6   0.8   1.0   1.2
_BREADTH = (0.535, 0.57, 0.61, 0.645, 0.675, 0.695, 0.71, 0.72, 0.735, 0.75, 0.755, 0.755, 0.755)
_FRONT = (0.745, 0.82, 0.845, 0.86, 0.875, 0.885, 0.895, 0.925, 0.935, 0.925, 0.90, 0.88, 0.87)
_BACK = (0.55, 0.60, 0.68, 0.78, 0.88, 0.95, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
# height of the jaw's edge, as a share of the chin's, by angle from the front in steps of pi / 10
_JAW_EDGE = (1.0, 0.985, 0.90, 0.76, 0.60, 0.47, 0.43, 0.45, 0.53, 0.58, 0.60)


def _profile(rows: list[tuple[tuple[float, ...], torch.Tensor | None]], like: torch.Tensor) -> torch.Tensor:
    total = 0
    for numbers, weight in rows:
        line = torch.tensor([numbers], device=like.device, dtype=like.dtype)
        total = total + (line if weight is None else line * weight)
    return smooth_table(total, 8)


def _tables(p: Columns, f: SimpleNamespace) -> SimpleNamespace:
    """What depends on the person alone: profiles over t and the edge of the jaw over the angle."""
    low = (1, 1, 0.9, 0.6, 0.3, 0.1, 0, 0, 0, 0, 0, 0, 0)
    cheek = (0, 0.1, 0.3, 0.7, 1, 1, 0.7, 0.3, 0.1, 0, 0, 0, 0)
    high = (0, 0, 0, 0, 0, 0.1, 0.3, 0.7, 1, 1, 1, 1, 1)
    jowl = (1, 1, 1, 0.8, 0.4, 0.2, 0.1, 0, 0, 0, 0, 0, 0)
    slope = (0, 0, 0, 0, 0, 0, 0, 0, -0.3, -0.8, -1.2, -1.4, -1.5)
    like = f.eye_x
    k = SimpleNamespace()
    k.breadth = _profile([(_BREADTH, None), (low, 0.030 * p.jaw_width), (cheek, 0.020 * p.face_width),
                          (high, 0.022 * p.forehead_width), (jowl, 0.026 * p.adiposity + 0.015 * f.old)], like)
    k.breadth = k.breadth * (1 + 0.028 * p.head_width)
    k.front = _profile([(_FRONT, None), (slope, 0.022 * p.forehead_slope), (jowl, 0.010 * p.adiposity)], like)
    k.back = _profile([(_BACK, None)], like) * (1 + 0.045 * p.head_length)
    square = (0, 0, 0.25, 0.7, 1.0, 0.8, 0.4, 0.2, 0, 0, 0)
    k.jaw = _profile([(_JAW_EDGE, None), (square, 0.040 * p.jaw_height + 0.015 * f.old)], like)
    return k


def _skull(p: Columns, f: SimpleNamespace, angle: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The head without features: x, y, z."""
    k = _tables(p, f)
    face_t = t.clamp(JAW, CROWN)
    breadth = table_at(face_t, k.breadth, -1.2, 1.2)
    front, back = table_at(face_t, k.front, -1.2, 1.2), table_at(face_t, k.back, -1.2, 1.2)
    vault = ((t - 0.35) / (CROWN - 0.35)).clamp(0, 1)
    dome = torch.sqrt((1 - vault**2.1).clamp(min=0))
    sine, cosine = torch.sin(angle), torch.cos(angle)
    depth = torch.where(cosine >= 0, front, back)
    # A superellipse: the front of a face is flatter than an ellipse.
    power = 2.0 + 0.35 * ramp(cosine + 0.3)
    radius = ((sine.abs() / breadth).clamp(min=1e-6) ** power + (cosine.abs() / depth).clamp(min=1e-6) ** power)
    radius = radius ** (-1 / power) * dome
    x, z = radius * sine, radius * cosine
    jaw = table_at(angle.abs(), k.jaw, 0, math.pi)
    lift = 1 + (jaw - 1) * ramp(-t / 0.5)
    y = torch.where(t < 0, t.clamp(min=JAW) * lift, t * (1 + 0.05 * p.head_height * ramp(t / 0.6)))
    return x, y, z


def _neck(p: Columns, angle: torch.Tensor, t: torch.Tensor, x: torch.Tensor, y: torch.Tensor,
          z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Carry the edge of the jaw inwards to the neck, and the neck down to the shoulders."""
    wide = 0.52 * (1 + 0.07 * p.neck_width + 0.05 * p.adiposity)
    sine, cosine = torch.sin(angle), torch.cos(angle)
    neck_x, neck_z = wide * sine, wide * cosine - 0.22
    neck_y = -1.02 - 0.30 * cosine
    under = ((JAW - t) / (JAW - NECK)).clamp(0, 1)
    down = (NECK - t).clamp(min=0)
    flare = 1 + 2.6 * ramp((down - 0.25) / 0.75)
    share = ramp(under)
    x, z = mix(x, neck_x * flare, share), mix(z, neck_z + 0.25 * ramp(down / 0.8) * cosine, share)
    # jaw points above the neck's beginning go straight in first: a chin has an underside
    y = mix(y, torch.minimum(neck_y, y - 0.04), share**1.5) - down
    return x, y, z


def _nose(p: Columns, f: SimpleNamespace, s: torch.Tensor, side: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Height of the nose above the face."""
    root = f.eye_y + 0.06
    along = (root - t) / (root - f.nose_y)
    inside = along.clamp(0, 1)
    bridge = 0.085 + 0.020 * p.bridge_height + f.old * 0.01
    tip = 0.160 + 0.020 * p.nose_projection + 0.02 * f.old
    ridge = bridge * ramp(along * 2 + 0.9) * (1 - inside) + tip * inside**1.25
    ridge = ridge + (0.012 + 0.022 * p.nose_bump) * torch.sin(math.pi * inside)
    floor = f.nose_y - 0.040 + 0.012 * p.tip_up
    # the underside slopes back from the tip to the lip and is rounded across
    below = ramp((t - floor + 0.075 + 1.2 * side**2) / 0.105)
    width = (0.062 + 0.008 * p.bridge_width) + (0.022 + 0.006 * p.tip_size) * inside**2
    nose = ridge * below * torch.exp(-((side / width) ** 2))
    lobe = (0.066 + 0.010 * p.tip_size) * bump(s, t - f.nose_y - 0.005, 0.075 + 0.007 * p.tip_size, 0.062)
    wing = 0.085 * bump(side - f.nose_w + 0.035, t - f.nose_y + 0.035, 0.042, 0.045)
    root_side = 0.040 * bump(side - 0.45 * f.nose_w, t - f.nose_y - 0.03, 0.07, 0.13)
    return nose + lobe * (0.25 + 0.75 * below) + wing + root_side


def _mouth(p: Columns, f: SimpleNamespace, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    line = mouth_line(f, s)
    forward = 0.040 + 0.014 * p.lip_projection
    dental = (0.045 + 0.012 * p.lip_projection) * bump(s, t - f.mouth_y, 0.27, 0.20)
    upper_at = t - line - 0.55 * f.lip_up
    upper = (forward + 0.10 * (f.lip_up - 0.06)) * bump(s, upper_at, 0.62 * f.mouth_w, 0.55 * f.lip_up)
    lower = (forward + 0.010) * bump(s, t - line + 0.5 * f.lip_low, 0.58 * f.mouth_w, 0.5 * f.lip_low)
    seam = -0.030 * bump(s, t - line, 0.85 * f.mouth_w, 0.020)
    corner = -0.020 * bump(s.abs() - f.mouth_w, t - line, 0.035, 0.03)
    groove = -(0.012 + 0.006 * p.philtrum) * bump(s, t - f.mouth_y - f.lip_up - 0.07, 0.030, 0.07)
    sulcus = -0.042 * bump(s, t - f.mouth_y + f.lip_low + 0.075, 0.19, 0.05)
    return dental + upper + lower + seam + corner + groove + sulcus


def _relief(p: Columns, f: SimpleNamespace, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Height of all features above the skull, in decimetres."""
    side, zero = s.abs(), torch.zeros_like(s)
    up = t - f.eye_y
    socket = -(0.085 + 0.020 * p.eye_depth) * bump(side - f.eye_x - 0.01, up - 0.01, 0.165, 0.105)
    socket = socket - 0.040 * bump(side - 0.165, up - 0.005, 0.06, 0.075)
    ball = 0.066 * bump(side - f.eye_x, up, 0.115, 0.072)
    fold = -0.012 * (1 + 0.4 * p.lid_fold) * bump(side - f.eye_x, up - 0.095, 0.14, 0.018)
    ridge = (0.042 + 0.020 * p.brow_ridge) * bump(side - 0.27, t - 0.185 - 0.5 * f.eye_y, 0.22, 0.065)
    glabella = (0.012 + 0.012 * p.brow_ridge) * bump(s, t - 0.16, 0.10, 0.07)
    bone_y = -0.27 + 0.035 * p.cheekbone_height
    bone = (0.055 + 0.022 * p.cheekbone_projection) * bump(side - 0.50, t - bone_y, 0.17, 0.12)
    fullness = 0.010 + 0.022 * p.cheek_fullness + 0.018 * p.adiposity - 0.02 * f.old
    cheek = fullness * bump(side - 0.42, t + 0.60, 0.17, 0.18)
    jowl = 0.030 * f.old * bump(side - 0.38, t + 0.98, 0.14, 0.12)
    temple = -(0.020 + 0.012 * p.temple_depth + 0.015 * f.old) * bump(side - 0.74, t - 0.25, 0.16, 0.20)
    chin_width = 0.165 + 0.024 * p.chin_width
    chin = (0.070 + 0.026 * p.chin_projection) * bump(s, t - f.chin_y, chin_width, 0.11)
    cleft = -0.012 * p.chin_cleft.clamp(min=0) * bump(s, t - f.chin_y, 0.022, 0.08)
    fold_x = 0.17 + 0.17 * ((f.nose_y - t) / 0.30).clamp(-0.5, 1.2)
    laugh = -(0.006 + 0.014 * f.old) * torch.exp(-((side - fold_x) / 0.035) ** 2) * bump(zero, t + 0.56, 1.0, 0.13)
    return (socket + ball + fold + ridge + glabella + bone + cheek + jowl + temple + chin + cleft + laugh
            + _nose(p, f, s, side, t) + _mouth(p, f, s, t))


def _express(p: Columns, e: Columns, f: SimpleNamespace, s: torch.Tensor, t: torch.Tensor, front: torch.Tensor,
             x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Move what muscles and the jaw move; asymmetry of the person at the end."""
    sign = torch.tanh(s / 0.05)
    side = s.abs()
    line = mouth_line(f, s)
    beyond = ramp((side - 0.80 * f.mouth_w) / 0.22)
    half = gap_half_height(f, s) + 0.002 + 0.26 * beyond
    jaw = ramp((line - t) / (2 * half) + 0.5) * ramp(1.25 * front) * ramp((t - NECK) / (JAW - NECK))
    drop = e.mouth_open * jaw
    upper = bump(s, t - line - 0.05, 0.8 * f.mouth_w, 0.06) * (1 - jaw)
    corners = bump(side - f.mouth_w, t - line, 0.12, 0.14)
    apple = e.smile.clamp(min=0) * bump(side - 0.42, t + 0.33, 0.15, 0.12)
    brow = e.brow_raise * bump(side - 0.30, t - f.brow_y, 0.24, 0.10)
    frown = (-e.brow_raise).clamp(min=0) * bump(side - 0.14, t - f.brow_y, 0.10, 0.10)
    y = y - 0.30 * drop + 0.03 * e.mouth_open * upper + e.smile * (0.055 * corners) + 0.04 * apple + 0.055 * brow
    y = y - 0.02 * f.old * corners - 0.015 * f.old * bump(side - 0.42, t + 0.55, 0.2, 0.2)
    x = x + sign * (0.03 * e.smile * corners - 0.035 * frown - 0.02 * e.mouth_open * corners)
    z = z - 0.06 * drop + 0.028 * apple - 0.035 * e.smile.clamp(min=0) * corners
    low = ramp((-0.3 - t) / 0.8) * ramp(front * 1.5) * ramp((t - NECK) / 0.2)
    x = x + 0.014 * p.asymmetry_jaw * low + 0.014 * p.asymmetry_nose * bump(s, t - f.nose_y, 0.16, 0.16)
    y = y + 0.009 * p.asymmetry_eyes * torch.tanh(s / 0.15) * bump(side - f.eye_x, t - 0.1, 0.25, 0.22)
    y = y + 0.010 * p.asymmetry_mouth * torch.tanh(s / 0.15) * bump(side - 0.2, t - f.mouth_y, 0.2, 0.12)
    return x, y, z


def head_point(p: Columns, e: Columns, f: SimpleNamespace, s: torch.Tensor, t: torch.Tensor, *,
               lift: torch.Tensor | float = 0.0, smooth: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Points in space of chart points.

    Args:
        p, e, f: traits, shot and measures of ``n`` people (``features.measure``).
        s, t: chart coordinates, ``[1, k]`` or ``[n, k]``.
        lift: how far outside the skin (hair, hat, mask), decimetres, ``[n, k]``.
        smooth: 0 to 1, how far features are levelled (under a mask).

    Returns:
        float32 ``[n, k, 3]``.
    """
    angle = s / ARC
    x, y, z = _skull(p, f, angle, t)
    front = torch.cos(angle).clamp(min=0)
    relief = _relief(p, f, s, t) * edge(front - 0.12, 0.24) * ramp((t - NECK) / (JAW - NECK))
    mask_dome = 0.22 * bump(s, t + 0.50, 0.22, 0.22) + 0.08 * bump(s, t + 0.75, 0.45, 0.35)
    relief = mix(relief, mask_dome.expand_as(relief), torch.as_tensor(smooth, device=s.device))
    chin = 0.045 * p.chin_length * ramp((f.mouth_y - 0.15 - t) / 0.25) * front**3
    sine, cosine = torch.sin(angle), torch.cos(angle)
    x = x + relief * 0.45 * sine
    z = z + relief * (cosine + 0.1)
    y = y - chin
    x, y, z = _neck(p, angle, t, x, y, z)
    x, y, z = _express(p, e, f, s, t, front, x, y, z)
    if not isinstance(lift, float):
        vault = ((t - 0.35) / (CROWN - 0.35)).clamp(0, 1)
        out = lift * (1 - vault**4)  # nothing sideways at the crown, where all columns meet
        x, z, y = x + out * sine, z + out * cosine, y + lift * ramp(vault)
    return torch.stack(torch.broadcast_tensors(x, y, z), -1)
