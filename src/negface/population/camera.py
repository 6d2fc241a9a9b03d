"""From space to the picture: head pose, perspective, and the similarity to the five-point template or a passport frame.

Pose is in degrees: yaw + turns the nose to the left of the picture, pitch + up, roll + clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..datasets.templates import TEMPLATE_SIZE, fit_similarity, template
from ..foundation.errors import UnknownNameError
from .landmarks import five_points
from .values import Columns

FRAMES = ("aligned", "portrait")
"""``aligned``: as recognisers expect it, roll taken out. ``portrait``: the whole head in the middle, roll kept."""
LEVEL = 4.0
"""Degrees by which the chart's vertical leans forwards when the head is level (so that a level head reads as one)."""
_CENTRE = (0.0, -0.35, 0.0)
_PORTRAIT_SPAN = 3.5


@dataclass(frozen=True)
class View:
    """How space was seen: rotated points and their places in the picture.

    ``space`` ``[n, v, 3]`` and ``landmarks_space`` ``[n, k, 3]`` in the camera's axes; ``screen`` ``[n, v, 2]`` and
    ``landmarks`` ``[n, k, 2]`` in pixels of ``size``, a centre being a whole number; ``scale`` pixels a decimetre
    ``[n]``; ``roll`` degrees left in the picture ``[n]``; ``rotation`` of the head ``[n, 3, 3]``.
    """

    space: torch.Tensor
    screen: torch.Tensor
    landmarks_space: torch.Tensor
    landmarks: torch.Tensor
    scale: torch.Tensor
    roll: torch.Tensor
    rotation: torch.Tensor


def rotation(e: Columns) -> torch.Tensor:
    """Rotation matrices ``[n, 3, 3]`` of yaw, then pitch, then roll."""
    yaw, pitch, roll = (torch.deg2rad(angle)[:, 0] for angle in (-e.yaw, -e.pitch - LEVEL, -e.roll))
    one, zero = torch.ones_like(yaw), torch.zeros_like(yaw)

    def matrix(*rows: torch.Tensor) -> torch.Tensor:
        return torch.stack(rows, 1).view(-1, 3, 3)

    cos, sin = torch.cos, torch.sin
    turn = matrix(cos(yaw), zero, sin(yaw), zero, one, zero, -sin(yaw), zero, cos(yaw))
    nod = matrix(one, zero, zero, zero, cos(pitch), -sin(pitch), zero, sin(pitch), cos(pitch))
    tilt = matrix(cos(roll), -sin(roll), zero, sin(roll), cos(roll), zero, zero, zero, one)
    return tilt @ nod @ turn


def rotate(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """``matrix`` ``[n, 3, 3]`` applied to ``[n, k, 3]``, term by term: the same bits whatever the batch."""
    x, y, z = points.unbind(-1)
    rows = [matrix[:, i, 0, None] * x + matrix[:, i, 1, None] * y + matrix[:, i, 2, None] * z for i in range(3)]
    return torch.stack(rows, -1)


def _project(space: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    nearer = distance / (distance - space[..., 2])
    return torch.stack([space[..., 0] * nearer, -space[..., 1] * nearer], -1)


def _fit(five: np.ndarray, shift: np.ndarray, size: int, frame: str, template_name: str) -> np.ndarray:
    """``[n, 2, 3]``, from decimetres on the screen to pixels."""
    pixel = size / TEMPLATE_SIZE
    if frame == "aligned":
        target = template(template_name, size)
        return np.stack([fit_similarity(points, target + move * pixel) for points, move in zip(five, shift)])
    scale = size / _PORTRAIT_SPAN
    middle = (size - 1) / 2
    return np.stack([[[scale, 0, middle + move[0] * pixel], [0, scale, middle + move[1] * pixel]] for move in shift])


def look(points: torch.Tensor, landmarks: torch.Tensor, e: Columns, size: int, *, frame: str = "aligned",
         template_name: str = "arcface") -> View:
    """See vertices ``[n, v, 3]`` and landmarks ``[n, k, 3]`` from the camera; see ``View``."""
    if frame not in FRAMES:
        raise UnknownNameError("frame", frame, FRAMES)
    matrix = rotation(e)
    centre = torch.tensor(_CENTRE, device=points.device)
    space, marks = (rotate(matrix, item - centre) for item in (points, landmarks))
    flat, flat_marks = _project(space, e.distance), _project(marks, e.distance)
    shift = torch.cat([e.shift_x, e.shift_y], 1).double().cpu().numpy()
    fit = _fit(five_points(flat_marks[:, :68]).double().cpu().numpy(), shift, size, frame, template_name)
    a = torch.tensor(fit, dtype=torch.float32, device=points.device)

    def place(at: torch.Tensor) -> torch.Tensor:
        x, y = at.unbind(-1)
        return torch.stack([a[:, i, 0, None] * x + a[:, i, 1, None] * y + a[:, i, 2, None] for i in range(2)], -1)

    scale = torch.hypot(a[:, 0, 0], a[:, 1, 0])
    turned = torch.rad2deg(torch.atan2(a[:, 1, 0], a[:, 0, 0]))
    return View(_turn_in_picture(space, turned), place(flat), _turn_in_picture(marks, turned), place(flat_marks), scale,
                e.roll[:, 0] + turned, _turn_in_picture(matrix.transpose(1, 2), turned).transpose(1, 2))


def _turn_in_picture(points: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Turn ``[n, k, 3]`` clockwise in the picture, as alignment did, so that light and depth match what is seen."""
    cosine, sine = torch.cos(torch.deg2rad(degrees))[:, None], torch.sin(torch.deg2rad(degrees))[:, None]
    x, y, z = points.unbind(-1)
    return torch.stack([cosine * x + sine * y, -sine * x + cosine * y, z], -1)
