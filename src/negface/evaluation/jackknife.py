"""Intervals over identities for sets too large to draw again: what every measure is without each single person.

Delete-one jackknife (Efron and Stein 1981). Moments without a person are exact (``moments``). A rate at an operating
point moves with FMR and FNMR there, to first order: with F' and N' the slopes of FMR and FNMR at its threshold, EER by
(N' dF + |F'| dN) / (N' + |F'|), and FNMR at a bound on FMR by dN + (N' / |F'|) dF. Intervals are 95 %, normal on the
log scale for what is positive, on the logit scale for rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .operating_points import Counts

NORMAL_975 = 1.959963984540054
POSITIVE = ("fdr", "dprime", "genuine_std", "impostor_std")
RATES = ("eer", "fmr100", "fmr1000")
_ENOUGH = 1000


@dataclass(frozen=True)
class RatesWithout:
    """FMR and FNMR at one threshold, whole and without each person (``[identities]``)."""

    threshold: float
    fmr: float
    fnmr: float
    fmr_without: np.ndarray
    fnmr_without: np.ndarray


def deviation(without: np.ndarray) -> float:
    """Standard error from the values without each person; NaN if one of them is not defined."""
    m = len(without)
    return math.sqrt((m - 1) / m * float(np.square(without - without.mean()).sum()))


def interval(name: str, value: float, without: np.ndarray) -> tuple[float | None, float | None]:
    """The 95 % interval of a measure; ``(None, None)`` where it is not defined."""
    error = deviation(without) if np.isfinite(without).all() else math.nan
    if not math.isfinite(value) or not math.isfinite(error):
        return None, None
    reach = NORMAL_975 * error
    if name in RATES and 0 < value < 1:
        middle, reach = math.log(value / (1 - value)), reach / (value * (1 - value))
        return _logistic(middle - reach), _logistic(middle + reach)
    if name in POSITIVE and value > 0:
        return value * math.exp(-reach / value), value * math.exp(min(reach / value, 700.0))
    return value - reach, value + reach


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-max(min(value, 700.0), -700.0)))


def rates_without(marked: np.ndarray, sizes: np.ndarray, missed: np.ndarray,
                  marks: tuple[float, ...]) -> list[RatesWithout]:
    """FMR and FNMR at each mark without each person.

    ``marked`` int64 ``[k + 1, n]``: per image its impostor pairs and those at or above each mark; ``sizes`` images per
    person; ``missed`` int64 ``[k, identities]``: each person's genuine scores below each mark.
    """
    starts = np.concatenate([[0], sizes.cumsum()[:-1]])
    people = np.add.reduceat(marked, starts, axis=1).astype(np.float64)
    pairs, found = sizes * (sizes - 1) / 2, []
    with np.errstate(invalid="ignore", divide="ignore"):
        for mark, reaching, below in zip(marks, people[1:], missed.astype(np.float64), strict=True):
            # Every pair was counted at both of its images.
            matches, every = reaching.sum() / 2, people[0].sum() / 2
            found.append(RatesWithout(mark, matches / every, below.sum() / pairs.sum(),
                                      (matches - reaching) / (every - people[0]),
                                      (below.sum() - below) / (pairs.sum() - pairs)))
    return found


@dataclass(frozen=True)
class Slopes:
    """|F'| and N' at a threshold, per unit of cosine: how fast FMR and FNMR move with it."""

    impostor: float
    genuine: float


def slopes(counts: Counts, thresholds: Sequence[float]) -> list[Slopes]:
    """Shares of scores in windows around each threshold, by their width."""
    n = len(counts.genuine)
    reach, at = max(10, int(n ** (2 / 3) / 2)), counts.genuine.below(thresholds)
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach, n - 1)
    ends = counts.genuine.ranked(np.concatenate([low, high])).reshape(2, -1)
    widths = (ends[1] - ends[0]).astype(np.float64)
    genuine = np.divide((high - low) / n, widths, out=np.zeros(len(at)), where=widths > 0)
    return [Slopes(_impostor_slope(counts, threshold), float(own))
            for threshold, own in zip(thresholds, genuine, strict=True)]


def _impostor_slope(counts: Counts, threshold: float) -> float:
    matched, cell = counts.at_least(), int(np.searchsorted(counts.thresholds, threshold))
    reach = 16
    while True:
        first, last = max(cell - reach, 0), min(cell + reach, len(matched) - 1)
        inside = int(matched[first] - matched[last])
        if inside >= _ENOUGH or (first, last) == (0, len(matched) - 1):
            break
        reach *= 2
    return inside / counts.n_impostor / float(counts.thresholds[last] - counts.thresholds[first])


def eer_without(value: float, slope: Slopes, rates: RatesWithout) -> np.ndarray:
    """EER without each person, to first order."""
    if slope.impostor + slope.genuine == 0:
        return np.full(len(rates.fmr_without), value)
    moved = slope.genuine * (rates.fmr_without - rates.fmr) + slope.impostor * (rates.fnmr_without - rates.fnmr)
    return value + moved / (slope.impostor + slope.genuine)


def miss_without(value: float, slope: Slopes, rates: RatesWithout) -> np.ndarray:
    """FNMR at a bound on FMR without each person, to first order."""
    ratio = slope.genuine / slope.impostor if slope.impostor > 0 else 0.0
    return value + rates.fnmr_without - rates.fnmr + ratio * (rates.fmr_without - rates.fmr)
