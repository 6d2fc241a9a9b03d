"""Separability of sets whose pairs no longer fit anywhere: moments in closed form, thresholds from one blocked pass.

Same definitions and, to 1e-6, the same values as the pass with a bootstrap; intervals come from the jackknife over
identities. Memory does not grow with the pairs; docs/scoring.md tells how and how fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from . import jackknife, lookout
from . import operating_points as points
from .genuine import distinct_genuine, missed_genuine
from .inputs import Gallery
from .int8_scores import Int8Gallery, to_int8
from .moments import Moments, pair_moments
from .ranked import LAST_BIN, BinnedScores, bin_of
from .scoring import HISTOGRAM_BINS, LATTICE
from .tails import ERROR_UNITS, FINE, MapBlocks, TailPlan, Tails, TailWork, count_tails, over_threads

# Impostor pairs looked at beforehand: of so many one, at least, at most; of those, how many say where the marks are.
_SAMPLED_OF, _LEAST_SAMPLE, _SAMPLE, _MARKING = 256, 1 << 15, 1 << 22, 1 << 16
# Keeps what a unit of work hands back small; a wider guess is cut, and a second pass looks where it has to.
_WIDEST_SPAN = 512
# Of all pairs, the share that int8 may ask to have scored again around one operating point, and how many always may.
_RESCORED_SHARE, _RESCORED_PAIRS = 0.002, 1 << 24
_MARK_ALL_IMAGES = 1 << 16
_MARK_STRIDE = 8
_CURVE_POINTS = 256
_EDGES = np.arange(-LATTICE, LATTICE + 1) / LATTICE


@dataclass(frozen=True)
class AtScale:
    """What a blocked pass finds; fields as in ``Separability``. ``score_error``: with int8, by how much scores and
    rates may be off (``None`` with float32). ``closest``: (cosine, image, image), the caller's indices;
    ``nearest``: cosine float32 ``[n]`` and row int64 ``[n]`` of the nearest training image, in the caller's order."""

    values: dict[str, float]
    thresholds: dict[str, float]
    intervals: dict[str, tuple[float | None, float | None]]
    histogram: np.ndarray
    genuine_histogram: np.ndarray
    det: dict[str, list]
    closest: list[tuple[float, int, int]]
    moments: Moments
    score_error: dict[str, float] | None
    nearest: tuple[np.ndarray, np.ndarray] | None = None


def measure_at_scale(people: Gallery, *, intervals: bool = True, seed: int = 0, threads: int = 1, int8: bool = False,
                     device: str = "cpu", block: int = 4096, map_blocks: MapBlocks | None = None,
                     training: Gallery | None = None) -> AtScale:
    """All pairs of ``people``, moments and operating points; constant memory besides the embeddings.

    ``map_blocks`` spreads the pass over whatever it likes (default: ``threads`` of this process); ``block``: images in
    a unit of work. Neither changes a number. ``training``: find its nearest row to every image in the same pass.
    """
    where: dict[str, Any] = {"threads": threads, "device": device}
    moments = pair_moments(people, without_each=intervals, **where)
    genuine = BinnedScores(moments.genuine_bins, partial(distinct_genuine, people, **where))
    quantised = to_int8(people, seed=seed, device=device) if int8 else None
    slack = _slack_cells(quantised)
    if quantised is not None:
        quantised = replace(quantised, slack=slack / LATTICE)
    work = TailWork(people, _plan(people, genuine, seed, slack, intervals), quantised, device, None, block, training,
                    to_int8(training, seed=seed, device=device) if int8 and training is not None else None)
    spread = map_blocks or over_threads(threads)
    tails = count_tails(work, spread)
    counts = _counts(tails, work.plan, genuine, slack)
    exact, last = replace(work, plan=replace(work.plan, marks=(), n_closest=0), training=None), tails
    looked: set[int] = set()
    while missing := _missing(counts, exact.plan, slack):
        # The sample looked in the wrong place; now the cells are known, within the slack of int8. None is left again,
        # so that this ends.
        looked |= {*missing, *_needed_cells(counts)}
        exact = replace(exact, plan=replace(exact.plan, **_spans_over(looked, counts, slack)))
        last = count_tails(exact, spread)
        counts = _counts(last, exact.plan, genuine, slack)
    values, thresholds = _estimates(counts, moments)
    found = _intervals(people, values, counts, tails, work.plan, moments, where) if intervals else {}
    closest = sorted(tails.closest.values(), key=lambda item: (-item[0], item[1], item[2]))[: work.plan.n_closest]
    return AtScale(values, thresholds, found, _histogram(counts.bins), _histogram(moments.genuine_bins), _det(counts),
                   [(score, int(people.order[i]), int(people.order[j])) for score, i, j in closest], moments,
                   _score_error(quantised, last, exact.plan, counts) if quantised is not None else None,
                   _nearest(people, tails) if training is not None else None)


def _nearest(people: Gallery, tails: Tails) -> tuple[np.ndarray, np.ndarray]:
    found = np.empty_like(tails.nearest), np.empty_like(tails.nearest_row)
    found[0][people.order], found[1][people.order] = tails.nearest, tails.nearest_row
    return found


def _slack_cells(quantised: Int8Gallery | None) -> int:
    return math.ceil(quantised.slack * LATTICE) if quantised is not None else 0


def _plan(people: Gallery, genuine: BinnedScores, seed: int, slack: int, intervals: bool) -> TailPlan:
    count = min(_SAMPLE, max(people.n_impostor // _SAMPLED_OF, _LEAST_SAMPLE))
    sample = lookout.sample_tiles(people, count, seed)
    if not len(sample.scores):
        sample = lookout.Sample(np.zeros(1, np.float32), *np.zeros((3, 1), np.int64))
    ascending = np.sort(sample.scores)
    spans, cells = [], bin_of(ascending)
    # To a cell of the lattice, which needs no look at the scores inside it.
    missed = genuine.below((cells - 1 - LATTICE) / LATTICE) / len(genuine)
    for low, high in lookout.spans(ascending, missed, sample.widen):
        start = max(math.floor(low * LATTICE), -LATTICE)
        spans.append((start, min(max(math.floor(high * LATTICE), start) + 1, start + _WIDEST_SPAN)))
    bins = np.bincount(cells, minlength=LAST_BIN + 1) * (people.n_impostor / len(ascending))
    stride = 1 if len(people.codes) <= _MARK_ALL_IMAGES else _MARK_STRIDE
    return TailPlan(**_apart(spans, bins, slack), mark_stride=stride,
                    floor=lookout.floor(people, sample.scores, sample.first, sample.second),
                    marks=_marks(ascending[:: -(-len(ascending) // _MARKING)], genuine) if intervals else ())


def _marks(sample: np.ndarray, genuine: BinnedScores) -> tuple[float, ...]:
    """The operating points as a sample of impostor scores, ascending, has them."""
    guess = points.Counts(_EDGES, np.bincount(bin_of(sample), minlength=LAST_BIN + 1), sample, genuine)
    genuine.prepare(points.needed_bins(guess))
    marks = [points.equal_error(guess)[1], *(points.miss_at_fmr(guess, divisor)[1]
                                             for divisor in points.FMR_BOUNDS.values())]
    return tuple(float(np.clip(mark, -1, 1)) for mark in marks)


def _apart(spans: list[tuple[int, int]], bins: np.ndarray, slack: int) -> dict[str, tuple]:
    """Spans joined where what int8 asks to be scored again for them would overlap, and how much of each to score."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted(spans):
        if joined and first <= joined[-1][1] + 2 * slack:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((first, end))
    every = [1] * len(joined)
    if slack:
        at = [slice(max(first - slack + LATTICE + 1, 0), end + slack + LATTICE + 1) for first, end in joined]
        most = max(_RESCORED_PAIRS, _RESCORED_SHARE * float(bins.sum()))
        every = [max(1, math.ceil(float(bins[part].sum()) / most)) for part in at]
    return {"spans": tuple(joined), "every": tuple(every)}


def _counts(tails: Tails, plan: TailPlan, genuine: BinnedScores, slack: int) -> points.Counts:
    """Counts with scores kept inside the spans; where int8 placed pairs, what float32 said of them instead."""
    bins, kept, copies = tails.bins, [], []
    for (first, end), fine, placed in zip(plan.spans, tails.fine, tails.placed, strict=True):
        fine = _rounded_share(fine, int(placed))
        start, stop = first + LATTICE + 1, end + LATTICE + 1
        low, high = max(start - slack, 0), min(stop + slack, len(bins))
        bins[low:start] = _rounded_share(bins[low:start], int(fine[0]))
        bins[stop:high] = _rounded_share(bins[stop:high], int(fine[-1]))
        bins[start:stop] = fine[1:-1].reshape(end - first, -1).sum(axis=1)
        at = np.flatnonzero(fine[1:-1])
        kept.append((first / LATTICE + at / FINE).astype(np.float32))
        copies.append(fine[1:-1][at])
    return points.Counts(_EDGES, bins, np.concatenate(kept), genuine, np.concatenate(copies))


def _rounded_share(counts: np.ndarray, total: int) -> np.ndarray:
    """Counts brought to another total in proportion, in integers."""
    before = int(counts.sum())
    if before == total or not len(counts):
        return counts
    if before == 0:
        return np.append(np.zeros(len(counts) - 1, np.int64), total)
    return np.diff(np.rint(counts.cumsum() * (total / before)).astype(np.int64), prepend=0)


def _missing(counts: points.Counts, plan: TailPlan, slack: int) -> list[int]:
    """Cells that hold an operating point and were not looked into."""
    return [cell for cell in _needed_cells(counts)
            if not any(first <= cell < end for first, end in plan.spans)
            and counts.bins[max(cell + LATTICE + 1 - slack, 0) : cell + LATTICE + 2 + slack].any()]


def _needed_cells(counts: points.Counts) -> list[int]:
    return [bin_ - 1 - LATTICE for bin_ in sorted(points.needed_bins(counts))]


def _spans_over(cells: set[int], counts: points.Counts, slack: int) -> dict[str, tuple]:
    # Beyond the cells below -1 and from 1 up there is nothing.
    around = [(max(cell - slack, -LATTICE - 1), min(cell + slack, LATTICE) + 1) for cell in cells]
    return _apart(around, counts.bins, slack)


def _estimates(counts: points.Counts, moments: Moments) -> tuple[dict[str, float], dict[str, float]]:
    values = {name: float(value) for name, value in moments.whole.measures().items()}
    thresholds: dict[str, float] = {}
    counts.genuine.prepare(points.needed_bins(counts))
    values["eer"], thresholds["eer"] = points.equal_error(counts)
    for name, divisor in points.FMR_BOUNDS.items():
        values[name], thresholds[name] = points.miss_at_fmr(counts, divisor)
    return {name: float(value) for name, value in values.items()}, thresholds


def _intervals(people: Gallery, values: dict[str, float], counts: points.Counts, tails: Tails, plan: TailPlan,
               moments: Moments, where: dict[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    without, slopes = moments.without.measures(), jackknife.slopes(counts, plan.marks)
    rates = jackknife.rates_without(tails.marked, people.sizes, missed_genuine(people, plan.marks, **where), plan.marks)
    without["eer"] = jackknife.eer_without(values["eer"], slopes[0], rates[0])
    for name, slope, rate in zip(points.FMR_BOUNDS, slopes[1:], rates[1:], strict=True):
        without[name] = jackknife.miss_without(values[name], slope, rate)
    return {name: jackknife.interval(name, value, without[name]) for name, value in values.items()}


def _histogram(bins: np.ndarray) -> np.ndarray:
    inner = bins[1:-1].reshape(HISTOGRAM_BINS, -1).sum(axis=1)
    # A cosine of exactly 1, or a rounding beyond either end, belongs to the bin at that end.
    inner[0] += bins[0]
    inner[-1] += bins[-1]
    return inner


def _det(counts: points.Counts) -> dict[str, list]:
    """FMR and FNMR at thresholds spread evenly in the logit of FMR, and at both ends."""
    rate = counts.at_least() / counts.n_impostor
    levels = 1 / (1 + np.exp(-np.linspace(4, math.log(2 / counts.n_impostor), _CURVE_POINTS)))
    at = np.unique(np.clip(np.concatenate([[0, len(rate) - 1], np.searchsorted(-rate, -levels)]), 0, len(rate) - 1))
    thresholds = counts.thresholds[at]
    return {"threshold": thresholds.tolist(), "fmr": rate[at].tolist(),
            "fnmr": (counts.genuine.below(thresholds) / len(counts.genuine)).tolist()}


def _score_error(quantised: Int8Gallery, tails: Tails, plan: TailPlan, counts: points.Counts) -> dict[str, float]:
    """How far int8 was off, and what that and scoring only some of the pairs again can do to a rate.

    A pair beyond the slack of six standard deviations is placed wrongly with a chance of at most 2 exp(-18), if the
    residuals' sum is sub-Gaussian; ``rescored_beyond``, of the pairs scored again those off by more, shows it, and
    where their share says more than that (with three standard deviations of such a count), it is the chance. The
    share of placed pairs that lies above a threshold is known to four standard errors of its sample.
    """
    number, squares, beyond, largest = tails.errors.tolist()
    missed = max(2 * math.exp(-18), (beyond + 3 * math.sqrt(beyond)) / max(number, 1))
    sampled = [4 * (placed / counts.n_impostor) * 0.5 / math.sqrt(max(placed / every, 1))
               for placed, every in zip(tails.placed.tolist(), plan.every, strict=True) if every > 1]
    return {"score_bound": quantised.bound, "slack": quantised.slack, "deviation": quantised.deviation,
            "rescored_pairs": number, "rescored_beyond": beyond, "rescored_largest": largest / ERROR_UNITS,
            "rescored_deviation": math.sqrt(squares / number) / ERROR_UNITS if number else 0.0,
            "rate_bound": missed + max(sampled, default=0.0)}
