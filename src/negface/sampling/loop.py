"""The sampling loop: predictions x scheduler x guidance x starting noise -> latents. Pure: everything is given.

Source: NegFaceDiff (arXiv 2508.09661), whose rule is applied to the predicted noise at every step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from .guidance import POSITIVE, Guidance
from .schedulers import Noise, Scheduler

Predict = Callable[[Tensor, int, tuple[str, ...]], Mapping[str, Tensor]]


def trajectory(predict: Predict, scheduler: Scheduler, guidance: Guidance, latents: Tensor, steps: int,
               noise: Noise | None = None) -> Iterator[tuple[int, Tensor]]:
    """Sample step by step.

    Args:
        predict: ``predict(latents, t, branches)`` gives the predicted noise of each branch asked for, shaped like the
            latents. It is called once a step; a branch of weight 0, or one that the rule reuses, is not asked for.
        scheduler: a frozen scheduler of ``negface.sampling.schedulers``.
        guidance: the rule that mixes the predictions.
        latents: x_T, ``[n, ...]``, standard normal.
        steps: number of inference steps.
        noise: ``noise(t)`` gives standard normal numbers shaped like the latents, for the step that leaves timestep t;
            needed by stochastic schedulers only.

    Yields:
        ``(t, latents after the step that left t)``.
    """
    solver = scheduler.start(steps)
    before: tuple[str, ...] | None = None
    directions: dict[str, Tensor] = {}
    for index, (t, asked) in enumerate(zip(solver.timesteps, guidance.predicted(solver.timesteps), strict=True)):
        branches = guidance.branches(t)
        if before not in (None, branches):
            solver.restart()
        before = branches
        predictions = predict(latents, t, asked)
        if guidance.reuse > 1:
            predictions = _completed(predictions, branches, directions)
        latents = solver.step(index, guidance.mix(predictions, t), latents, noise)
        yield t, latents


def _completed(predictions: Mapping[str, Tensor], branches: tuple[str, ...],
               directions: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """Predictions of all branches: remembers the directions of those made, and fills in the others from them."""
    positive = predictions[POSITIVE]
    directions.update({name: positive - other for name, other in predictions.items() if name != POSITIVE})
    return {name: predictions[name] if name in predictions else positive - directions[name] for name in branches}


def sample(predict: Predict, scheduler: Scheduler, guidance: Guidance, latents: Tensor, steps: int,
           noise: Noise | None = None) -> Tensor:
    """The latents at the end of ``trajectory`` (same arguments)."""
    return deque(trajectory(predict, scheduler, guidance, latents, steps, noise), maxlen=1).pop()[1]
