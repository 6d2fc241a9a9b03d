"""Open-set identification: some people are enrolled, and a search must find them and no one for anybody else.

TPIR at a bound on FPIR, ISO/IEC 19795-1 (7.5) and Grother, Ngan, Hanaoka, NISTIR 8271 (sec. 3): FPIR(t) is the share of
searches of people who are not enrolled whose best score reaches t; TPIR(t) the share of searches of enrolled people
whose mate is the best candidate and reaches t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from negface.foundation.errors import InputError
from negface.foundation.noise import keyed_generator

from .bootstrap import interval, multiplicities
from .inputs import grouped, unit_rows

PROTOCOL = "identification/1"
FPIRS = (0.01, 0.1)
_ROWS = 1024


def search(probes: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best cosine float32 ``[n]`` of each probe in the gallery and its row int64 ``[n]``; unit rows, in blocks."""
    best = [torch.mm(torch.from_numpy(probes[at : at + _ROWS]), torch.from_numpy(gallery).T).max(dim=1)
            for at in range(0, len(probes), _ROWS)]
    return (np.concatenate([item.values.numpy() for item in best]),
            np.concatenate([item.indices.numpy() for item in best]))


def identification(embeddings: Any, labels: Any, *, enrolled_share: float = 0.5, enrolled_images: int = 1,
                   fpirs: Sequence[float] = FPIRS, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Enrol a share of the people and search for everyone's other images.

    Args:
        embeddings, labels: ``[n, d]``, ``[n]``.
        enrolled_share: of the people with more than ``enrolled_images`` images, drawn by ``seed``. The others, and
            people with fewer images, are searched for in vain.
        enrolled_images: images of an enrolled person; their mean, scaled to unit length, is the template.
        fpirs: bounds; TPIR is the highest at which FPIR does not exceed the bound. ``None`` where fewer than 1/FPIR
            searches are of people who are not enrolled.

    Returns:
        a JSON value: ``rank1``, ``tpir_at_fpir_0.01`` …, each with ``_low``, ``_high`` (95 %, bootstrap over the people
        searched for; the gallery is held fixed), thresholds, counts.

    Raises ``InputError`` if nobody, or everybody, would be enrolled.
    """
    people = grouped(embeddings, labels)
    if not 0 < enrolled_share < 1 or enrolled_images < 1:
        raise InputError(f"share {enrolled_share}, images {enrolled_images}", where="enrolment",
                         fix="enrol a share between 0 and 1 of the people, with one image or more")
    random = keyed_generator("open-set enrolment", seed)
    able = np.flatnonzero(people.sizes > enrolled_images)
    enrolled = np.sort(random.permutation(able)[: round(len(able) * enrolled_share)])
    if not len(enrolled) or len(enrolled) == people.n_identities:
        raise InputError(f"{len(enrolled)} of {people.n_identities} people would be enrolled ({len(able)} have more "
                         f"than {enrolled_images} images)", where="enrolment", fix="give more people or images")
    starts = np.concatenate([[0], people.sizes.cumsum()[:-1]])
    chosen = np.zeros(len(people.codes), bool)
    templates = []
    for person in enrolled:
        rows = starts[person] + random.permutation(people.sizes[person])[:enrolled_images]
        chosen[rows] = True
        templates.append(people.embeddings[rows].astype(np.float64).mean(axis=0))
    gallery = unit_rows(np.stack(templates), "gallery templates")
    codes = people.codes[~chosen]
    score, row = search(people.embeddings[~chosen], gallery)
    mated = np.isin(codes, enrolled)
    found = mated & (enrolled[row] == codes)
    return {"protocol": PROTOCOL, "n_enrolled": len(enrolled), "enrolled_images": enrolled_images,
            "enrolled_share": enrolled_share, "n_mated": int(mated.sum()), "n_nonmated": int((~mated).sum()),
            "bootstrap": bootstrap, "seed": seed, **_rates(score, mated, found, codes, fpirs, bootstrap, seed)}


def _rates(score: np.ndarray, mated: np.ndarray, found: np.ndarray, codes: np.ndarray, fpirs: Sequence[float],
           bootstrap: int, seed: int) -> dict[str, Any]:
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    people = np.unique(codes, return_inverse=True)[1]
    asked = [bound for bound in fpirs if (~mated).sum() * bound >= 1 - 1e-9]
    value, places = _weighted(np.ones(len(score)), order, ends, mated, found, asked)
    drawn = multiplicities(int(people.max()) + 1, bootstrap, seed)
    replicates = [_weighted(column[people], order, ends, mated, found, asked)[0] for column in drawn.T]
    out: dict[str, Any] = {}
    for at, name in enumerate(["rank1", *(f"tpir_at_fpir_{bound:g}" for bound in asked)]):
        low, high = interval(np.array([row[at] for row in replicates]))
        out |= {name: value[at], f"{name}_low": low, f"{name}_high": high}
        if at:
            out[f"threshold_at_fpir_{asked[at - 1]:g}"] = (
                None if places[at - 1] == 0 else float(score[order][ends[places[at - 1] - 1]]))
    for bound in (bound for bound in fpirs if bound not in asked):
        name = f"tpir_at_fpir_{bound:g}"
        out |= dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return out


def _weighted(weights: np.ndarray, order: np.ndarray, ends: np.ndarray, mated: np.ndarray, found: np.ndarray,
              fpirs: Sequence[float]) -> tuple[list[float], list[int]]:
    """Rank-1 rate and TPIRs, and the place (0: nothing accepted) of each threshold among the distinct scores."""
    sorted_ = weights[order]
    hits = np.append(0.0, np.cumsum(sorted_ * found[order])[ends])
    false = np.append(0.0, np.cumsum(sorted_ * ~mated[order])[ends])
    searches = float(weights[mated].sum())
    if not searches or not false[-1]:
        return [np.nan] * (1 + len(fpirs)), [0] * len(fpirs)
    places = [int(np.searchsorted(false, bound * false[-1] + 1e-6, side="right")) - 1 for bound in fpirs]
    return [float(hits[-1] / searches), *(float(hits[place] / searches) for place in places)], places
