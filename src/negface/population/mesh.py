"""One fixed mesh for everybody: grids for the head, two ears, hanging hair, a pair of glasses, a peak and a hand.

The topology never changes, so any people render in one batch; what a picture lacks has NaN vertices, which the
rasteriser drops. Positions come from ``surface`` and ``worn``; here are grids, faces and normals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from .features import ARC
from .surface import CROWN, HEM, JAW, NECK

HEAD, EAR, LOCKS, GLASSES, PEAK, HAND = range(6)
EAR_GRID, LOCKS_GRID, PEAK_GRID = (7, 19), (18, 41), (5, 25)
RING_GRID, BAR_GRID, FINGER_GRID = (5, 29), (5, 6), (9, 9)
N_BARS, N_FINGERS = 3, 5


@dataclass(frozen=True)
class Grid:
    """A sheet of ``rows`` x ``columns`` vertices starting at vertex ``start``; ``seen_twice`` means from both sides."""

    part: int
    start: int
    rows: int
    columns: int
    seen_twice: bool

    @property
    def end(self) -> int:
        """One past its last vertex."""
        return self.start + self.rows * self.columns


@dataclass(frozen=True)
class Mesh:
    """Topology: ``faces`` int64 ``[m, 3]``, ``part`` int64 ``[m]``, ``double`` bool ``[m]``, and the head's chart."""

    grids: tuple[Grid, ...]
    faces: torch.Tensor
    part: torch.Tensor
    double: torch.Tensor
    s: torch.Tensor
    t: torch.Tensor

    @property
    def n_vertices(self) -> int:
        """Vertices of all grids."""
        return self.grids[-1].end


def head_columns(n: int) -> np.ndarray:
    """Angles from -pi to pi, four times denser over the face than behind."""
    fine = np.linspace(-math.pi, math.pi, 4001)
    density = 0.26 + 0.74 / (1 + np.exp((np.abs(fine) - 1.35) * 7))
    cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angles = np.interp(np.linspace(0, cumulative[-1], n), cumulative, fine)
    return (angles - angles[::-1]) / 2


def head_rows(step: float) -> np.ndarray:
    """Levels of t from the crown to the shoulders; dense over the face, even in arc over the vault."""
    vault = 0.40 + (CROWN - 0.40) * np.sin(np.linspace(math.pi / 2, 0, round(0.45 / step) + 1))
    face = np.linspace(0.40, JAW, round((0.40 - JAW) / step) + 1)[1:]
    return np.concatenate([vault, face, np.linspace(JAW, NECK, 9)[1:], np.linspace(NECK, HEM, 8)[1:]])


def _faces(grid: Grid) -> np.ndarray:
    at = grid.start + np.arange(grid.rows * grid.columns).reshape(grid.rows, grid.columns)
    a, b, c, d = (at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:])
    # rows go down and columns to the right of the picture: these turn anticlockwise when seen from outside
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def step_for(size: int) -> float:
    """Distance of vertices over the face, decimetres, for a picture of ``size`` pixels: 2 pixels or so."""
    return next((step for most, step in ((80, 0.040), (128, 0.033), (200, 0.025)) if size <= most), 0.0175)


@lru_cache(maxsize=8)
def build(step: float = 0.025, device: str = "cpu") -> Mesh:
    """The mesh with rows ``step`` decimetres apart over the face."""
    angles, levels = head_columns(round(2.45 / step)), head_rows(step)
    sheets = [(HEAD, len(levels), len(angles), False), (EAR, *EAR_GRID, True), (EAR, *EAR_GRID, True),
              (LOCKS, *LOCKS_GRID, True), (PEAK, *PEAK_GRID, True)]
    sheets += [(GLASSES, *RING_GRID, True)] * 2 + [(GLASSES, *BAR_GRID, True)] * N_BARS
    sheets += [(HAND, *FINGER_GRID, True)] * N_FINGERS
    grids, start = [], 0
    for part, rows, columns, twice in sheets:
        grids.append(Grid(part, start, rows, columns, twice))
        start = grids[-1].end
    faces = [_faces(grid) for grid in grids]
    counts = [len(item) for item in faces]
    s, t = np.meshgrid(angles * ARC, levels)
    return Mesh(
        tuple(grids), torch.tensor(np.concatenate(faces), device=device),
        torch.tensor(np.repeat([grid.part for grid in grids], counts), device=device),
        torch.tensor(np.repeat([grid.seen_twice for grid in grids], counts), device=device),
        torch.tensor(s.reshape(1, -1), dtype=torch.float32, device=device),
        torch.tensor(t.reshape(1, -1), dtype=torch.float32, device=device))


def _grid_normals(points: torch.Tensor, closed: bool) -> torch.Tensor:
    """Unit normals of a sheet ``[n, rows, columns, 3]`` by central differences; ``closed`` joins its two sides."""
    if closed:
        wide = torch.cat([points[:, :, -2:-1], points, points[:, :, 1:2]], 2)
    else:
        wide = torch.cat([points[:, :, :1], points, points[:, :, -1:]], 2)
    tall = torch.cat([points[:, :1], points, points[:, -1:]], 1)
    right, down = wide[:, :, 2:] - wide[:, :, :-2], tall[:, 2:] - tall[:, :-2]
    normal = torch.linalg.cross(down, right)
    return normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def normals(mesh: Mesh, points: torch.Tensor) -> torch.Tensor:
    """Unit normals outwards of all vertices, ``[n, v, 3]``; neighbours belong to the same sheet."""
    n, found = len(points), []
    for grid in mesh.grids:
        sheet = points[:, grid.start:grid.end].view(n, grid.rows, grid.columns, 3)
        found.append(_grid_normals(sheet, grid.part in (HEAD, GLASSES, HAND)).view(n, -1, 3))
    normal = torch.cat(found, 1)
    crown = mesh.grids[0].columns
    normal[:, :crown] = torch.tensor([0.0, 1.0, 0.0], device=points.device)
    return normal
