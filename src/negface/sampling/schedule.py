"""The noise schedule a denoiser was trained with, and which of its timesteps a short run visits.

Linear betas of DDPM (arXiv 2006.11239, sec. 4); spacings as in arXiv 2305.08891, table 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from negface.foundation.errors import InputError, UnknownNameError


class Preset(NamedTuple):
    """A scheduler, its steps, and for how many steps the negative's direction is kept."""

    scheduler: str
    steps: int
    reuse: int


# The cheapest setting of the frontier whose FDR, EER and diversity intervals all overlap those of DDPM-1000
# (results/frontier.csv, 11 predictions an image).
DEFAULT = Preset("unipc", 8, 3)
DEFAULT_STEPS = 20  # of the other schedulers
MOST_TIMESTEPS = 1_000_000


@dataclass(frozen=True)
class NoiseSchedule:
    """Linear variances ``beta_start .. beta_end``: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e, t = 0 .. T-1."""

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        steps = self.num_train_timesteps
        counted = isinstance(steps, int) and 1 <= steps <= MOST_TIMESTEPS
        if not (counted and 0 < self.beta_start <= self.beta_end < 1):
            raise InputError(f"needs 1 to {MOST_TIMESTEPS:,} timesteps and 0 < beta_start <= beta_end < 1",
                             where=repr(self))

    @property
    def alpha_bars(self) -> np.ndarray:
        """Cumulative signal power, float64 ``[T]``, read-only; ``alpha_bars[999]`` is 4.04e-5 for the defaults."""
        return _alpha_bars(self)

    def alpha_bar(self, t: int) -> float:
        """Signal power at timestep ``t``; 1 for ``t < 0``, the clean picture."""
        return 1.0 if t < 0 else float(self.alpha_bars[t])


@lru_cache(maxsize=16)
def _alpha_bars(schedule: NoiseSchedule) -> np.ndarray:
    betas = np.linspace(schedule.beta_start, schedule.beta_end, schedule.num_train_timesteps, dtype=np.float64)
    bars = np.exp(np.cumsum(np.log1p(-betas)))
    bars.flags.writeable = False
    return bars


def _trailing(total: int, steps: int) -> list[int]:
    return [round(total * (steps - i) / steps) - 1 for i in range(steps)]


def _linspace(total: int, steps: int) -> list[int]:
    return [round((total - 1) * (steps - i) / steps) for i in range(steps)]


def _leading(total: int, steps: int) -> list[int]:
    return [(steps - 1 - i) * (total // steps) for i in range(steps)]


def _released(total: int, steps: int) -> list[int]:
    return list(range(0, total, total // steps))[::-1]


SPACINGS = {"trailing": _trailing, "linspace": _linspace, "leading": _leading, "released": _released}


def spaced_timesteps(total: int, steps: int, spacing: str = "trailing") -> tuple[int, ...]:
    """The timesteps a run of ``steps`` visits, falling.

    Args:
        total: T, the number of training timesteps.
        steps: network evaluations asked for, 1..T (1..T-1 for ``"linspace"``).
        spacing: ``"trailing"`` starts at T-1 (default); ``"linspace"`` starts at T-1 and would end at 0 one step later;
            ``"leading"`` ends at 0 and never sees T-1; ``"released"`` is the released NegFaceDiff code: leading with
            stride ``T // steps``, which runs *more* steps than asked for where ``steps`` does not divide T.

    Raises:
        InputError: a number of steps the spacing cannot give. UnknownNameError: no such spacing.
    """
    if not isinstance(spacing, str) or spacing not in SPACINGS:
        raise UnknownNameError("timestep spacing", str(spacing), SPACINGS)
    most = total - 1 if spacing == "linspace" else total
    if isinstance(steps, bool) or steps != int(steps) or not 1 <= steps <= most:
        raise InputError(f"must be a whole number from 1 to {most}, not {steps}", where="num_inference_steps")
    return tuple(SPACINGS[spacing](total, int(steps)))
