"""Intervals and p-values of comparisons over seeds: what people or folds leave open, and what another run would change.

Within seeds: a bootstrap (Efron & Tibshirani 1993). Between seeds: the t interval over k runs, se = s / sqrt(k) with
k - 1 degrees of freedom, where s is the spread of the seeds' influence on the statistic (infinitesimal jackknife,
Jaeckel 1972; for a difference of means the seeds' own deviations). The two are added as independent errors. Differences
of students take the spread that all settings show together (``pooled``), because three runs of one say little of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from negface.evaluation.bootstrap import LEVEL, interval

ENOUGH = 0.9
"""Share of replicates that must be defined for an interval to be given."""
STUDENT = "student"
"""Start of the names of metrics that a student's training decides."""
_NUDGE = 1e-4


@dataclass(frozen=True)
class Measured:
    """Replicates of one cell: ``values[metric]`` float64 ``[1 + r]``, the estimate first.

    ``stratum``: its contexts and scheduler; only cells of one stratum are compared.
    """

    name: str
    weight: float
    seed: int
    values: Mapping[str, np.ndarray]
    stratum: str = ""


@dataclass(frozen=True)
class Estimate:
    """A number over ``runs`` seeds with its 95 % interval (``None``: too few replicates define it) and p-value against
    no difference (``None``: not tested); ``limit``: p is as small as the replicates can tell."""

    value: float
    low: float | None
    high: float | None
    p: float | None = None
    limit: bool = False
    runs: int = 1

    @property
    def sure(self) -> bool:
        """Whether the p-value is below 5 %."""
        return self.p is not None and self.p < 0.05


@dataclass(frozen=True)
class Spread:
    """By how much runs of one setting differ, apart from what their seed does to all settings alike: the standard
    deviation and its degrees of freedom."""

    deviation: float
    freedom: int

    def of_difference(self, runs: int) -> float:
        """Standard error of the difference of two settings' means over ``runs`` common seeds."""
        return self.deviation * float(np.sqrt(2 / runs))


def pooled(values: np.ndarray) -> Spread | None:
    """The spread of runs from ``[m, k]`` settings by seeds; None for fewer than two of either.

    The residual of a randomised complete block design with seeds as blocks (Fisher 1935): what is left of the values
    after the means of settings and of seeds, with (m - 1)(k - 1) degrees of freedom. It takes runs of all settings to
    differ by as much; with two settings it is the paired t interval.
    """
    m, k = values.shape
    if min(m, k) < 2:
        return None
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    freedom = (m - 1) * (k - 1)
    return Spread(float(np.sqrt((left**2).sum() / freedom)), freedom)


def over_seeds(cells: Sequence[Measured], metric: str, seeds: Sequence[int]) -> np.ndarray | None:
    """Mean of a metric over the cells of ``seeds``, float64 ``[1 + k + r]``; None if one lacks it.

    First the mean; then, for each of the k seeds, the mean moved a little towards that seed's value, so that any
    function of the columns shows each seed's influence; then the bootstrap's replicates of the mean. A replicate draws
    the same folds, or places of people, for all seeds: the same examination, and in authentic contexts the same people.
    """
    by_seed = {cell.seed: cell.values.get(metric) for cell in cells}
    if not seeds or any(by_seed.get(seed) is None for seed in seeds):
        return None
    stack = np.stack([by_seed[seed] for seed in seeds])
    means = stack.mean(axis=0)
    return np.concatenate([means[:1], means[0] + _NUDGE * (stack[:, 0] - means[0]), means[1:]])


def tested(metric: str, seeds: Sequence[int], spread: Spread | None) -> bool:
    """Whether a difference of this metric over these seeds gets a p-value.

    One training run says nothing of what another would give, so a student's difference needs two seeds, or the spread
    of runs that other settings show; people of a set are drawn anew by the bootstrap, so one set is enough.
    """
    return len(seeds) > 1 or spread is not None or not metric.startswith(STUDENT)


def estimate(columns: np.ndarray, runs: int = 1, null: float | None = None, spread: Spread | None = None) -> Estimate:
    """Estimate, interval and p-value of a function of ``over_seeds`` columns ``[1 + runs + r]``.

    The distribution is that of w + se t: w the replicates, t Student's with ``runs`` - 1 degrees of freedom, se =
    sqrt(sum e_i^2 / (runs (runs - 1))) of the seeds' influences e_i. It is taken over all r exactly, not drawn. One run
    has no such part. p = 2 (r F(null) + 1) / (r + 1) on the smaller side (Davison & Hinkley 1997, eq. 4.11), never
    below 2 / (r + 1).

    Args:
        null: the value that means no difference; None: no test.
        spread: of runs, for a difference of two settings: se and degrees of freedom are its instead.
    """
    value, drawn = float(columns[0]), columns[1 + runs:]
    finite = drawn[np.isfinite(drawn)]
    influences = (columns[1:1 + runs] - value) / _NUDGE
    if not len(finite) or len(finite) < ENOUGH * len(drawn) or not np.isfinite(influences).all():
        return Estimate(value, None, None, runs=runs)
    error, freedom = float(np.sqrt((influences**2).sum() / (runs * (runs - 1)))) if runs > 1 else 0.0, runs - 1
    if spread is not None:
        error, freedom = spread.of_difference(runs), spread.freedom
    if error <= 1e-9 * abs(value):  # rounding of the nudges
        low, high = interval(finite)
        sides = [(finite <= null).sum(), (finite >= null).sum()] if null is not None else []
    else:
        low, high = (_quantile(finite, error, freedom, level) for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        below = _share_below(null, finite, error, freedom) if null is not None else 0.0
        sides = [len(finite) * below, len(finite) * (1 - below)] if null is not None else []
    if not sides:
        return Estimate(value, low, high, runs=runs)
    side = float(min(sides))
    return Estimate(value, low, high, min(1.0, 2 * (side + 1) / (len(finite) + 1)), side < 1, runs)


def _share_below(x: float, within: np.ndarray, error: float, freedom: int) -> float:
    """P(w + error t <= x)."""
    return float(student_t((x - within) / error, freedom).mean())


def _quantile(within: np.ndarray, error: float, freedom: int, level: float) -> float:
    """Where ``_share_below`` reaches ``level``, by bisection."""
    low, high = within.min() - 20 * error, within.max() + 20 * error  # |t| of 97.5 % is at most 12.71
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_below(middle, within, error, freedom) < level else (low, middle)
    return float((low + high) / 2)


def student_t(t: np.ndarray, freedom: int) -> np.ndarray:
    """P(T <= t) of Student's t with a whole number of degrees of freedom (Abramowitz & Stegun 1964, 26.7.3, 26.7.4)."""
    sine, square = t / np.sqrt(freedom + t**2), freedom / (freedom + t**2)
    odd = freedom % 2
    term = np.sqrt(square) if odd else np.ones_like(square)
    total = np.zeros_like(square)
    for power in range(2 + odd, freedom + 1, 2):
        total += term
        term = term * square * (power - 1) / power
    within = 2 / np.pi * (np.arctan(t / np.sqrt(freedom)) + sine * total) if odd else sine * total
    return (1 + within) / 2


def holm(found: Mapping[Any, Estimate]) -> dict[Any, Estimate]:
    """The same with p-values adjusted for their number (Holm 1979)."""
    order = sorted((key for key, item in found.items() if item.p is not None), key=lambda key: found[key].p or 0)
    adjusted, worst = {}, 0.0
    for rank, key in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * (found[key].p or 0)))
        adjusted[key] = worst
    return {key: replace(item, p=adjusted.get(key)) for key, item in found.items()}
