"""How many identities fit on a sphere at a largest allowed cosine, and a bounded search for them.

Bounds: simplex and Rankin (1955) for cosines <= 0, cap volume above. Estimate: the k-th identity is accepted with
probability about ``(1 - p)^k``, p being the chance that two proposals are too similar.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..foundation.errors import IncompleteError, InputError
from ..foundation.progress import Progress
from .similarity import exact_cosines, rounding_band

BLOCK = 256
PROPOSALS_PER_IDENTITY = 50
LARGEST_STATED = 1e15

Proposer = Callable[[int, int], np.ndarray]
"""(start, count) -> float32 unit rows ``[count, d]``; row ``start + i`` must not depend on ``start`` or ``count``."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Capacity:
    """What to expect of a search for identities no two of which are more similar than ``max_cosine``.

    ``bound``: no set of unit vectors can be larger (None = beyond 1e15); ``collision``: chance that two proposals
    are too similar; ``expected``: how many about fit within ``proposals`` proposals.
    """

    max_cosine: float
    bound: int | None
    collision: float
    expected: int
    proposals: int

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def sentence(self) -> str:
        """For a person."""
        bound = "" if self.bound is None else f", never more than {self.bound}"
        return (f"at a largest cosine of {self.max_cosine:g} about {self.expected} identities fit within "
                f"{self.proposals} proposals{bound}")


def uniform_collision(dim: int, cosine: float) -> float:
    """Chance that two uniform directions in ``dim`` >= 2 dimensions have a cosine above ``cosine``.

    The angle's density is proportional to ``sin^(d-2)``; the midpoint rule over it is exact to about 1e-6.
    """
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if angle == 0.0:
        return 0.0
    step = angle / 200_000
    angles = step * (np.arange(200_000) + 0.5)
    # Relative to its largest value on the range, which keeps a tail of 1e-300 readable.
    log_density = (dim - 2) * np.log(np.maximum(np.sin(angles), 1e-300))
    peak = log_density.max()
    density = np.exp(log_density - peak)
    log_area = peak + math.log(density.sum() * step)
    log_norm = math.lgamma(dim / 2) - math.lgamma((dim - 1) / 2) - 0.5 * math.log(math.pi)
    return min(1.0, math.exp(log_area + log_norm))


def largest_code(dim: int, cosine: float) -> int | None:
    """Upper bound on the number of unit vectors in ``dim`` dimensions with pairwise cosines <= ``cosine``.

    Below 0: simplex, ``1 + 1/|s|``, at most ``dim + 1``. At 0: ``2 dim`` (Rankin). Above: caps of half the angle do
    not overlap, so their share of the sphere bounds the count. None where the bound exceeds 1e15.
    """
    if cosine < 0:
        return min(dim + 1, math.floor(1 + 1 / -cosine + 1e-9))
    if cosine == 0:
        return 2 * dim
    share = uniform_collision(dim, math.cos(math.acos(min(1.0, cosine)) / 2)) if dim > 1 else 0.5
    # Rounded up past the integral's error: a bound must not refuse what fits exactly (six vectors in a plane at 0.5).
    return None if share <= 1 / LARGEST_STATED else math.floor(1.00001 / share)


def capacity(dim: int, max_cosine: float, collision: float, proposals: int) -> Capacity:
    """The estimate for ``proposals`` proposals: from ``sum_k exp(p k) = proposals`` follows ``n = ln(1 + p B) / p``."""
    check_cosine(max_cosine)
    fits = proposals if collision * proposals < 1e-9 else math.log1p(collision * proposals) / collision
    bound = largest_code(dim, max_cosine)
    expected = max(1, math.floor(fits)) if bound is None else min(bound, max(1, math.floor(fits)))
    return Capacity(float(max_cosine), bound, float(collision), int(expected), int(proposals))


def pilot_collision(vectors: np.ndarray, max_cosine: float) -> float:
    """Share of the pairs of a pilot ``[k, d]`` that are too similar; if none is, the 95 % limit ``3 / pairs``."""
    first, second = np.triu_indices(len(vectors), 1)
    count = int(np.count_nonzero((vectors @ vectors.T)[first, second] > max_cosine))
    return max(count, 3) / max(len(first), 1)


def check_cosine(max_cosine: float) -> None:
    """``InputError`` unless -1 <= ``max_cosine`` < 1."""
    if not -1 <= max_cosine < 1:
        raise InputError(f"must lie in [-1, 1), not {max_cosine}", where="max_cosine")


def search(propose: Proposer, n: int, expected: Capacity) -> tuple[np.ndarray, np.ndarray]:
    """Take proposals in order, keeping each that is no more similar than allowed to all kept ones, until n are kept.

    The kept ones of a smaller n are the first of a larger n. Returns float32 ``[n, d]`` and the proposals' numbers
    int64 ``[n]``. Errors: ``InputError`` if n exceeds what is possible at all, ``IncompleteError`` if
    ``expected.proposals`` did not suffice.
    """
    if expected.bound is not None and n > expected.bound:
        raise InputError(f"{n} identities asked for, but no more than {expected.bound} unit vectors can have pairwise "
                         f"cosines of {expected.max_cosine:g} or less", where="max_cosine",
                         fix="ask for fewer, or raise it")
    (log.info if expected.expected >= n else log.warning)("%d identities asked for; %s", n, expected.sentence())
    kept, numbers = np.empty((n, propose(0, 1).shape[1]), dtype=np.float32), np.empty(n, dtype=np.int64)
    count = 0
    with Progress("separating identities", n, unit="identities") as bar:
        for start in range(0, expected.proposals, BLOCK):
            block = propose(start, min(BLOCK, expected.proposals - start))
            fresh = _separated(block, kept[:count], expected.max_cosine)[: n - count]
            kept[count:count + len(fresh)], numbers[count:count + len(fresh)] = block[fresh], start + fresh
            count += len(fresh)
            bar.advance(len(fresh), note=f"{start + len(block)} proposals")
            if count == n:
                return kept, numbers
    raise IncompleteError(f"{count} of {n} identities found within {expected.proposals} proposals at a largest cosine "
                          f"of {expected.max_cosine:g} (expected about {expected.expected})", where="max_cosine",
                          fix=f"raise it, ask for at most {count}, or allow more proposals")


def keep_separated(vectors: np.ndarray, max_cosine: float) -> np.ndarray:
    """Numbers int64 of all rows ``[k, d]`` that a greedy pass in order keeps; for when any count will do."""
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, len(vectors), BLOCK):
        fresh = _separated(vectors[start:start + BLOCK], vectors[kept], max_cosine)
        kept = np.concatenate([kept, start + fresh])
    return kept


def _separated(block: np.ndarray, kept: np.ndarray, max_cosine: float) -> np.ndarray:
    """Rows of a block that a greedy pass keeps, given those kept before."""
    free = ~_too_similar(block, kept, max_cosine).any(axis=1)
    within = _too_similar(block, block, max_cosine)
    taken: list[int] = []
    for row in np.flatnonzero(free):
        if not within[row, taken].any():
            taken.append(int(row))
    return np.array(taken, dtype=np.int64)


def _too_similar(left: np.ndarray, right: np.ndarray, max_cosine: float) -> np.ndarray:
    """bool ``[k, m]``: cosine above the limit; float64 decides where float32 could be wrong."""
    if not len(right):
        return np.zeros((len(left), 0), dtype=bool)
    cosines, band = left @ right.T, rounding_band(left, right)
    result = cosines > max_cosine
    for row, column in np.argwhere(np.abs(cosines - max_cosine) <= band):
        result[row, column] = exact_cosines(left[row], right[column:column + 1])[0] > max_cosine
    return result
