"""The scheduler of a saved pipeline: its default one, and the noise schedule its denoiser was trained with."""

from __future__ import annotations

from typing import Any

from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config

from negface.foundation.errors import InputError
from negface.sampling import schedulers
from negface.sampling.distilled import Distilled
from negface.sampling.schedule import DEFAULT, DEFAULT_STEPS, NoiseSchedule


class SchedulerChoice(SchedulerMixin, ConfigMixin):
    """A pipeline's default scheduler; saved as ``scheduler/scheduler_config.json``.

    Args:
        name: ``ddpm``, ``ddim``, ``dpmpp``, ``unipc``, or ``distilled`` for a model that knows its timesteps only.
        options: further settings of that scheduler.
        num_train_timesteps, beta_start, beta_end: the noise schedule, which belongs to the denoiser, so it holds for
            every scheduler that is asked for by name.
    """

    @register_to_config
    def __init__(self, name: str = DEFAULT.scheduler, options: dict[str, Any] | None = None,
                 num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02):
        self.schedule = NoiseSchedule(num_train_timesteps, beta_start, beta_end)
        self.build()

    def build(self, wanted: str | dict[str, Any] | schedulers.Scheduler | None = None) -> schedulers.Scheduler:
        """The scheduler asked for: by name, by description (``to_dict``), as it is, or the default for ``None``.

        Raises:
            UnknownNameError, InputError: no such scheduler or setting.
        """
        if wanted is None or wanted == Distilled.name == self.config.name:
            wanted = {"name": self.config.name, **(self.config.options or {})}
        elif isinstance(wanted, str):
            wanted = {"name": wanted}
        if isinstance(wanted, dict):
            return schedulers.from_dict({"schedule": self.schedule, **wanted})
        if not isinstance(wanted, (schedulers.DDPM, schedulers.DDIM, schedulers.DPMpp, schedulers.UniPC, Distilled)):
            raise InputError(f"{wanted!r} is no scheduler", where="scheduler", fix="give a name, such as 'dpmpp'")
        return wanted

    def steps(self, wanted: str | dict[str, Any] | schedulers.Scheduler | None = None) -> int:
        """Steps of a run for which no number is asked: those a model was distilled to, 8 of ``unipc``, else 20."""
        chosen = self.build(wanted)
        if isinstance(chosen, Distilled):
            return len(chosen.visits)
        return DEFAULT.steps if chosen.name == DEFAULT.scheduler else DEFAULT_STEPS

    def reuse(self, wanted: str | dict[str, Any] | schedulers.Scheduler | None, steps: int | None) -> int:
        """For how many steps a run keeps the negative's direction where nothing is asked: as in the default preset."""
        preset = wanted is None and steps is None and self.config.name == DEFAULT.scheduler
        return DEFAULT.reuse if preset else 1
