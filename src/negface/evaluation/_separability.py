"""How far the pairs of one person stand from the pairs of two: exact over all pairs, with intervals over identities.

Definitions as in Caldeira et al., NegFaceDiff, arXiv 2508.09661 (FDR, EER, FMR100, FMR1000; rates are fractions);
unlike there, all pairs count and the threshold of a bound on FMR satisfies it. docs/evaluation.md is the protocol.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from negface.foundation.devices import check_device
from negface.foundation.errors import InputError, UnknownNameError

from . import bootstrap as resampling
from . import lookout
from . import operating_points as points
from .at_scale import AtScale, measure_at_scale
from .genuine import sums_with_others
from .inputs import Gallery, gallery, unit_rows
from .judges import check_judge
from .ranked import SortedScores
from .scoring import HISTOGRAM_BINS, LATTICE, Impostors, Plan, genuine_scores, sample_impostors, scan
from .tails import MapBlocks

PROTOCOL = "separability/1"
MEASURES = ("fdr", "eer", "fmr100", "fmr1000", "dprime", "genuine_mean", "genuine_std", "impostor_mean", "impostor_std")
_SAMPLE = 1 << 19
_SMALL_SAMPLE = 1 << 15
_KEEP_ALL = 1 << 22
_FEW_IDENTITIES = 500
PRECISIONS = ("float32", "int8")
_LARGE_IMAGES, _LARGE_GENUINE = 60_000, 1 << 25
# Identities squared times replicates: beyond this the bootstrap takes minutes, and longer than the scores.
_LARGE_WEIGHING = 2e10


@dataclass(frozen=True)
class Separability:
    """Separability of a set of embeddings.

    Rates (``eer``, ``fmr100``, ``fmr1000``) are fractions; cosines lie in [-1, 1]; moments are of the population of
    pairs. ``intervals`` holds the 95 % bootstrap interval of each measure, ``(None, None)`` where none was asked for
    or defined. ``thresholds``: cosines, accepted if the score is at least that. ``histogram``: ``edges [257]``, counts
    ``genuine [256]`` and ``impostor [256]``. ``det``: ``threshold``, ``fmr``, ``fnmr``. ``closest_pairs``: image
    indices of the closest different people. ``outliers``: identities least like themselves and most like others.
    ``interval_method``: how the intervals were made; ``score_error``: with int8, how far scores and rates may be off;
    ``nearest``: cosine and row of the nearest training image, where the pass was asked to look.
    """

    fdr: float
    eer: float
    fmr100: float
    fmr1000: float
    dprime: float
    genuine_mean: float
    genuine_std: float
    impostor_mean: float
    impostor_std: float
    n_genuine: int
    n_impostor: int
    n_identities: int
    n_images: int
    intervals: dict[str, tuple[float | None, float | None]]
    thresholds: dict[str, float]
    histogram: dict[str, list]
    det: dict[str, list]
    closest_pairs: list[dict[str, Any]]
    outliers: dict[str, list]
    bootstrap: int
    seed: int
    judge: Any = None
    judge_is_conditioner: bool | None = None
    interval_method: str | None = None
    precision: str = "float32"
    score_error: dict[str, float] | None = None
    protocol: str = PROTOCOL
    nearest: tuple[np.ndarray, np.ndarray] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: measures with ``_low``/``_high`` beside them; ``None`` where a value is not defined."""
        out: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("intervals", "nearest"):
                continue
            out[field.name] = None if isinstance(value, float) and not math.isfinite(value) else value
            if field.name in MEASURES:
                out[f"{field.name}_low"], out[f"{field.name}_high"] = self.intervals[field.name]
        out["thresholds"] = {name: value if math.isfinite(value) else None for name, value in self.thresholds.items()}
        return out


def separability(embeddings: Any, labels: Any, *, bootstrap: int = 1000, seed: int = 0, block: int = 4096,
                 threads: int | None = None, judge: Any = None, conditioner: Any = None, force: bool = False,
                 precision: str = "float32", device: str = "cpu", at_scale: bool | None = None,
                 map_blocks: MapBlocks | None = None, training: Any = None) -> Separability:
    """Measure the separability of ``embeddings`` ``[n, d]`` (brought to unit length) with ``labels`` ``[n]``.

    Every genuine pair and every pair of different people is scored (cosine, float32) and counted once. ``bootstrap``
    replicates over identities give 95 % intervals (0: none). ``block`` (images in a unit of work) and ``threads``
    (default: torch's) change neither numbers nor, noticeably, memory. ``judge`` and ``conditioner`` are recognisers,
    declarations, provenance or hashes: the same one twice is refused unless ``force``.

    Large sets (``at_scale``; by default above 60,000 images or 2^25 genuine pairs, which the bootstrap needs one by
    one, 16 bytes each, or where it would take longer than the scores)
    are measured by ``measure_at_scale``: the same values, but intervals by the jackknife over identities. Only there:
    ``precision="int8"`` scores in int8 and again in float32 around the operating points, ``device`` (``cpu``, ``cuda``,
    ``cuda:N``) makes the products, ``map_blocks`` spreads the work over an executor; each of these asks for that way.
    ``training`` embeddings ``[m, d]``: where the set is measured that way, their nearest row to every image comes out
    of the same pass (``nearest``, for ``leakage``).

    Errors: ``InputError`` for NaN, zero rows, wrong lengths, fewer than two identities, no genuine pair, or a device
    that is not usable; ``MismatchError`` for a judge that is the conditioner; ``UnknownNameError`` for another
    precision.
    """
    check_device(device)
    if bootstrap < 0 or block < 1:
        raise InputError("bootstrap must be 0 or more and block 1 or more", where="separability")
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    same = check_judge(judge, conditioner, force=force)
    people = gallery(embeddings, labels)
    threads = threads or torch.get_num_threads()
    if at_scale is None:
        at_scale = _is_large(people, bootstrap) or precision != "float32" or device != "cpu" or map_blocks is not None
    common = {"n_genuine": people.n_genuine, "n_impostor": people.n_impostor, "n_identities": people.n_identities,
              "n_images": len(people.codes), "seed": seed, "judge": _judge_name(judge), "judge_is_conditioner": same}
    if at_scale:
        found = measure_at_scale(people, intervals=bootstrap > 0, seed=seed, threads=threads, block=block,
                                 int8=precision == "int8", device=device, map_blocks=map_blocks,
                                 training=_rows(training, people) if training is not None else None)
        return _from_scale(people, found, **common)
    scores, codes = genuine_scores(people)
    weights = resampling.multiplicities(people.n_identities, bootstrap, seed)
    genuine = SortedScores(scores)
    plan = _plan(people, genuine, weights, seed)
    impostors = scan(people, plan, block=block, threads=threads)
    counts = points.Counts(plan.thresholds, impostors.bins, impostors.kept, genuine)
    needed = sorted(points.needed_bins(counts))
    if not plan.keep[needed].all():
        # The sample looked in the wrong place; now the bins are known for certain.
        keep = np.zeros_like(plan.keep)
        keep[needed] = True
        plan = dataclasses.replace(plan, keep=keep, multiplicity=weights[:, :0])
        again = scan(people, plan, block=block, threads=threads)
        counts = points.Counts(plan.thresholds, again.bins, again.kept, genuine)
    sums = resampling.centred_sums(scores, codes, plan.centre, people.n_identities)
    values, thresholds = _estimates(counts, impostors, sums.sum(axis=1), plan.centre)
    replicates = _replicates(people, plan.thresholds, impostors, scores, codes, weights, plan.centre)
    own = sums[0] + plan.centre * people.sizes * (people.sizes - 1) / 2
    return Separability(
        **values, intervals=_intervals(replicates), thresholds=thresholds,
        histogram=_histogram(_binned(genuine), impostors.histogram), det=_det(counts),
        closest_pairs=_closest(people, impostors.closest), outliers=_outliers(people, own, sums_with_others(people)),
        bootstrap=bootstrap, interval_method="bootstrap over identities" if bootstrap else None, **common)


def _rows(training: Any, people: Gallery) -> Gallery:
    """Training images, everyone a person of their own: only how near they are is asked."""
    unit = unit_rows(training, "training embeddings")
    if unit.shape[1] != people.embeddings.shape[1]:
        raise InputError(f"embeddings have {people.embeddings.shape[1]} dimensions, training embeddings "
                         f"{unit.shape[1]}", where="leakage")
    each = np.arange(len(unit))
    return Gallery(unit, each.astype(np.int32), each, each, np.ones_like(each))


def _is_large(people: Gallery, bootstrap: int) -> bool:
    return (len(people.codes) > _LARGE_IMAGES or people.n_genuine > _LARGE_GENUINE
            or people.n_identities**2 * bootstrap > _LARGE_WEIGHING)


def _from_scale(people: Gallery, found: AtScale, **common: Any) -> Separability:
    moments = found.moments
    return Separability(
        **found.values, intervals=dict.fromkeys(MEASURES, (None, None)) | found.intervals,
        thresholds=found.thresholds, histogram=_histogram(found.genuine_histogram, found.histogram), det=found.det,
        closest_pairs=_closest(people, found.closest),
        outliers=_outliers(people, moments.genuine[0], moments.with_others), bootstrap=0,
        interval_method="jackknife over identities" if found.intervals else None,
        precision="int8" if found.score_error else "float32", score_error=found.score_error, nearest=found.nearest,
        **common)


def _plan(people: Gallery, genuine: SortedScores, weights: np.ndarray, seed: int) -> Plan:
    """Where to place thresholds and which scores to keep, from a sample of impostor pairs. A guess: it is checked."""
    few = people.n_impostor <= _KEEP_ALL
    sample, first, second = sample_impostors(people, _SMALL_SAMPLE if few else _SAMPLE, seed)
    if not len(sample):
        sample, first, second = np.zeros(1, np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64)
    ascending = np.sort(sample)
    spans = lookout.spans(ascending, genuine.below(ascending) / len(genuine))
    n_levels = 192 if people.n_identities <= _FEW_IDENTITIES else 64
    levels = 1 / (1 + np.exp(-np.linspace(3.9, math.log(2 / len(sample)), n_levels)))
    inner = [np.quantile(ascending, 1 - levels), np.linspace(ascending[-1], 1, 8)]
    edges = np.floor(np.concatenate([*inner, np.ravel(spans)]) * LATTICE).astype(np.int64)
    edges = np.unique(np.clip(np.concatenate([edges, edges[-np.size(spans):] + 1, [-LATTICE, LATTICE + 1]]),
                              -LATTICE, LATTICE + 1))
    if few:
        keep = np.ones(len(edges) + 1, bool)
    else:
        starts, ends = np.concatenate([[-LATTICE], edges]), np.concatenate([edges, [LATTICE + 1]])
        keep = np.zeros(len(edges) + 1, bool)
        for low, high in spans:
            keep |= (starts >= math.floor(low * LATTICE)) & (ends <= math.floor(high * LATTICE) + 1)
    return Plan(edges, keep, weights, float(ascending.mean()), lookout.floor(people, sample, first, second))


def _estimates(counts: points.Counts, impostors: Impostors, genuine: np.ndarray,
               centre: float) -> tuple[dict[str, float], dict[str, float]]:
    values, thresholds = {}, {}
    values["eer"], thresholds["eer"] = points.equal_error(counts)
    for name, divisor in points.FMR_BOUNDS.items():
        values[name], thresholds[name] = points.miss_at_fmr(counts, divisor)
    for kind, sums, count in (("genuine", genuine, len(counts.genuine)),
                              ("impostor", impostors.moments, counts.n_impostor)):
        mean, square = sums / count
        values[f"{kind}_mean"], values[f"{kind}_std"] = float(mean + centre), math.sqrt(max(square - mean**2, 0.0))
    fdr, dprime = resampling.fisher(*(np.float64(values[f"{kind}_{moment}"]) for kind in ("genuine", "impostor")
                                      for moment in ("mean", "std")))
    values["fdr"], values["dprime"] = float(fdr), float(dprime)
    return {name: float(value) for name, value in values.items()}, thresholds


def _replicates(people: Gallery, thresholds: np.ndarray, impostors: Impostors, scores: np.ndarray, codes: np.ndarray,
                weights: np.ndarray, centre: float) -> resampling.Replicates:
    sums = resampling.centred_sums(scores, codes, centre, people.n_identities)
    sizes = people.sizes.astype(np.float64)
    images = sizes @ weights
    steps, missed = resampling.genuine_steps(scores, codes, weights)
    return resampling.Replicates(
        thresholds, impostors.weighted_bins, impostors.weighted_moments, sums @ weights,
        (images**2 - sizes**2 @ weights**2) / 2, (sizes * (sizes - 1) / 2) @ weights, steps, missed, centre)


def _intervals(replicates: resampling.Replicates) -> dict[str, tuple[float | None, float | None]]:
    if not replicates.n_impostor.size:
        return dict.fromkeys(MEASURES, (None, None))
    values = resampling.moments(replicates)
    values["eer"] = resampling.equal_error(replicates)
    for name, divisor in points.FMR_BOUNDS.items():
        values[name] = resampling.miss_at_fmr(replicates, 1 / divisor)
    return {name: resampling.interval(values[name]) for name in MEASURES}


def _binned(scores: SortedScores) -> np.ndarray:
    below = scores.below(np.linspace(-1, 1, HISTOGRAM_BINS + 1)[1:-1])
    return np.diff(np.concatenate([[0], below, [len(scores)]]))


def _histogram(genuine: np.ndarray, impostor: np.ndarray) -> dict[str, list]:
    return {"edges": np.linspace(-1, 1, HISTOGRAM_BINS + 1).tolist(), "genuine": genuine.tolist(),
            "impostor": impostor.tolist()}


def _det(counts: points.Counts) -> dict[str, list]:
    missed = counts.genuine.below(counts.thresholds)
    return {"threshold": counts.thresholds.tolist(), "fmr": (counts.at_least() / counts.n_impostor).tolist(),
            "fnmr": (missed / len(counts.genuine)).tolist()}


def _closest(people: Gallery, closest: list[tuple[float, int, int]]) -> list[dict[str, Any]]:
    code_of = np.empty(len(people.codes), np.int64)
    code_of[people.order] = people.codes
    return [{"cosine": score, "a": a, "b": b, "a_identity": people.names[code_of[a]].item(),
             "b_identity": people.names[code_of[b]].item()} for score, a, b in closest]


def _outliers(people: Gallery, own: np.ndarray, with_others: np.ndarray, wanted: int = 20) -> dict[str, list]:
    """Identities with the lowest genuine mean and with the highest mean cosine to everyone else; ``own`` and
    ``with_others``: the sum of each person's genuine and impostor scores."""
    pairs = people.sizes * (people.sizes - 1) / 2
    others = people.sizes * (people.sizes.sum() - people.sizes)
    with np.errstate(invalid="ignore"):
        genuine = own / pairs
    impostor = with_others / others
    paired = np.flatnonzero(pairs)
    return {
        "lowest_genuine": [{"identity": people.names[at].item(), "genuine_mean": float(genuine[at])}
                           for at in paired[np.argsort(genuine[paired], kind="stable")[:wanted]]],
        "highest_impostor": [{"identity": people.names[at].item(), "impostor_mean": float(impostor[at])}
                             for at in np.argsort(-impostor, kind="stable")[:wanted]]}


def _judge_name(judge: Any) -> Any:
    if judge is None or isinstance(judge, str | dict):
        return judge
    declaration = getattr(judge, "declaration", judge)
    return {"name": getattr(declaration, "name", None), "hash": getattr(declaration, "sha256", None)}
