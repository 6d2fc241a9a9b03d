"""diffusers' multistep solvers behind the ``Solver`` interface: our timesteps, and a restart where guidance changes.

A multistep solver extrapolates from earlier predictions. Where a branch appears or disappears those belong to another
function of t, so the next step must be of first order, and UniPC must not correct the step before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .schedule import NoiseSchedule


class MultistepSolver:
    """One run of a ``DPMSolverMultistepScheduler`` or ``UniPCMultistepScheduler`` (float32) at given timesteps."""

    def __init__(self, inner: Any, schedule: NoiseSchedule, timesteps: tuple[int, ...]):
        self.inner, self.timesteps = inner, timesteps
        inner.set_timesteps(len(timesteps))
        # diffusers' own spacing makes a step too many for some counts (61, 103, ...), hence ours
        bars = schedule.alpha_bars[list(timesteps)]
        sigmas = np.append(np.sqrt((1 - bars) / bars), 0.0)
        inner.timesteps = torch.tensor(timesteps)
        inner.sigmas = torch.from_numpy(sigmas.astype(np.float32))
        inner.num_inference_steps = len(timesteps)
        inner.set_begin_index(0)

    def step(self, index: int, predicted: Tensor, latents: Tensor, noise: Callable | None = None) -> Tensor:
        """One step of the highest order that the remembered predictions allow."""
        return self.inner.step(predicted, self.timesteps[index], latents).prev_sample

    def restart(self) -> None:
        """Forget earlier predictions: the next step is of first order and corrects nothing."""
        self.inner.lower_order_nums = 0
        if hasattr(self.inner, "last_sample"):
            self.inner.last_sample = None
