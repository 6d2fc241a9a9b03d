"""Exact error rates from exact counts: EER, and the least FNMR at a bound on FMR.

A comparison is accepted if its score is at least the threshold t: FMR(t) is the share of impostor scores >= t, FNMR(t)
the share of genuine scores < t. EER is the mean of FMR and FNMR at the threshold where they differ least (the lowest
such threshold); FMR100 and FMR1000 are the least FNMR among thresholds with FMR <= 1 % and <= 0.1 %, never the
*nearest* FMR.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ranked import BinnedScores, SortedScores

FMR_BOUNDS = {"fmr100": 100, "fmr1000": 1000}
_INTEGER = 2**62


@dataclass(frozen=True)
class Counts:
    """Impostor scores by bin, those of some bins one by one, and the genuine scores.

    ``thresholds`` float64 ``[t]``, ascending: bin k holds ``thresholds[k-1] <= s < thresholds[k]``; ``bins`` int64
    ``[t+1]``; ``kept`` float32, ascending; ``genuine`` float32 scores, or what answers for them (``ranked``);
    ``copies`` int64, how many pairs have each kept score (one, if not given).
    """

    thresholds: np.ndarray
    bins: np.ndarray
    kept: np.ndarray
    genuine: SortedScores | BinnedScores
    copies: np.ndarray | None = None

    def __post_init__(self) -> None:
        if isinstance(self.genuine, np.ndarray):
            object.__setattr__(self, "genuine", SortedScores(self.genuine))

    @property
    def n_impostor(self) -> int:
        return int(self.bins.sum())

    def at_least(self) -> np.ndarray:
        """Impostor scores at or above each threshold, int64 ``[t]``."""
        return self.bins[::-1].cumsum()[::-1][1:]

    def limits(self, bin_: int) -> tuple[float, float]:
        """Where a bin starts and where it ends."""
        low = -np.inf if bin_ == 0 else float(self.thresholds[bin_ - 1])
        high = np.inf if bin_ == len(self.thresholds) else float(self.thresholds[bin_])
        return low, high

    def inside(self, bin_: int) -> tuple[np.ndarray, np.ndarray]:
        """The kept scores of a bin, ascending, and how many pairs lie below each and below the end, int64 ``[k+1]``.

        Complete only for a bin that was kept.
        """
        low, high = np.searchsorted(self.kept, np.array(self.limits(bin_)), side="left")
        if self.copies is None:
            return self.kept[low:high], np.arange(high - low + 1)
        return self.kept[low:high], np.concatenate([[0], self.copies[low:high].cumsum()])


def _gap(counts: Counts, matched: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """(FMR - FNMR) n_impostor n_genuine, in integers, so that ties are ties: numpy's, or Python's where the product
    outgrows 64 bits (1,000 people x 500 images do)."""
    whole = np.int64 if counts.n_impostor * len(counts.genuine) < _INTEGER else object
    return matched.astype(whole) * len(counts.genuine) - missed.astype(whole) * counts.n_impostor


def bin_of_eer(counts: Counts) -> int:
    """The bin in which FMR and FNMR cross."""
    return int((_gap(counts, counts.at_least(), counts.genuine.below(counts.thresholds)) >= 0).sum())


def bin_of_fmr(counts: Counts, divisor: int) -> int:
    """The bin of the highest impostor score that FMR <= 1/divisor still rejects."""
    rejected_above = counts.n_impostor // divisor
    return len(counts.bins) - 1 - int(np.searchsorted(counts.bins[::-1].cumsum(), rejected_above, side="right"))


def needed_bins(counts: Counts) -> set[int]:
    """Bins whose scores must be kept for all operating points to be exact."""
    return {bin_of_eer(counts), *(bin_of_fmr(counts, divisor) for divisor in FMR_BOUNDS.values())}


def equal_error(counts: Counts) -> tuple[float, float]:
    """EER and its threshold."""
    bin_ = bin_of_eer(counts)
    low, high = counts.limits(bin_)
    (inside, below), genuine = counts.inside(bin_), counts.genuine
    candidates = np.unique(np.concatenate([[low], inside, genuine.between(low, high), [high]]).astype(np.float64))
    above = int(counts.bins[bin_ + 1 :].sum())
    matched = above + below[-1] - below[np.searchsorted(inside, candidates, side="left")]
    missed = genuine.below(candidates)
    at = int(np.abs(_gap(counts, matched, missed)).argmin())
    return (matched[at] / counts.n_impostor + missed[at] / len(genuine)) / 2, float(candidates[at])


def miss_at_fmr(counts: Counts, divisor: int) -> tuple[float, float]:
    """Least FNMR with FMR <= 1/divisor, and its threshold (the lowest that the bound allows, as float32)."""
    bin_ = bin_of_fmr(counts, divisor)
    above = int(counts.bins[bin_ + 1 :].sum())
    inside, below = counts.inside(bin_)
    rank = below[-1] - 1 - (counts.n_impostor // divisor - above)
    highest_rejected = inside[np.searchsorted(below, rank, side="right") - 1]
    threshold = float(np.nextafter(highest_rejected, np.float32(np.inf)))
    return int(counts.genuine.below(threshold)) / len(counts.genuine), threshold
