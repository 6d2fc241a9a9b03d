"""Bootstrap over identities: people are drawn with replacement, and copies of one person are never impostors.

With m_a copies of person a, a pair of images of a and b weighs m_a * m_b and a genuine pair of a weighs m_a: the
images a person has are kept, and a person drawn twice is not compared with itself. Replicates of EER and FNMR at a
bound on FMR come from FMR at a grid of thresholds, where its weighted counts are exact, log-linear in between.
Percentile intervals, 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from negface.foundation.noise import keyed_generator

LEVEL = 0.95
_GENUINE_STEPS = 2048
_CHUNK = 1 << 20


def multiplicities(n_identities: int, replicates: int, seed: int) -> np.ndarray:
    """How often each person is drawn: float64 ``[n_identities, replicates]``, every column sums to ``n_identities``."""
    random = keyed_generator("bootstrap over identities", seed, n_identities)
    even = np.full(n_identities, 1 / n_identities)
    return np.ascontiguousarray(random.multinomial(n_identities, even, size=replicates).T, dtype=np.float64)


def interval(replicates: np.ndarray) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of replicates; ``(None, None)`` without any. Undefined replicates (NaN) are left
    out."""
    values = np.asarray(replicates, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None, None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def mean_with_interval(values: np.ndarray, codes: np.ndarray, *, replicates: int,
                       seed: int) -> tuple[float, float | None, float | None]:
    """Mean of one value per image and its interval; ``codes`` (ints from 0) say whose image it is. NaN is left out."""
    measured = np.isfinite(values)
    if not measured.any():
        return float("nan"), None, None
    size = int(codes.max()) + 1
    sums = np.bincount(codes[measured], values[measured], minlength=size)
    counts = np.bincount(codes[measured], minlength=size)
    weights = multiplicities(size, replicates, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = interval((sums @ weights) / (counts @ weights))
    return float(sums.sum() / counts.sum()), low, high


@dataclass(frozen=True)
class Replicates:
    """Weighted counts of every replicate r.

    ``thresholds`` float64 ``[t]``; ``impostor_bins`` ``[t+1, r]``; ``impostor_moments`` ``[2, r]`` and
    ``genuine_moments`` ``[2, r]`` about ``centre``; ``n_impostor``, ``n_genuine`` ``[r]``; ``steps`` ``[q]`` genuine
    scores, ascending; ``missed`` ``[q+1, r]``, the share of genuine scores below each step, then 1.
    """

    thresholds: np.ndarray
    impostor_bins: np.ndarray
    impostor_moments: np.ndarray
    genuine_moments: np.ndarray
    n_impostor: np.ndarray
    n_genuine: np.ndarray
    steps: np.ndarray
    missed: np.ndarray
    centre: float

    def match_rate(self) -> np.ndarray:
        """FMR at each threshold, ``[t, r]``."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.impostor_bins[::-1].cumsum(axis=0)[::-1][1:] / self.n_impostor


def genuine_steps(scores: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps of the genuine distribution and, per replicate, the share of scores below each (``[q]``, ``[q+1, r]``).

    All scores are steps while they are few; of many, 2,048 evenly spread and 2,048 denser towards the low end are.
    """
    ascending, n = np.sort(scores), len(scores)
    if n <= 2 * _GENUINE_STEPS:
        rank = np.arange(n)
    else:
        dense = np.geomspace(1, n, _GENUINE_STEPS).astype(np.int64) - 1
        rank = np.unique(np.concatenate([np.linspace(0, n - 1, _GENUINE_STEPS).astype(np.int64), dense]))
    steps = np.unique(ascending[rank])
    del ascending
    table = np.zeros((weights.shape[0], len(steps) + 1), np.float32)
    for at in range(0, n, _CHUNK):
        part = slice(at, at + _CHUNK)
        np.add.at(table, (codes[part], np.searchsorted(steps, scores[part], side="right")), 1)
    below = table.T @ weights.astype(np.float32)
    # Cell k holds steps[k-1] <= s < steps[k]; below step k lie cells 0 .. k.
    below = below.astype(np.float64).cumsum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return steps, below / below[-1]


def centred_sums(scores: np.ndarray, codes: np.ndarray, centre: float, n_identities: int) -> np.ndarray:
    """Every person's sum of ``s - centre`` and of its square, float64 ``[2, n_identities]``."""
    sums = np.zeros((2, n_identities))
    for at in range(0, len(scores), _CHUNK):
        part, centred = codes[at : at + _CHUNK], scores[at : at + _CHUNK].astype(np.float64) - centre
        for total, value in zip(sums, (centred, centred**2), strict=True):
            total += np.bincount(part, value, minlength=n_identities)
    return sums


def moments(replicates: Replicates) -> dict[str, np.ndarray]:
    """Means, standard deviations (population), FDR and d' of every replicate."""
    out: dict[str, np.ndarray] = {}
    for name, sums, count in (("genuine", replicates.genuine_moments, replicates.n_genuine),
                              ("impostor", replicates.impostor_moments, replicates.n_impostor)):
        with np.errstate(invalid="ignore", divide="ignore"):
            mean, square = sums[0] / count, sums[1] / count
        out[f"{name}_mean"] = mean + replicates.centre
        out[f"{name}_std"] = np.sqrt(np.maximum(square - mean**2, 0))
    out["fdr"], out["dprime"] = fisher(out["genuine_mean"], out["genuine_std"], out["impostor_mean"],
                                       out["impostor_std"])
    return out


def fisher(genuine_mean: np.ndarray, genuine_std: np.ndarray, impostor_mean: np.ndarray,
           impostor_std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FDR = (mg - mi)^2 / (sg^2 + si^2) and d' = |mg - mi| / sqrt((sg^2 + si^2) / 2); FDR = d'^2 / 2."""
    with np.errstate(invalid="ignore", divide="ignore"):
        fdr = (genuine_mean - impostor_mean) ** 2 / (genuine_std**2 + impostor_std**2)
    return fdr, np.sqrt(2 * fdr)


def _between(rate: np.ndarray, thresholds: np.ndarray, at: np.ndarray) -> np.ndarray:
    """FMR ``[len(at), r]`` at other thresholds: log-linear where both ends are positive, linear where it falls to 0."""
    at = np.clip(at, thresholds[0], thresholds[-1])
    right = np.clip(np.searchsorted(thresholds, at, side="left"), 1, len(thresholds) - 1)
    share = ((at - thresholds[right - 1]) / (thresholds[right] - thresholds[right - 1]))[:, None]
    low, high = rate[right - 1], rate[right]
    with np.errstate(divide="ignore", invalid="ignore"):
        curved = np.exp(np.log(low) * (1 - share) + np.log(high) * share)
    return np.where((high > 0) & (low > 0), curved, low * (1 - share) + high * share)


def equal_error(replicates: Replicates) -> np.ndarray:
    """EER ``[r]``: where the falling FMR meets the staircase of FNMR."""
    rate = _between(replicates.match_rate(), replicates.thresholds, replicates.steps)
    # Between steps k-1 and k FNMR is missed[k]; FMR falls from rate[k-1] to rate[k].
    stair = np.vstack([rate, np.zeros(rate.shape[1])])
    first = (stair <= replicates.missed).argmax(axis=0)
    column = np.arange(rate.shape[1])
    before, after = np.maximum(first - 1, 0), replicates.missed[first, column]
    start, missed_before = stair[before, column], replicates.missed[before, column]
    jump = np.where(start - missed_before < after - start, start + missed_before, start + after) / 2
    eer = np.where(start >= after, after, jump)
    eer = np.where(first == 0, (stair[0] + replicates.missed[0]) / 2, eer)
    return np.where((replicates.n_impostor > 0) & np.isfinite(replicates.missed[0]), eer, np.nan)


def miss_at_fmr(replicates: Replicates, bound: float) -> np.ndarray:
    """Least FNMR ``[r]`` with FMR <= ``bound``."""
    rate = replicates.match_rate()
    with np.errstate(divide="ignore", invalid="ignore"):
        reached = rate <= bound
        right = np.where(reached.any(axis=0), reached.argmax(axis=0), len(rate) - 1)
        left, column = np.maximum(right - 1, 0), np.arange(rate.shape[1])
        high, low = rate[left, column], rate[right, column]
        curved = np.log(bound / high) / np.log(low / high)
        share = np.where(low > 0, curved, (high - bound) / (high - low))
    share = np.where(right == left, 0.0, np.clip(np.nan_to_num(share, nan=1.0), 0.0, 1.0))
    threshold = replicates.thresholds[left] + share * (replicates.thresholds[right] - replicates.thresholds[left])
    step = np.searchsorted(replicates.steps, threshold, side="left")
    return np.where(replicates.n_impostor > 0, replicates.missed[step, column], np.nan)
