"""Where the operating points will lie, guessed from a sample of impostor pairs so that one pass can look there closely.

A guess decides the time, never the result: whoever uses it checks it against the exact counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from negface.foundation.noise import keyed_generator

from . import operating_points as points
from .inputs import Gallery

_SIDE, _TILES = 32, 64
# From a cosine to by how much more than that of independent pairs the standard error of a rate there is.
Widen = Callable[[float], float]


@dataclass(frozen=True)
class Sample:
    """Scores float32 of pairs of different people, the two rows of each, and the small tile it was taken from."""

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray
    tile: np.ndarray

    def widen(self, threshold: float) -> float:
        """Pairs of a tile share rows: its square is the variance over tiles by that of independent pairs."""
        size, reaching = (np.bincount(self.tile[part], minlength=int(self.tile[-1]) + 1)
                          for part in (slice(None), self.scores >= threshold))
        rate = reaching.sum() / size.sum()
        independent = size.sum() * rate * (1 - rate)
        return math.sqrt(max(1.0, float(((reaching - rate * size) ** 2).sum()) / independent)) if independent else 1.0


def sample_tiles(people: Gallery, count: int, seed: int) -> Sample:
    """About ``count`` pairs of different people; empty if all rows drawn are of one.

    Random rows are multiplied 32 by 32: twenty times cheaper than pairs one by one, which wait for memory.
    """
    random, matrix = keyed_generator("impostor tiles", seed), torch.from_numpy(people.embeddings)
    rows = torch.from_numpy(random.integers(0, len(people.codes), (max(1, count // _SIDE**2), 2, _SIDE)))
    scores = [torch.bmm(matrix[part[:, 0]], matrix[part[:, 1]].transpose(1, 2)).view(-1) for part in rows.split(_TILES)]
    first, second = (side.reshape(-1).numpy() for side in torch.broadcast_tensors(rows[:, 0, :, None],
                                                                                  rows[:, 1, None, :]))
    different = np.flatnonzero(people.codes[first] != people.codes[second])
    return Sample(torch.cat(scores).numpy()[different], first[different], second[different], different // _SIDE**2)


def spans(sample: np.ndarray, missed: np.ndarray, widen: Widen = lambda threshold: 1.0) -> list[tuple[float, float]]:
    """Intervals of cosine that hold EER, FMR100 and FMR1000 unless the sample is off by six standard deviations.

    ``sample``: impostor scores, ascending; ``missed``: the share of genuine scores below each; ``widen``: of the
    sample's rates.
    """
    n = len(sample)
    rate = 1 - np.arange(n) / n
    gap = rate - missed
    crossing = min(int((gap >= 0).sum()), n - 1)
    slack = widen(float(sample[crossing])) * _slack(rate[crossing], n)
    above, below = int((gap >= slack).sum()), int((gap > -slack).sum())
    found = [(float(sample[max(above - 1, 0)]), float(sample[below]) if below < n else 1.0)]
    for divisor in points.FMR_BOUNDS.values():
        slack = widen(float(sample[n - 1 - n // divisor])) * _slack(1 / divisor, n)
        low, high = (int(n * (1 - 1 / divisor - slack)), math.ceil(n * (1 - 1 / divisor + slack)))
        found.append((float(sample[max(low, 0)]), float(sample[high]) if high < n else 1.0))
    return found


def _slack(rate: float, n: int) -> float:
    return 6 * math.sqrt(rate * (1 - rate) / n) + 20 / n


def floor(people: Gallery, scores: np.ndarray, first: np.ndarray, second: np.ndarray, wanted: int = 20) -> float:
    """A score that ``wanted`` pairs of people exceed, or -2 if the sample (rows ``first``, ``second``) does not show
    so many."""
    best = np.argpartition(scores, -min(64 * wanted, len(scores)))[-64 * wanted :]
    pairs: set[tuple[int, int]] = set()
    for at in best[np.argsort(-scores[best])]:
        one, other = int(people.codes[first[at]]), int(people.codes[second[at]])
        pairs.add((min(one, other), max(one, other)))
        if len(pairs) == wanted:
            # A tile multiplies in another order than the sample did, so leave room for rounding.
            return float(scores[at]) - 1e-5
    return -2.0
