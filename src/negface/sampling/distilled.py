"""The scheduler of a distilled model: first-order steps over just the timesteps it was distilled for.

Progressive distillation (arXiv 2202.00512, sec. 3) teaches a network where such a step must land; at other timesteps
it was taught nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import ClassVar

from negface.foundation.errors import InputError

from .schedule import NoiseSchedule
from .schedulers import DDIM, Solver


@dataclass(frozen=True)
class Distilled:
    """Deterministic DDIM steps (arXiv 2010.02502, eq. 12, η = 0) over given timesteps, the last onto the clean latent.

    Args:
        visits: the timesteps, falling.
        schedule: the noise schedule of the denoiser.
    """

    name: ClassVar[str] = "distilled"
    stochastic: ClassVar[bool] = False

    visits: tuple[int, ...] = ()
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)

    def __post_init__(self) -> None:
        visits = tuple(int(t) for t in self.visits)
        object.__setattr__(self, "visits", visits)
        inside = all(0 <= t < self.schedule.num_train_timesteps for t in visits)
        if not visits or not inside or sorted(set(visits), reverse=True) != list(visits):
            raise InputError(f"needs falling timesteps from {self.schedule.num_train_timesteps - 1} to 0, not "
                             f"{list(visits)}", where="Distilled(visits)")

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """The visits; ``InputError`` for another number of steps."""
        if steps != len(self.visits):
            raise InputError(f"the model was distilled to {len(self.visits)} steps, not {steps}",
                             where="num_inference_steps", fix=f"ask for {len(self.visits)}, or for none")
        return self.visits

    def start(self, steps: int) -> Solver:
        """A run of ``steps`` steps."""
        return DDIM(self.schedule).over(self.timesteps(steps))

    def to_dict(self) -> dict[str, object]:
        """JSON-ready description with every setting; ``from_dict`` gives an equal scheduler."""
        return {"name": self.name, "visits": list(self.visits), "schedule": asdict(self.schedule)}
