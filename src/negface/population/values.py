"""Small arithmetic shared by the renderer: named columns, and bumps and ramps from which shapes are added up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TypeVar

import torch


class Columns:
    """A table whose columns are read by name: ``columns.jaw_width`` is float32 ``[n, 1]``."""

    def __init__(self, values: torch.Tensor, names: Sequence[str]):
        self._values, self._places = values, {name: place for place, name in enumerate(names)}

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            place = self._places[name]
        except KeyError:
            raise AttributeError(name) from None
        return self._values[:, place:place + 1]

    def row(self, index: int) -> SimpleNamespace:
        """One row as plain numbers, with which a single picture is painted several times faster."""
        return SimpleNamespace(**dict(zip(self._places, self._values[index].tolist())))


Number = TypeVar("Number", torch.Tensor, float)


def limit(x: Number, low: float = -math.inf, high: float = math.inf) -> Number:
    """A tensor or a plain number, clamped."""
    return x.clamp(low, high) if isinstance(x, torch.Tensor) else min(max(x, low), high)


def bump(x: torch.Tensor, y: torch.Tensor, width: torch.Tensor | float, height: torch.Tensor | float) -> torch.Tensor:
    """A Gaussian hill of height 1 with deviations ``width`` and ``height``."""
    across, up = torch.square(x * (math.sqrt(0.5) / width)), torch.square(y * (math.sqrt(0.5) / height))
    return torch.exp(-(across + up))


def ramp(x: Number) -> Number:
    """0 below 0, 1 above 1, smooth between (3 x^2 - 2 x^3)."""
    x = limit(x, 0, 1)
    return x * x * (3 - 2 * x)


def edge(x: torch.Tensor, width: torch.Tensor | float) -> torch.Tensor:
    """A step from 0 (x negative) to 1 (positive) that is ``width`` wide."""
    return ramp(x / width + 0.5)


def mix(a: torch.Tensor, b: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """``a`` where ``share`` is 0, ``b`` where it is 1."""
    return a + (b - a) * share


def table_at(x: torch.Tensor, table: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Linear interpolation in a table of equal steps from ``low`` to ``high``, clamped.

    Args:
        x: ``[n, k]`` or ``[1, k]``.
        table: ``[n, m]`` or ``[1, m]``.
    """
    steps = table.shape[1] - 1
    at = ((x - low) * (steps / (high - low))).clamp(0, steps - 1e-3)
    first = at.long()
    n = max(table.shape[0], x.shape[0])
    first, at, table = first.expand(n, -1), at.expand(n, -1), table.expand(n, -1)
    below, above = table.gather(1, first), table.gather(1, first + 1)
    return below + (above - below) * (at - first)


def smooth_table(values: torch.Tensor, finer: int) -> torch.Tensor:
    """A table ``[n, m]`` of equal steps with ``finer`` times as many, by a Catmull-Rom spline through the values."""
    padded = torch.cat([2 * values[:, :1] - values[:, 1:2], values, 2 * values[:, -1:] - values[:, -2:-1]], 1)
    p0, p1, p2, p3 = (padded[:, i:padded.shape[1] - 3 + i, None] for i in range(4))
    u = torch.arange(finer, device=values.device, dtype=values.dtype) / finer
    inner = p1 + 0.5 * u * (p2 - p0 + u * (2 * p0 - 5 * p1 + 4 * p2 - p3 + u * (3 * (p1 - p2) + p3 - p0)))
    return torch.cat([inner.flatten(1), values[:, -1:]], 1)
