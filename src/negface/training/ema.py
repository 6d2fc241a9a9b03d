"""Averages of weights that really average: power-function (EDM2, arXiv 2312.02696, sec. 3.1) and exponential.

The released IDiff-Face average never moves from the current weights (its decay stays 0); these are tested to.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from .recipe import EMA


def power_exponent(sigma_rel: float) -> float:
    """γ of the power-function average whose relative width is ``sigma_rel`` (EDM2, eq. 126), by bisection."""

    def width(gamma: float) -> float:
        return (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5)

    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if width(middle) > sigma_rel else (low, middle)
    return (low + high) / 2


def decay_at(recipe: EMA, step: int) -> float:
    """Decay of update number ``step`` (from 1)."""
    if recipe.kind == "power":
        return (1 - 1 / step) ** (power_exponent(recipe.sigma_rel) + 1)
    return min(recipe.decay, 1 - step**-0.75)


class WeightAverage:
    """The running average of a module's parameters in fp32; buffers are copied."""

    def __init__(self, module: nn.Module, recipe: EMA):
        self.recipe = recipe
        self.module = copy.deepcopy(module).float().eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """``average ← decay·average + (1 − decay)·weights`` after optimiser step ``step`` (from 1)."""
        decay = decay_at(self.recipe, step)
        averages, weights = list(self.module.parameters()), [p.detach().float() for p in module.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)
