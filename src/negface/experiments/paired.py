"""Paired comparison of two sets of the same people: the bootstrap draws the same people for both.

Replicates weigh a pair of images of people a and b by m_a m_b and a genuine pair of a by m_a (copies are never
impostors), as in ``negface.evaluation``; here from per-identity sums, so that a ratio of FDRs gets its own interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from negface.evaluation.bootstrap import fisher, interval, multiplicities
from negface.evaluation.inputs import gallery


@dataclass(frozen=True)
class Replicates:
    """``fdr`` and ``diversity`` (genuine std), float64 ``[1 + replicates]``: the estimate, then its replicates."""

    fdr: np.ndarray
    diversity: np.ndarray


def replicates(embeddings: np.ndarray, labels: np.ndarray, *, bootstrap: int, seed: int) -> Replicates:
    """FDR and genuine standard deviation of ``embeddings`` ``[n, d]`` with ``labels`` ``[n]`` and their replicates.

    Memory is quadratic in the number of people, not of images.
    """
    people = gallery(embeddings, labels)
    k = people.n_identities
    starts = np.concatenate([[0], people.sizes.cumsum()])
    exact = people.embeddings.astype(np.float64)
    sums = np.empty((2, k, k))
    for person in range(k):
        scores = exact[starts[person]:starts[person + 1]] @ exact.T
        for power in (1, 2):
            sums[power - 1, person] = np.add.reduceat((scores**power).sum(axis=0), starts[:-1])
    own = np.add.reduceat(np.stack([(exact**2).sum(axis=1), (exact**2).sum(axis=1) ** 2]), starts[:-1], axis=1)
    genuine = (sums[:, np.arange(k), np.arange(k)] - own) / 2
    sums[:, np.arange(k), np.arange(k)] = 0
    sizes = people.sizes.astype(np.float64)
    weights = np.concatenate([np.ones((k, 1)), multiplicities(k, bootstrap, seed)], axis=1)
    impostor = np.stack([np.einsum("ar,ab,br->r", weights, part, weights, optimize=True) for part in sums]) / 2
    n_impostor = ((sizes @ weights) ** 2 - (sizes**2) @ weights**2) / 2
    n_genuine = (sizes * (sizes - 1) / 2) @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        genuine_mean, genuine_square = (genuine @ weights) / n_genuine
        impostor_mean, impostor_square = impostor / n_impostor
        spread = np.sqrt(np.maximum(genuine_square - genuine_mean**2, 0))
        fdr, _ = fisher(genuine_mean, spread, impostor_mean,
                        np.sqrt(np.maximum(impostor_square - impostor_mean**2, 0)))
    return Replicates(fdr, spread)


def ratio(values: np.ndarray, baseline: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """``values / baseline`` of two arrays of replicates ``[1 + r]``: estimate and paired 95 % interval."""
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient = values / baseline
    estimate = float(quotient[0]) if np.isfinite(quotient[0]) else None
    return (estimate, *interval(quotient[1:])) if estimate is not None else (None, None, None)
