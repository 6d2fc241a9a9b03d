"""The 1:1 template protocol of IJB-B and IJB-C: pictures to templates, templates to scores, scores to TAR at FAR.

A template is the sum over its media of the mean of a medium's pictures, scaled to unit length; a picture's raw
embedding (with its mirror's added: F) keeps its length (N1) and is weighed by the detector's score (D1). Source:
insightface ``eval_ijbc.py``; the sets are those of Whitelam et al. (2017) and Maze et al. (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from negface.datasets import IjbMeta
from negface.foundation.errors import InputError

from .inputs import unit_rows

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_BLOCK = 65_536


def template_embeddings(raw: np.ndarray, templates: np.ndarray, media: np.ndarray, scores: np.ndarray | None = None, *,
                        norm_score: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Unit float32 ``[t, d]`` embeddings of templates, and their ids, ascending.

    Args:
        raw: ``[n, d]`` raw embeddings of pictures, their mirrors' added where flips are used.
        templates, media: integers ``[n]``. A medium's pictures (frames of a video) count once together.
        scores: of the detector ``[n]`` (None = D0: all pictures weigh the same).
        norm_score: keep the lengths of ``raw`` (N1), or scale pictures to unit length first (N0).

    Raises ``InputError`` for lengths that do not fit, NaN or zero rows, or a template that sums to zero.
    """
    unit = unit_rows(raw, "picture embeddings")
    lengths = {"templates": len(templates), "media": len(media), "scores": len(raw) if scores is None else len(scores)}
    wrong = {name: length for name, length in lengths.items() if length != len(unit)}
    if wrong:
        raise InputError(f"{len(unit)} pictures, but {wrong}", where="picture embeddings")
    values = (np.asarray(raw) if norm_score else unit).astype(np.float64)
    if scores is not None:
        values = values * np.asarray(scores, np.float64)[:, None]
    groups, group, sizes = np.unique(np.stack([templates, media], axis=1), axis=0, return_inverse=True,
                                     return_counts=True)
    means = _sums(values, group.reshape(-1), len(groups)) / sizes[:, None]
    ids, template = np.unique(groups[:, 0], return_inverse=True)
    return unit_rows(_sums(means, template.reshape(-1), len(ids)), "template embeddings"), ids


def _sums(rows: np.ndarray, group: np.ndarray, n: int) -> np.ndarray:
    """Sums of the rows of each group, float64 ``[n, d]``; every group has a row."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(n))
    return np.add.reduceat(rows[order], starts, axis=0)


def template_scores(embeddings: np.ndarray, ids: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Cosines float32 ``[p]`` of pairs of template ids ``[p, 2]``, in blocks; ``InputError`` for an unknown id."""
    places = np.searchsorted(ids, pairs).clip(max=len(ids) - 1)
    unknown = np.asarray(pairs)[ids[places] != pairs]
    if len(unknown):
        raise InputError(f"template {unknown[0]} has no embedding", where="pairs")
    scores = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        first, second = places[start : start + _BLOCK].T
        scores[start : start + _BLOCK] = np.einsum("nd,nd->n", embeddings[first], embeddings[second])
    return scores


def tar_at_far(scores: np.ndarray, same: np.ndarray, fars: Sequence[float] = FARS) -> list[dict[str, Any]]:
    """For each FAR: ``tar``, the highest TAR whose FAR does not exceed it, and ``tar_nearest``, the published figure.

    The published script takes the point of the ROC whose FAR is *nearest*, which may exceed the target, among the
    corners of the curve (of equally near points that of the higher FAR). Both come with the FAR they were taken at.
    """
    same = np.asarray(same, bool)
    if len(scores) != len(same) or same.all() or not same.any():
        raise InputError(f"{len(scores)} scores with {int(same.sum())} genuine of {len(same)} flags cannot give a rate",
                         where="same")
    accepted, hits = _curve(np.asarray(scores), same)
    n_genuine, n_impostor = int(same.sum()), int(len(same) - same.sum())
    corner = np.ones(len(hits), bool)
    corner[2:-1] = (np.diff(accepted[1:], 2) != 0) | (np.diff(hits[1:], 2) != 0)
    corners = np.flatnonzero(corner)[::-1]
    rows = []
    for far in fars:
        bound = int(np.searchsorted(accepted / n_impostor, far, side="right")) - 1
        near = int(corners[np.abs(accepted[corners] / n_impostor - far).argmin()])
        rows.append({"far_target": far, "tar": hits[bound] / n_genuine, "far": accepted[bound] / n_impostor,
                     "tar_nearest": hits[near] / n_genuine, "far_nearest": accepted[near] / n_impostor})
    return rows


def _curve(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Impostors and genuine pairs accepted at each distinct score, from the highest, after (0, 0)."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(same[order])[ends]
    return np.append(0, ends + 1 - hits), np.append(0, hits)


def template_verification(raw: np.ndarray, meta: IjbMeta, *, norm_score: bool = True, detector_score: bool = True,
                          fars: Sequence[float] = FARS) -> dict[str, Any]:
    """The whole protocol on raw embeddings of the pictures of ``meta``, in its order; a JSON value."""
    embeddings, ids = template_embeddings(raw, meta.templates, meta.media, meta.scores if detector_score else None,
                                          norm_score=norm_score)
    scores = template_scores(embeddings, ids, meta.pairs)
    return {"protocol": "ijb-1:1/1", "n_images": len(meta.names), "n_templates": len(ids), "n_pairs": len(meta.same),
            "n_genuine": int(meta.same.sum()), "norm_score": norm_score, "detector_score": detector_score,
            "operating_points": tar_at_far(scores, meta.same, fars)}
