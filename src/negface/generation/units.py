"""Make one unit: every identity's pictures, exactly as many as asked, in batches of one fixed shape.

A picture that is rejected (no face, a filter) is replaced by the next image index of that person, so the result
depends on the plan only; a person who does not reach the count within the bound fails the unit, and nothing of it is
published.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from negface.curation import Rejection
from negface.foundation.errors import IncompleteError

from .finishing import Finish, Line, Made, Outcome
from .plan import Plan, Unit

Item = tuple[int, int]
Sampler = Callable[[Sequence[Item]], np.ndarray]


@dataclass(frozen=True)
class Harvest:
    """A unit's pictures, sorted by label and image index, and what was rejected on the way."""

    made: list[Made]
    rejected: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rejections(self) -> Counter[str]:
        """How many pictures each step rejected."""
        return Counter(row["step"] for row in self.rejected)


class Tally:
    """Who still lacks how many pictures: asks in rounds, first for all of them, then for what replaces the rejected."""

    def __init__(self, plan: Plan, unit: Unit):
        self.plan, self.unit = plan, unit
        self.made: dict[int, list[Made]] = {label: [] for label in unit.labels}
        self.lost: dict[int, list[tuple[int, Rejection]]] = {label: [] for label in unit.labels}

    def next_round(self) -> list[Item]:
        """The items of the next round, by label and image; none when all have their count.

        Raises:
            IncompleteError: a person who cannot reach the count within the bound; says what rejected the pictures.
        """
        items = []
        for label, done in self.made.items():
            missing, tried = self.plan.images - len(done), len(done) + len(self.lost[label])
            if missing > self.plan.tries * self.plan.images - tried:
                raise IncompleteError(self._short_of(label, tried), where=f"identity {self.plan.identities[label]!r}",
                                      fix="allow more tries, relax the filter or the detector, or leave it out")
            items += [(label, tried + i) for i in range(missing)]
        return items

    def _short_of(self, label: int, tried: int) -> str:
        why = Counter(fate.step for _, fate in self.lost[label])
        said = ", ".join(f"{count} by {step}" for step, count in why.items())
        return f"only {len(self.made[label])} of {tried} pictures pass ({said} rejected), {self.plan.images} wanted"

    def add(self, item: Item, outcome: Outcome) -> bool:
        """Take an outcome in; True if the picture stays."""
        label, image = item
        if isinstance(outcome, Rejection):
            self.lost[label].append((image, outcome))
            return False
        self.made[label].append(Made(label, image, outcome))
        return True

    def harvest(self) -> Harvest:
        """What there is."""
        rejected = [{"label": label, "identity": self.plan.identities[label], "unit": self.unit.number, "image": image,
                     "step": fate.step, "value": fate.value} for label in self.unit.labels
                    for image, fate in self.lost[label]]
        return Harvest([item for label in self.unit.labels for item in self.made[label]], rejected)


def make_unit(plan: Plan, unit: Unit, sample: Sampler, finish: Finish, line: Line,
              after_batch: Callable[[int], None] | None = None) -> Harvest:
    """All pictures of a unit.

    Args:
        sample: ``(label, image index)`` pairs to uint8 RGB ``[n, H, W, 3]``.
        finish: pictures and identities to bytes or rejections; runs on ``line`` while the next batch is sampled.
        after_batch: told how many pictures a batch added.

    Raises:
        IncompleteError: a person of whom too many pictures were rejected.
    """
    tally = Tally(plan, unit)
    while wanted := tally.next_round():
        coming: deque[tuple[list[Item], Future[list[Outcome]]]] = deque()
        for batch in batched(wanted, plan.batch):
            pictures = sample(batch)
            coming.append((batch, line.submit(finish, pictures, [plan.identities[label] for label, _ in batch])))
            while coming and coming[0][1].done():
                _settle(tally, *coming.popleft(), after_batch)
        while coming:
            _settle(tally, *coming.popleft(), after_batch)
    return tally.harvest()


def _settle(tally: Tally, batch: list[Item], outcomes: Future[list[Outcome]],
            after_batch: Callable[[int], None] | None) -> None:
    good = sum([tally.add(item, outcome) for item, outcome in zip(batch, outcomes.result(), strict=True)])
    if after_batch is not None:
        after_batch(good)


def batches_of(plan: Plan, unit: Unit, kept: Container[Item]) -> Iterator[list[Item]]:
    """The batches a unit was made in, given which of its pictures were kept."""
    tally = Tally(plan, unit)
    while wanted := tally.next_round():
        for batch in batched(wanted, plan.batch):
            yield batch
            for item in batch:
                tally.add(item, b"" if item in kept else Rejection("before", None))


def batched(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Runs of at most ``size`` items."""
    return (list(items[start:start + size]) for start in range(0, len(items), size))
