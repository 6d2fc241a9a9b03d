"""Comparison of settings: at equal w, at equal diversity or adherence along w, and separability against usefulness.

All from replicates that draw the same people (sets) and the same folds (students) for every setting, so differences
are paired. Several seeds: a replicate draws seeds too. p-values are two-sided bootstrap ones, Holm-adjusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from negface.evaluation.bootstrap import interval
from negface.foundation.noise import keyed_generator

from .recipe import BASELINE

VARIED = " + "
"""Between a strategy and its variation, as in ``far + angular-0.6``."""
ENOUGH = 0.9
"""Share of replicates that must be defined for an interval to be given."""


@dataclass(frozen=True)
class Measured:
    """Replicates of one cell: ``values[metric]`` float64 ``[1 + r]``, the estimate first."""

    name: str
    weight: float
    seed: int
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval (``None``: too few replicates define it) and p-value against no difference."""

    value: float
    low: float | None
    high: float | None
    p: float | None = None

    @property
    def sure(self) -> bool:
        """Whether the p-value is below 5 %."""
        return self.p is not None and self.p < 0.05


def estimate(replicates: np.ndarray, null: float | None = None) -> Estimate:
    """Estimate, interval and p-value of ``[1 + r]`` replicates; ``null``: the value that means no difference."""
    drawn = replicates[1:][np.isfinite(replicates[1:])]
    if not len(drawn) or len(drawn) < ENOUGH * (len(replicates) - 1):
        return Estimate(float(replicates[0]), None, None)
    low, high = interval(drawn)
    p = None
    if null is not None:
        side = min((drawn <= null).sum(), (drawn >= null).sum())
        p = float(min(1.0, 2 * (side + 1) / (len(drawn) + 1)))
    return Estimate(float(replicates[0]), low, high, p)


def over_seeds(cells: Sequence[Measured], metric: str, seeds: Sequence[int]) -> np.ndarray | None:
    """Mean of a metric over the cells of ``seeds``, ``[1 + r]``; None if one lacks it.

    A replicate draws seeds with replacement, then a replicate of each; the draw depends on the seeds alone, so it is
    the same for all settings.
    """
    by_seed = {cell.seed: cell.values.get(metric) for cell in cells}
    if not seeds or any(by_seed.get(seed) is None for seed in seeds):
        return None
    stack = np.stack([by_seed[seed] for seed in seeds])
    count = stack.shape[1] - 1
    if not metric.startswith("student"):  # students of all seeds sit the same examination
        for row, seed in enumerate(seeds):  # sets of other seeds hold other people: their draws are made independent
            stack[row, 1:] = stack[row, 1:][keyed_generator("replicates of a seed", seed).permutation(count)]
    random = keyed_generator("seeds", *seeds)
    drawn = random.integers(0, len(seeds), (len(seeds), count))
    return np.concatenate([[stack[:, 0].mean()], np.take_along_axis(stack[:, 1:], drawn, axis=0).mean(axis=0)])


def common_seeds(*groups: Sequence[Measured]) -> list[int]:
    """Seeds that all groups have."""
    return sorted(set.intersection(*({cell.seed for cell in group} for group in groups))) if groups else []


def group(cells: Sequence[Measured], name: str, weight: float | None = None) -> list[Measured]:
    """The cells of one setting; ``weight`` None: of all weights."""
    return [cell for cell in cells if cell.name == name and weight in (None, cell.weight)]


Reference = Callable[[str, float], "tuple[str, float] | None"]
"""Whom a setting (name, weight) is held against; None: nobody."""


def to_baseline(name: str, _: float) -> tuple[str, float] | None:
    """Every setting against plain sampling."""
    return None if name == BASELINE else (BASELINE, 0.0)


def to_unvaried(name: str, weight: float) -> tuple[str, float] | None:
    """A setting with variation against the same without."""
    plain, varied, _ = name.partition(VARIED)
    return (plain, weight) if varied else None


def against(cells: Sequence[Measured], metric: str, reference: Reference, *,
            ratio: bool) -> dict[tuple[str, float], Estimate]:
    """Every setting's metric over (``ratio``) or minus its reference's, over the seeds both have; Holm-adjusted."""
    have = [cell for cell in cells if metric in cell.values]
    found: dict[tuple[str, float], Estimate] = {}
    for name, weight in dict.fromkeys((cell.name, cell.weight) for cell in have):
        other = reference(name, weight)
        groups = [group(have, *place) for place in ((name, weight), other)] if other is not None else []
        seeds = common_seeds(*groups)
        if not seeds:
            continue
        mine, plain = (over_seeds(each, metric, seeds) for each in groups)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[name, weight] = estimate(mine / plain if ratio else mine - plain, 1.0 if ratio else 0.0)
    return holm(found)


def holm(found: Mapping[tuple[str, float], Estimate]) -> dict[tuple[str, float], Estimate]:
    """The same with p-values adjusted for their number (Holm 1979)."""
    order = sorted((key for key, item in found.items() if item.p is not None), key=lambda key: found[key].p or 0)
    adjusted, worst = {}, 0.0
    for rank, key in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * (found[key].p or 0)))
        adjusted[key] = worst
    return {key: Estimate(item.value, item.low, item.high, adjusted.get(key)) for key, item in found.items()}


@dataclass(frozen=True)
class Curve:
    """A strategy along w, opened by the baseline (w = 0): ``x``, ``y`` float64 ``[points, 1 + r]``."""

    name: str
    weights: tuple[float, ...]
    x: np.ndarray
    y: np.ndarray


def curves(cells: Sequence[Measured], x: str, y: str) -> list[Curve]:
    """A curve for every strategy with several weights, opened by the baseline (of its variation, where there is one).

    Over the seeds that all points of all curves share, so that curves can be compared.
    """
    have = [cell for cell in cells if x in cell.values and y in cell.values]
    plain = [cell for cell in have if cell.name == BASELINE]
    names = [name for name in dict.fromkeys(cell.name for cell in have)
             if name.partition(VARIED)[0] != BASELINE and len({cell.weight for cell in group(have, name)}) > 1]
    groups = [group(have, name, weight) for name in names
              for weight in sorted({cell.weight for cell in group(have, name)})]
    seeds = common_seeds(plain, *groups) if plain and groups else []
    if not seeds:
        return []
    made = []
    for name in names:
        weights = sorted({cell.weight for cell in group(have, name)})
        start = group(have, f"{BASELINE}{VARIED}{name.partition(VARIED)[2]}") if VARIED in name else plain
        start = start if set(seeds) <= {cell.seed for cell in start} else plain
        parts = [start, *(group(have, name, weight) for weight in weights)]
        made.append(Curve(name, (0.0, *weights), *(
            np.stack([over_seeds(part, metric, seeds) for part in parts]) for metric in (x, y))))
    return made


def interpolate(curve: Curve, target: float) -> np.ndarray:
    """``y`` where the curve first reaches ``x = target``, linear along w between neighbours, ``[1 + r]``; NaN where it
    never does."""
    found = np.full(curve.x.shape[1], np.nan)
    for start in range(len(curve.weights) - 1):
        a, b = curve.x[start], curve.x[start + 1]
        inside = np.isnan(found) & (np.minimum(a, b) <= target) & (target <= np.maximum(a, b))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(a == b, 0.0, (target - a) / (b - a))
        found = np.where(inside, curve.y[start] + share * (curve.y[start + 1] - curve.y[start]), found)
    return found


def common_target(made: Sequence[Curve]) -> float | None:
    """The x that most curves can be compared at: half way from the baseline to the end of the shortest curve, in the
    direction most curves go. None without two curves in that direction."""
    if len(made) < 2:
        return None
    start = made[0].x[0, 0]
    reaches = [item.x[:, 0][np.abs(item.x[:, 0] - start).argmax()] - start for item in made]
    sign = np.sign(np.sum(np.sign(reaches))) or np.sign(reaches[0])
    along = [abs(reach) for reach in reaches if np.sign(reach) == sign]
    return float(start + sign * min(along) / 2) if len(along) > 1 and min(along) > 0 else None


def at_equal(made: Sequence[Curve], target: float, reference: str) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Every curve's ``y`` at ``x = target``, and its ratio to the reference curve's, paired and Holm-adjusted."""
    values = {item.name: interpolate(item, target) for item in made}
    each = {name: estimate(value) for name, value in values.items() if np.isfinite(value[0])}
    if reference not in each:
        return each, {}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {(name, 0.0): estimate(values[name] / values[reference], 1.0) for name in each if name != reference}
    return each, {name: item for (name, _), item in holm(ratios).items()}


def spearman(cells: Sequence[Measured], x: str, y: str) -> tuple[Estimate, int] | None:
    """Rank correlation of two metrics over cells and how many there are; None below four.

    A replicate draws cells with replacement and one replicate of each, so the interval holds both the choice of
    settings and the error of every measurement.
    """
    have = [cell for cell in cells if x in cell.values and y in cell.values]
    if len(have) < 4:
        return None
    xs, ys = (np.stack([cell.values[name] for cell in have]) for name in (x, y))
    count = xs.shape[1] - 1
    random = keyed_generator("spearman", x, y, len(have))
    drawn = random.integers(0, len(have), (len(have), count))
    values = [_rank_correlation(xs[:, 0], ys[:, 0])]
    for r in range(count):
        rows = drawn[:, r]
        values.append(_rank_correlation(xs[rows, 1 + r], ys[rows, 1 + r]))
    return estimate(np.asarray(values), 0.0), len(have)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    a, b = (_ranks(values) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    return (ends - (counts + 1) / 2)[inverse]
