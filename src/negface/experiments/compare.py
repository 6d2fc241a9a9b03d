"""Comparison of settings: at equal w, at equal diversity or adherence along w, and separability against usefulness.

All from replicates that draw the same people (sets) and the same folds (students) for every setting, so differences
are paired; how they become intervals and p-values stands in ``intervals``. p-values are Holm-adjusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from negface.foundation.noise import keyed_generator

from .intervals import STUDENT, Estimate, Measured, Spread, estimate, holm, over_seeds, pooled, tested
from .recipe import BASELINE

VARIED = " + "
"""Between a strategy and its variation, as in ``far + angular-0.6``."""
_BLOCK = 500


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
    spread = None if ratio else spread_of_runs(have, metric)
    others = {place: reference(*place) for place in _places(have)}
    found = {place: _held(have, metric, place, other, ratio=ratio, spread=spread)
             for place, other in others.items() if other is not None}
    return holm({place: item for place, item in found.items() if item is not None})


Place = tuple[str, float]
"""A setting: its name and weight."""


def each_other(cells: Sequence[Measured], metric: str, *, ratio: bool) -> dict[tuple[Place, Place], Estimate]:
    """The metric of every setting over (``ratio``) or minus every later one's, among those without variation that have
    most seeds, the baseline left out; Holm-adjusted for the number of pairs. Empty where most is one."""
    have = [cell for cell in cells if metric in cell.values and cell.name != BASELINE and VARIED not in cell.name]
    seeds = {place: len(group(have, *place)) for place in _places(have)}
    compared = [place for place, count in seeds.items() if count == max(seeds.values()) > 1]
    spread = None if ratio else spread_of_runs([cell for cell in cells if metric in cell.values], metric)
    found = {(mine, other): _held(have, metric, mine, other, ratio=ratio, spread=spread)
             for number, mine in enumerate(compared) for other in compared[number + 1:]}
    return holm({pair: item for pair, item in found.items() if item is not None})


def _places(cells: Sequence[Measured]) -> list[Place]:
    return list(dict.fromkeys((cell.name, cell.weight) for cell in cells))


def _held(cells: Sequence[Measured], metric: str, mine: Place, other: Place, *, ratio: bool,
          spread: Spread | None) -> Estimate | None:
    """One setting's metric over or minus another's, over the seeds both have; None without such a seed."""
    groups = [group(cells, *place) for place in (mine, other)]
    seeds = common_seeds(*groups)
    if not seeds:
        return None
    a, b = (over_seeds(each, metric, seeds) for each in groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = a / b if ratio else a - b
    return estimate(difference, len(seeds), float(ratio) if tested(metric, seeds, spread) else None, spread)


def spread_of_runs(cells: Sequence[Measured], metric: str) -> Spread | None:
    """By how much a student's training runs differ: over all settings that have the seeds several settings share.

    None for what no training decides, and where fewer than two settings share two seeds.
    """
    by_setting: dict[tuple[str, float], dict[int, float]] = {}
    for cell in cells if metric.startswith(STUDENT) else ():
        if metric not in cell.values:
            continue
        by_setting.setdefault((cell.name, cell.weight), {})[cell.seed] = float(cell.values[metric][0])
    several = [values for values in by_setting.values() if len(values) > 1]
    if not several:
        return None
    seeds = sorted(set.intersection(*map(set, several)))
    return pooled(np.array([[values[seed] for seed in seeds] for values in several]).reshape(len(several), -1))


@dataclass(frozen=True)
class Curve:
    """A strategy along w, opened by the baseline (w = 0), over ``seeds``: ``x``, ``y`` float64 ``[points, 1 + k + r]``
    as of ``over_seeds``. ``metric``: what y is."""

    name: str
    weights: tuple[float, ...]
    x: np.ndarray
    y: np.ndarray
    seeds: tuple[int, ...]
    metric: str


def curves(cells: Sequence[Measured], x: str, y: str) -> tuple[list[Curve], dict[str, str]]:
    """A curve for every strategy with several weights, opened by the baseline (of its variation, where there is one).

    Over the seeds that all points of all curves share, so that curves can be compared. Returns the curves, and why each
    other strategy has none.
    """
    have = [cell for cell in cells if x in cell.values and y in cell.values]
    plain = group(have, BASELINE)
    weights, left_out = _followed(cells, have, "no student" if y.startswith(STUDENT) else "not measured")
    groups = [group(have, name, weight) for name, steps in weights.items() for weight in steps]
    seeds = common_seeds(plain, *groups) if plain and groups else []
    if not seeds:
        return [], left_out | dict.fromkeys(weights, "no seed shared with the baseline and the others")
    made = []
    for name, steps in weights.items():
        start = group(have, f"{BASELINE}{VARIED}{name.partition(VARIED)[2]}") if VARIED in name else plain
        start = start if set(seeds) <= {cell.seed for cell in start} else plain
        parts = [start, *(group(have, name, weight) for weight in steps)]
        made.append(Curve(name, (0.0, *steps), *(
            np.stack([over_seeds(part, metric, seeds) for part in parts]) for metric in (x, y)), tuple(seeds), y))
    return made, left_out


def _followed(cells: Sequence[Measured], have: Sequence[Measured],
              lacking: str) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Weights of every strategy that can be followed along w, and why the others cannot."""
    weights, left_out = {}, {}
    for name in dict.fromkeys(cell.name for cell in cells):
        steps = sorted({cell.weight for cell in group(have, name)})
        if name.partition(VARIED)[0] == BASELINE:
            continue
        if len(steps) > 1:
            weights[name] = steps
        else:
            left_out[name] = f"measured at w = {steps[0]:g} alone" if steps else lacking
    return weights, left_out


def interpolate(curve: Curve, target: float) -> np.ndarray:
    """``y`` where the curve first reaches ``x = target``, linear along w between neighbours, ``[1 + k + r]``; NaN where
    it never does."""
    found = np.full(curve.x.shape[1], np.nan)
    for start in range(len(curve.weights) - 1):
        a, b = curve.x[start], curve.x[start + 1]
        inside = np.isnan(found) & (np.minimum(a, b) <= target) & (target <= np.maximum(a, b))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(a == b, 0.0, (target - a) / (b - a))
        found = np.where(inside, curve.y[start] + share * (curve.y[start + 1] - curve.y[start]), found)
    return found


def common_target(made: Sequence[Curve]) -> float | None:
    """The x at which curves are compared: half way from the baseline to the end of the middle curve by length, in the
    direction most curves go; a curve that hardly moves is left behind. None without two curves in that direction."""
    if len(made) < 2:
        return None
    start = made[0].x[0, 0]
    reaches = [item.x[:, 0][np.abs(item.x[:, 0] - start).argmax()] - start for item in made]
    sign = np.sign(np.sum(np.sign(reaches))) or np.sign(reaches[0])
    along = [abs(reach) for reach in reaches if np.sign(reach) == sign]
    return float(start + sign * np.median(along) / 2) if len(along) > 1 and min(along) > 0 else None


def at_equal(made: Sequence[Curve], target: float, reference: str,
             spread: Spread | None = None) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Every curve's ``y`` at ``x = target``, and its ratio to the reference curve's, paired and Holm-adjusted.

    With the ``spread`` of training runs it is the difference, and holds what other runs would change: that of two
    points, which is no less than that of two values between points.
    """
    values = {item.name: interpolate(item, target) for item in made}
    runs = {item.name: len(item.seeds) for item in made}
    each = {name: estimate(value, runs[name]) for name, value in values.items() if np.isfinite(value[0])}
    if reference not in each:
        return each, {}
    null = float(spread is None) if tested(made[0].metric, made[0].seeds, spread) else None
    theirs = values[reference]
    with np.errstate(divide="ignore", invalid="ignore"):
        return each, holm({name: estimate(values[name] / theirs if spread is None else values[name] - theirs,
                                          runs[name], null, spread) for name in each if name != reference})


@dataclass(frozen=True)
class Correlation:
    """A rank correlation and what it is over."""

    rho: Estimate
    n_settings: int
    n_cells: int


def spearman(cells: Sequence[Measured], x: str, y: str) -> Correlation | None:
    """Rank correlation of two metrics over settings within their strata; None below four settings.

    A setting stands for its seeds by their mean: its cells are no independent ones. Ranks are taken within each stratum
    (contexts and scheduler), and their covariances and variances summed over strata, so that strata which differ in
    level add nothing. A replicate draws settings with replacement within each stratum, each with all its seeds, and one
    replicate of each measurement.
    """
    strata: dict[str, list[np.ndarray]] = {}
    n_cells = 0
    have = [cell for cell in cells if x in cell.values and y in cell.values]
    for stratum, name, weight in dict.fromkeys((cell.stratum, cell.name, cell.weight) for cell in have):
        mine = [cell for cell in group(have, name, weight) if cell.stratum == stratum]
        seeds = common_seeds(mine)
        means = np.stack([over_seeds(mine, metric, seeds) for metric in (x, y)])
        strata.setdefault(stratum, []).append(np.delete(means, np.s_[1:1 + len(seeds)], axis=1))
        n_cells += len(mine)
    lone = {stratum for stratum, settings in strata.items() if len(settings) < 2}
    n_cells -= sum(cell.stratum in lone for cell in have)
    stacks = [np.stack(settings, axis=1) for stratum, settings in strata.items() if stratum not in lone]
    n_settings = sum(stack.shape[1] for stack in stacks)
    if n_settings < 4:
        return None
    parts = np.sum([_rank_moments(*_redrawn(stack, number)) for number, stack in enumerate(stacks)], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = parts[0] / np.sqrt(parts[1] * parts[2])
    return Correlation(estimate(values, null=0.0), n_settings, n_cells)


def _redrawn(stack: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y ``[1 + r, n]`` of ``[2, n, 1 + r]``: the settings, then draws of them, each from its own replicate."""
    _, n, columns = stack.shape
    rows = keyed_generator("spearman", number, n).integers(0, n, (columns, n))
    rows[0] = np.arange(n)
    x, y = (np.take_along_axis(values.T, rows, axis=1) for values in stack)
    return x, y


def _rank_moments(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Covariance and variances (sums) of the ranks of ``[m, n]`` values along n: ``[3, m]``."""
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (_ranks(x), _ranks(y)))
    return np.stack([(a * b).sum(axis=1), (a**2).sum(axis=1), (b**2).sum(axis=1)])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 along the second axis of ``[m, n]``; equal values share their mean rank."""
    found = np.empty(values.shape)
    for start in range(0, len(values), _BLOCK):
        block = values[start:start + _BLOCK]
        mine, others = block[:, :, None], block[:, None, :]
        found[start:start + _BLOCK] = (others < mine).sum(axis=2) + ((others == mine).sum(axis=2) - 1) / 2
    return found
