"""Where the operating points will lie, guessed from a sample of impostor pairs so that one pass can look there closely.

A guess decides the time, never the result: whoever uses it checks it against the exact counts.
"""

from __future__ import annotations

import math

import numpy as np

from . import operating_points as points
from .inputs import Gallery


def spans(sample: np.ndarray, genuine: np.ndarray) -> list[tuple[float, float]]:
    """Intervals of cosine that hold EER, FMR100 and FMR1000 unless the sample is off by six standard deviations.

    ``sample``: impostor scores, ``genuine``: all genuine scores, both ascending.
    """
    n = len(sample)
    rate = 1 - np.arange(n) / n
    gap = rate - np.searchsorted(genuine, sample, side="left") / len(genuine)
    crossing = rate[min(int((gap >= 0).sum()), n - 1)]
    slack = _slack(crossing, n)
    above, below = int((gap >= slack).sum()), int((gap > -slack).sum())
    found = [(float(sample[max(above - 1, 0)]), float(sample[below]) if below < n else 1.0)]
    for divisor in points.FMR_BOUNDS.values():
        slack = _slack(1 / divisor, n)
        low, high = (int(n * (1 - 1 / divisor - slack)), math.ceil(n * (1 - 1 / divisor + slack)))
        found.append((float(sample[max(low, 0)]), float(sample[high]) if high < n else 1.0))
    return found


def _slack(rate: float, n: int) -> float:
    return 6 * math.sqrt(rate * (1 - rate) / n) + 20 / n


def floor(people: Gallery, sample: np.ndarray, first: np.ndarray, second: np.ndarray, wanted: int = 20) -> float:
    """A score that ``wanted`` pairs of people exceed, or -2 if the sample (rows ``first``, ``second``) does not show
    so many."""
    best = np.argsort(-sample)[: 64 * wanted]
    pairs: set[tuple[int, int]] = set()
    for at in best:
        one, other = int(people.codes[first[at]]), int(people.codes[second[at]])
        pairs.add((min(one, other), max(one, other)))
        if len(pairs) == wanted:
            # A tile multiplies in another order than the sample did, so leave room for rounding.
            return float(sample[at]) - 1e-5
    return -2.0
