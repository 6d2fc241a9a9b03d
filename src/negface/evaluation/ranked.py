"""Scores of which one asks how many lie below a threshold: few, sorted; or many, counted by cell of 2^-15 and looked at
closely only in the cells where somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .scoring import LATTICE

LAST_BIN = 2 * LATTICE + 1
# Bins as bool [LAST_BIN + 1] -> the distinct scores in them, float32, ascending, and how many pairs have each, int64.
Look = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def bin_of(scores: npt.ArrayLike) -> np.ndarray:
    """Bin of each score, int64: 0 below -1, ``LAST_BIN`` from 1 up, in between 1 + the cell of 2^-15 from -1."""
    # A product with a power of two is exact, and so is binning.
    cells = np.floor(np.clip(np.asarray(scores, np.float64), -2, 2) * LATTICE)
    return np.clip(cells, -LATTICE - 1, LATTICE).astype(np.int64) + LATTICE + 1


class SortedScores:
    """Scores float32 ``[n]`` that fit into memory."""

    def __init__(self, scores: np.ndarray):
        self._scores = np.sort(scores)

    def __len__(self) -> int:
        return len(self._scores)

    def below(self, thresholds: npt.ArrayLike) -> np.ndarray:
        """How many scores lie below each threshold, int64."""
        return np.searchsorted(self._scores, thresholds, side="left")

    def between(self, low: float, high: float) -> np.ndarray:
        """The distinct scores in [low, high), float32, ascending."""
        first, end = np.searchsorted(self._scores, [low, high], side="left")
        return np.unique(self._scores[first:end])

    def ranked(self, ranks: Sequence[int]) -> np.ndarray:
        """The scores of some ranks, from 0 the lowest."""
        return self._scores[np.asarray(ranks)]


class BinnedScores:
    """The same answers from counts: ``bins`` int64 ``[LAST_BIN + 1]``, ``look`` fetches the scores of some bins.

    A threshold on the lattice needs no look; what was looked at once stays.
    """

    def __init__(self, bins: np.ndarray, look: Look):
        self._bins, self._look = bins, look
        self._before = np.concatenate([[0], bins.cumsum()])
        self._seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return int(self._before[-1])

    def prepare(self, bins: Iterable[int]) -> None:
        """Look into some bins at once rather than one by one, later."""
        wanted = [bin_ for bin_ in bins if bin_ not in self._seen]
        asked = np.zeros(len(self._bins), bool)
        asked[wanted] = True
        asked &= self._bins > 0
        values, copies = self._look(asked) if asked.any() else (np.zeros(0, np.float32), np.zeros(0, np.int64))
        where = bin_of(values)
        for bin_ in wanted:
            part = slice(*np.searchsorted(where, [bin_, bin_ + 1]))
            self._seen[bin_] = values[part], np.concatenate([[0], copies[part].cumsum()])

    def below(self, thresholds: npt.ArrayLike) -> np.ndarray:
        """How many scores lie below each threshold, int64."""
        at = np.atleast_1d(np.asarray(thresholds, np.float64))
        bins = bin_of(at)
        counts = self._before[bins]
        inner = np.isfinite(at) & ((bins - 1 - LATTICE) / LATTICE != at)
        self.prepare(np.unique(bins[inner]).tolist())
        for bin_ in np.unique(bins[inner]).tolist():
            values, before = self._seen[bin_]
            chosen = inner & (bins == bin_)
            counts[chosen] += before[np.searchsorted(values, at[chosen], side="left")]
        return np.where(at == np.inf, len(self), counts).reshape(np.shape(thresholds))

    def between(self, low: float, high: float) -> np.ndarray:
        """The distinct scores in [low, high), float32, ascending."""
        bins = range(int(bin_of(low)), int(bin_of(np.nextafter(high, -np.inf))) + 1)
        self.prepare(bins)
        found = np.concatenate([self._seen[bin_][0] for bin_ in bins])
        return found[slice(*np.searchsorted(found, [low, high], side="left"))]

    def ranked(self, ranks: Sequence[int]) -> np.ndarray:
        """The scores of some ranks, from 0 the lowest."""
        bins = np.searchsorted(self._before, ranks, side="right") - 1
        self.prepare(np.unique(bins).tolist())
        found = [(self._seen[bin_], rank - self._before[bin_]) for bin_, rank in zip(bins.tolist(), ranks, strict=True)]
        return np.array([values[np.searchsorted(before, rank, side="right") - 1] for (values, before), rank in found])
