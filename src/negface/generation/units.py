"""Make one unit: every identity's pictures, exactly as many as asked, in batches of one fixed shape.

A picture in which no face is found is replaced by the next image index of that person, so the result depends on the
plan only; a person who does not reach the count within the bound fails the unit, and nothing of it is published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from negface.foundation.errors import IncompleteError

from .finishing import Finisher, Made
from .plan import Plan, Unit

Item = tuple[int, int]
Sampler = Callable[[Sequence[Item]], np.ndarray]


def make_unit(plan: Plan, unit: Unit, sample: Sampler, finish: Finisher,
              after_batch: Callable[[int], None] | None = None) -> list[Made]:
    """All pictures of a unit, sorted by label and image index.

    Args:
        sample: ``(label, image index)`` pairs to uint8 RGB ``[n, H, W, 3]``.
        finish: picture to bytes, or ``None`` where no face was found.
        after_batch: told how many pictures a batch added.

    Raises:
        IncompleteError: a person whose faces were not found often enough.
    """
    made: dict[int, list[Made]] = {label: [] for label in unit.labels}
    tried = dict.fromkeys(unit.labels, 0)
    while wanted := _next_items(plan, made, tried):
        for batch in batched(wanted, plan.batch):
            good = 0
            for (label, image), picture in zip(batch, sample(batch), strict=True):
                data = finish(picture)
                if data is not None:
                    made[label].append(Made(label, image, data))
                    good += 1
            if after_batch is not None:
                after_batch(good)
    return [item for label in unit.labels for item in made[label]]


def _next_items(plan: Plan, made: dict[int, list[Made]], tried: dict[int, int]) -> list[Item]:
    items = []
    for label, done in made.items():
        missing = plan.images - len(done)
        allowed = plan.tries * plan.images - tried[label]
        if missing > allowed:
            raise IncompleteError(f"only {len(done)} of {tried[label]} pictures have a face, {plan.images} wanted",
                                  where=f"identity {plan.identities[label]!r}",
                                  fix="use --align template, another detector threshold, or drop this identity")
        items += [(label, tried[label] + i) for i in range(missing)]
        tried[label] += missing
    return items


def batched(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Runs of at most ``size`` items."""
    return (list(items[start:start + size]) for start in range(0, len(items), size))
