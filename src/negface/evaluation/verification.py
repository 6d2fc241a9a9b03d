"""The 10-fold verification rule of insightface (LFW, CFP-FP, AgeDB, CALFW, CPLFW): accuracy and TAR at a FAR.

Distance is the squared L2 distance of unit embeddings (of picture plus mirror, summed raw); "same" is distance <
threshold. Ten contiguous folds; a fold's threshold is the first of 0, 0.01, ... 3.99 with the best accuracy on the
other nine. Second pass, step 0.001, for TAR at FAR 1e-3. Source: insightface ``eval/verification.py``, after Huang
et al. (UMass TR 07-49, LFW view 2). All thresholds are counted at once instead of one by one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from negface.datasets import PairImages
from negface.foundation.errors import InputError
from negface.perception import Recognizer

from .inputs import unit_rows
from .operating_points import Counts, equal_error
from .pair_embeddings import distinct_pictures, embed_pictures

FOLDS = 10
STEP, FINE_STEP, END = 0.01, 0.001, 4
FAR_TARGET = 1e-3
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Verification:
    """What the rule gives.

    ``accuracy`` is the mean over folds, ``accuracy_std`` its (population) spread, ``accuracy_low/high`` the Wilson
    interval (95 %) of the pooled decisions, which takes pairs as independent and so is the narrowest one can claim.
    ``tar``, ``tar_std``, ``far`` are means over folds at ``far_target``; NaN where a fold lacks genuine or impostor
    pairs. ``eer`` is over all pairs together. ``thresholds`` and ``accuracies`` are those of the folds. ``right`` bool
    ``[n]``: the decision on each pair at its fold's threshold, for intervals that know whose pairs they are
    (``pair_scores.share_replicates``); not in ``to_dict``.
    """

    accuracy: float
    accuracy_std: float
    accuracy_low: float
    accuracy_high: float
    tar: float
    tar_std: float
    far: float
    far_target: float
    eer: float
    n_pairs: int
    n_genuine: int
    accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]
    right: np.ndarray = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON value; ``None`` where not measured."""
        values = {key: value for key, value in asdict(self).items() if key != "right"}
        return {"protocol": "verification/1",
                **{key: None if isinstance(value, float) and math.isnan(value) else value
                   for key, value in values.items()}}


def verification(embeddings: np.ndarray, same: np.ndarray, *, folds: int = FOLDS,
                 far_target: float = FAR_TARGET) -> Verification:
    """Apply the rule to embeddings of pairs.

    Args:
        embeddings: ``[2n, d]``; pair i is rows 2i and 2i + 1. Scaled to unit length here, in float64.
        same: bool ``[n]``.
        folds: contiguous, unshuffled; the first ``n % folds`` have one pair more.

    Raises:
        InputError: counts that do not fit, fewer pairs than folds, NaN or zero rows, no genuine or no impostor pair.
    """
    same = np.asarray(same)
    if same.ndim != 1 or same.dtype != np.bool_:
        raise InputError(f"flags are {same.dtype} {list(same.shape)}, bool [n] was expected", where="same")
    if len(unit_rows(embeddings)) != 2 * len(same):
        raise InputError(f"{len(embeddings)} embeddings for {len(same)} pairs; {2 * len(same)} were expected",
                         where="embeddings")
    if folds < 2 or len(same) < folds:
        raise InputError(f"{len(same)} pairs cannot be cut into {folds} folds", where="folds")
    if same.all() or not same.any():
        raise InputError(f"all pairs are {'genuine' if same.all() else 'impostor'} pairs", where="same")
    unit = np.asarray(embeddings, np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    distances = np.square(unit[0::2] - unit[1::2]).sum(axis=1)
    fold = np.repeat(np.arange(folds), [len(same) // folds + (k < len(same) % folds) for k in range(folds)])
    accuracies, thresholds, right = _accuracies(distances, same, fold, folds)
    tar, far = _true_accepts(distances, same, fold, folds, far_target)
    low, high = wilson(int(right.sum()), len(same))
    return Verification(
        float(accuracies.mean()), float(accuracies.std()), low, high, float(tar.mean()), float(tar.std()),
        float(far.mean()), far_target, _eer(distances, same), len(same), int(same.sum()),
        tuple(accuracies.tolist()), tuple(thresholds.tolist()), right)


def accepted(distances: np.ndarray, fold: np.ndarray, folds: int, thresholds: np.ndarray) -> np.ndarray:
    """How many distances of each fold are below each threshold, int64 ``[folds, thresholds]``."""
    place = np.searchsorted(thresholds, distances, side="right")  # the first threshold above the distance
    counts = np.zeros((folds, len(thresholds) + 1), np.int64)
    np.add.at(counts, (fold, place), 1)
    return counts[:, :-1].cumsum(axis=1)


def _accuracies(distances: np.ndarray, same: np.ndarray, fold: np.ndarray,
                folds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy and threshold of each fold, and whether each pair is decided rightly at its fold's threshold."""
    thresholds = np.arange(0, END, STEP)
    sizes = np.bincount(fold, minlength=folds)
    impostors = np.bincount(fold[~same], minlength=folds)
    right = (accepted(distances[same], fold[same], folds, thresholds) + impostors[:, None]
             - accepted(distances[~same], fold[~same], folds, thresholds))
    best = (right.sum(axis=0) - right).argmax(axis=1)  # argmax: the first of equals
    held_out = right[np.arange(folds), best]
    return held_out / sizes, thresholds[best], (distances < thresholds[best][fold]) == same


def _true_accepts(distances: np.ndarray, same: np.ndarray, fold: np.ndarray, folds: int,
                  target: float) -> tuple[np.ndarray, np.ndarray]:
    """TAR and FAR of each fold at the threshold where the other folds' FAR, taken linear between steps, is ``target``.

    Where FAR stays at ``target`` over several steps the highest is taken, as the first-degree spline does; where it
    never reaches ``target`` the threshold is 0, so nothing is accepted.
    """
    thresholds = np.arange(0, END, FINE_STEP)
    genuine, impostors = (np.bincount(fold[mask], minlength=folds) for mask in (same, ~same))
    if (genuine == 0).any() or (impostors == 0).any():
        return np.full(folds, np.nan), np.full(folds, np.nan)
    accepts = accepted(distances[~same], fold[~same], folds, thresholds)
    rates = (accepts.sum(axis=0) - accepts) / (impostors.sum() - impostors)[:, None]
    tar, far = np.zeros(folds), np.zeros(folds)
    for k in range(folds):
        threshold = _crossing(rates[k], thresholds, target)
        below = (distances < threshold) & (fold == k)
        tar[k], far[k] = (below & same).sum() / genuine[k], (below & ~same).sum() / impostors[k]
    return tar, far


def _crossing(rates: np.ndarray, thresholds: np.ndarray, target: float) -> float:
    if rates[-1] < target:
        return 0.0
    after = int(np.searchsorted(rates, target, side="right"))
    if after == len(rates):
        return float(thresholds[-1])
    share = (target - rates[after - 1]) / (rates[after] - rates[after - 1])
    return float(thresholds[after - 1] + share * (thresholds[after] - thresholds[after - 1]))


def _eer(distances: np.ndarray, same: np.ndarray) -> float:
    scores = (1 - distances / 2).astype(np.float32)
    impostors = np.sort(scores[~same])
    counts = Counts(np.zeros(0), np.asarray([len(impostors)]), impostors, np.sort(scores[same]))
    return float(equal_error(counts)[0])


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    share, z2 = right / total, _NORMAL_95**2 / total
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2 * z2 / 4) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def verify(recognizer: Recognizer, pairs: PairImages, *, flip: bool = True, batch: int = 64, resize: bool = False,
           folds: int = FOLDS, far_target: float = FAR_TARGET) -> Verification:
    """Embed the pictures of pairs, each different one once and a batch at a time, and apply the rule.

    Args:
        pairs: of ``negface.datasets.open_pairs`` (a ``.bin`` or a list); pictures are aligned already.
        flip: add the raw embedding of the mirrored picture, as the rule does.
    """
    pictures = distinct_pictures(pairs.read, 2 * len(pairs), pairs.names)
    found = embed_pictures(recognizer, pictures, flip=flip, batch=batch, resize=resize)
    return verification(found, pairs.same, folds=folds, far_target=far_target)
