"""Screening: declared steps applied one after another, each to what those before it kept; every rejection is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..foundation import registry
from .filters import Filter, Loader, Pictures
from .steps import Step


class Rejection(NamedTuple):
    """Why a picture does not stay: the step, and the value it saw (``None`` where there is none)."""

    step: str
    value: float | None


class Screen:
    """Opened filters in the order they are applied."""

    def __init__(self, steps: Sequence[Step], loader: Loader):
        self.filters: list[tuple[str, Filter]] = [
            (step.name, registry.load("filter", step.name)(step, loader)) for step in steps]

    def start(self) -> Screening:
        """A screening that remembers nothing yet."""
        return Screening([(name, item.fresh()) for name, item in self.filters])


class Screening:
    """One run over pictures; ``duplicates`` compares with what this screening kept."""

    def __init__(self, filters: list[tuple[str, Filter]]):
        self._filters = filters

    def judge(self, images: Sequence[np.ndarray], identities: Sequence[str]) -> list[Rejection | None]:
        """For each uint8 RGB picture why it goes, or ``None`` if it stays. Values are rounded to four digits."""
        fates: list[Rejection | None] = [None] * len(images)
        rows = list(range(len(images)))
        whole = Pictures(images, identities)
        for name, item in self._filters:
            if not rows:
                break
            pictures = whole if len(rows) == len(images) else _part(whole, rows)
            values, keep = item.judge(pictures)
            for row, value, stays in zip(rows, values.tolist(), keep.tolist()):
                if not stays:
                    fates[row] = Rejection(name, round(value, 4))
            rows = [row for row in rows if fates[row] is None]
        return fates


def _part(whole: Pictures, rows: list[int]) -> Pictures:
    """Some rows; embeddings already made are not made again."""
    return Pictures([whole.images[row] for row in rows], [whole.identities[row] for row in rows],
                    {key: value[rows] for key, value in whole._seen.items()})


def counts(names: Iterable[str], rejected: Mapping[str, int], kept: int) -> list[dict[str, Any]]:
    """For each step in order how many pictures it saw and rejected."""
    table, left = [], kept + sum(rejected.values())
    for name in names:
        lost = int(rejected.get(name, 0))
        table.append({"step": name, "seen": left, "rejected": lost})
        left -= lost
    return table


def count_rejections(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many rows of a record of rejections each step has."""
    return Counter(row["step"] for row in rows)
