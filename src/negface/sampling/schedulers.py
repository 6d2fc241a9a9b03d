"""Noise schedulers: immutable descriptions (``DDPM``, ``DDIM``, ``DPMpp``, ``UniPC``) that start solvers.

DDPM and DDIM are ours, a few lines each, right by default; the released NegFaceDiff code's deviations are switches with
names. The multistep solvers are diffusers'. Random numbers are always given, never drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

from torch import Tensor

from negface.foundation import registry
from negface.foundation.errors import InputError, UnknownNameError

from .multistep import MultistepSolver
from .schedule import NoiseSchedule, spaced_timesteps

Noise = Callable[[int], Tensor]
VARIANCES = ("posterior", "beta")


class Solver(Protocol):
    """One run of a scheduler over a batch."""

    timesteps: tuple[int, ...]

    def step(self, index: int, predicted: Tensor, latents: Tensor, noise: Noise | None) -> Tensor:
        """From the latents at ``timesteps[index]`` and the predicted noise there to the next latents."""

    def restart(self) -> None:
        """Forget earlier predictions: the next step is of first order."""


class Scheduler(Protocol):
    """What every scheduler offers; all are frozen dataclasses."""

    name: ClassVar[str]
    stochastic: bool
    schedule: NoiseSchedule

    def timesteps(self, steps: int) -> tuple[int, ...]: ...

    def start(self, steps: int) -> Solver: ...

    def to_dict(self) -> dict[str, Any]: ...


class _Described:
    """What the frozen dataclasses below share: their timesteps and their description."""

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """Timesteps of a run, falling (see ``schedule.spaced_timesteps``)."""
        return spaced_timesteps(self.schedule.num_train_timesteps, steps, self.spacing)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description with every setting; ``from_dict`` gives an equal scheduler."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class DDPM(_Described):
    """Ancestral sampling (DDPM, arXiv 2006.11239, Algorithm 2), over all or some of the timesteps.

    Args:
        schedule: the noise schedule the denoiser was trained with.
        spacing: see ``spaced_timesteps``.
        variance: ``"posterior"`` (the smaller choice, which bears few steps) or ``"beta"`` (the larger, released).
        noiseless_steps: how many of the last steps take no noise: 1 is right; the released code leaves out 2.
        clip_x0: clamp the predicted clean latents to ``[-clip_x0, clip_x0]``; ``None`` (default) leaves them.
    """

    name: ClassVar[str] = "ddpm"
    stochastic: ClassVar[bool] = True

    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    spacing: str = "trailing"
    variance: str = "posterior"
    noiseless_steps: int = 1
    clip_x0: float | None = None

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise UnknownNameError("DDPM variance", self.variance, VARIANCES)
        if self.noiseless_steps < 1:
            raise InputError("the last step must be noiseless: noiseless_steps >= 1", where="DDPM")

    def start(self, steps: int) -> Solver:
        """A run of ``steps`` steps."""
        timesteps = self.timesteps(steps)
        return OneStepSolver(timesteps, partial(self._step, timesteps))

    def _step(self, timesteps: tuple[int, ...], index: int, predicted: Tensor, latents: Tensor,
              noise: Noise | None) -> Tensor:
        t, here, there = _ends(self.schedule, timesteps, index)
        predicted = _clipped(predicted, latents, here, self.clip_x0)
        alpha = here / there
        latents = (latents - predicted * ((1 - alpha) / math.sqrt(1 - here))) / math.sqrt(alpha)
        if index >= len(timesteps) - self.noiseless_steps:
            return latents
        variance = (1 - alpha) * (1.0 if self.variance == "beta" else (1 - there) / (1 - here))
        return latents + math.sqrt(variance) * _given(noise, t, latents, "ddpm")


@dataclass(frozen=True)
class DDIM(_Described):
    """DDIM (arXiv 2010.02502, eq. 12): first-order steps of the ODE for ``eta = 0``, noise for ``eta > 0``.

    Args:
        schedule: the noise schedule the denoiser was trained with.
        spacing: see ``spaced_timesteps``.
        eta: 0 deterministic, 1 as noisy as DDPM.
        shifted_alpha_bar: the released code's off-by-one: the *previous* signal power is read one timestep too early
            (abar[t - stride - 1]), so the state is slightly cleaner than the next t says.
        clip_x0: clamp the predicted clean latents; ``None`` (default) leaves them.
    """

    name: ClassVar[str] = "ddim"

    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    spacing: str = "trailing"
    eta: float = 0.0
    shifted_alpha_bar: bool = False
    clip_x0: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta must lie in 0..1, not {self.eta}", where="DDIM")

    @property
    def stochastic(self) -> bool:
        """Whether steps need noise."""
        return self.eta > 0

    def start(self, steps: int) -> Solver:
        """A run of ``steps`` steps."""
        return self.over(self.timesteps(steps))

    def over(self, timesteps: tuple[int, ...]) -> Solver:
        """A run over given timesteps, falling."""
        return OneStepSolver(timesteps, partial(self._step, timesteps))

    def _step(self, timesteps: tuple[int, ...], index: int, predicted: Tensor, latents: Tensor,
              noise: Noise | None) -> Tensor:
        t, here, there = _ends(self.schedule, timesteps, index, shift=int(self.shifted_alpha_bar))
        predicted = _clipped(predicted, latents, here, self.clip_x0)
        x0 = (latents - math.sqrt(1 - here) * predicted) / math.sqrt(here)
        variance = self.eta**2 * (1 - there) / (1 - here) * (1 - here / there)
        latents = math.sqrt(there) * x0 + math.sqrt(1 - there - variance) * predicted
        return latents + math.sqrt(variance) * _given(noise, t, latents, "ddim, eta > 0") if variance > 0 else latents


@dataclass(frozen=True)
class DPMpp(_Described):
    """DPM-Solver++ 2M (arXiv 2211.01095, Algorithm 2), diffusers' implementation; restarts at first order on demand."""

    name: ClassVar[str] = "dpmpp"
    stochastic: ClassVar[bool] = False

    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    spacing: str = "trailing"
    order: int = 2
    lower_order_final: bool = True

    def start(self, steps: int) -> Solver:
        """A run of ``steps`` steps; computes in float32."""
        from diffusers import DPMSolverMultistepScheduler

        inner = DPMSolverMultistepScheduler(**_betas(self.schedule), solver_order=self.order,
                                            lower_order_final=self.lower_order_final)
        return MultistepSolver(inner, self.schedule, self.timesteps(steps))


@dataclass(frozen=True)
class UniPC(_Described):
    """UniPC (arXiv 2302.04867, B(h) = e^h - 1), diffusers' implementation; restarts at first order on demand."""

    name: ClassVar[str] = "unipc"
    stochastic: ClassVar[bool] = False

    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    spacing: str = "trailing"
    order: int = 2
    lower_order_final: bool = True

    def start(self, steps: int) -> Solver:
        """A run of ``steps`` steps; computes in float32."""
        from diffusers import UniPCMultistepScheduler

        inner = UniPCMultistepScheduler(**_betas(self.schedule), solver_order=self.order,
                                        lower_order_final=self.lower_order_final)
        return MultistepSolver(inner, self.schedule, self.timesteps(steps))


@dataclass(frozen=True)
class OneStepSolver:
    """A run of a one-step method: nothing is remembered between steps."""

    timesteps: tuple[int, ...]
    step: Callable[[int, Tensor, Tensor, Noise | None], Tensor]

    def restart(self) -> None:
        """Nothing to forget."""


def released(name: str) -> Scheduler:
    """The schedulers of the released NegFaceDiff code, deviations included: ``"ddim"`` (off-by-one, spacing that misses
    T-1 and ends on a clean latent, step count) and ``"ddpm"`` (two noiseless steps, variance beta)."""
    presets = {"ddim": DDIM(spacing="released", shifted_alpha_bar=True),
               "ddpm": DDPM(variance="beta", noiseless_steps=2)}
    if name not in presets:
        raise UnknownNameError("released scheduler", name, presets)
    return presets[name]


def make(name: str, **options: Any) -> Scheduler:
    """A scheduler by name: ``ddpm``, ``ddim``, ``dpmpp``, ``unipc``; ``options`` are its fields."""
    return from_dict({"name": name, **options})


def from_dict(description: Mapping[str, Any]) -> Scheduler:
    """The scheduler of a ``to_dict`` description; settings left out take their defaults."""
    try:
        options = dict(description)
        schedule = options.get("schedule", {})
        if not isinstance(schedule, NoiseSchedule):
            options["schedule"] = NoiseSchedule(**schedule)
        name = options.pop("name", "?")
        return registry.load("scheduler", name)(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"unknown or missing setting ({error})", where="scheduler") from error


def _betas(schedule: NoiseSchedule) -> dict[str, Any]:
    return {**asdict(schedule), "beta_schedule": "linear"}


def _ends(schedule: NoiseSchedule, timesteps: tuple[int, ...], index: int, shift: int = 0) -> tuple[int, float, float]:
    """Timestep, signal power before the step, signal power after it."""
    following = timesteps[index + 1] - shift if index + 1 < len(timesteps) else -1
    return timesteps[index], schedule.alpha_bar(timesteps[index]), schedule.alpha_bar(following)


def _clipped(predicted: Tensor, latents: Tensor, alpha_bar: float, limit: float | None) -> Tensor:
    """The noise that agrees with the clamped clean latents."""
    if limit is None:
        return predicted
    signal, sigma = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    return (latents - signal * ((latents - sigma * predicted) / signal).clamp(-limit, limit)) / sigma


def _given(noise: Noise | None, t: int, latents: Tensor, who: str) -> Tensor:
    if noise is None:
        raise InputError("this scheduler is stochastic and no noise was given", where=f"scheduler {who}",
                         fix="pass noise=callable(timestep) -> tensor, or seeds")
    drawn = noise(t)
    if tuple(drawn.shape) != tuple(latents.shape):
        raise InputError(f"noise({t}) has shape {tuple(drawn.shape)}, the latents {tuple(latents.shape)}",
                         where="noise")
    return drawn.to(device=latents.device, dtype=latents.dtype)
