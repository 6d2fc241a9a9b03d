"""Moments of all genuine and impostor scores without forming a pair, and what they are without each single person.

With unit rows x and M = sum x x^T, the scores of all ordered pairs add up to |sum x|^2 and their squares to ||M||_F^2;
what is left after the genuine pairs are taken off are the impostors: 2 n d^2 operations instead of n^2 d. Sums of
blocks of 4,096 rows in float32, everything beyond in float64. Blocks are fixed, so threads change nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from .bootstrap import fisher
from .inputs import Gallery
from .scoring import genuine_scores, one_thread_each, same_size_batches

_BLOCK = 4096


@dataclass(frozen=True)
class PairSums:
    """Sums over unordered pairs, of the whole (shape ``[]``) or without each person (``[identities]``), float64.

    ``n_genuine``, ``n_impostor``: pairs; the others: their scores and squared scores, added up.
    """

    n_genuine: np.ndarray
    genuine: np.ndarray
    genuine_squares: np.ndarray
    n_impostor: np.ndarray
    impostor: np.ndarray
    impostor_squares: np.ndarray

    def measures(self) -> dict[str, np.ndarray]:
        """Means, standard deviations (population), FDR and d', each in the shape of the sums."""
        out: dict[str, np.ndarray] = {}
        for name in ("genuine", "impostor"):
            with np.errstate(invalid="ignore", divide="ignore"):
                count = np.asarray(getattr(self, f"n_{name}"), np.float64)
                mean, square = getattr(self, name) / count, getattr(self, f"{name}_squares") / count
            out[f"{name}_mean"], out[f"{name}_std"] = mean, np.sqrt(np.maximum(square - mean**2, 0))
        out["fdr"], out["dprime"] = fisher(out["genuine_mean"], out["genuine_std"], out["impostor_mean"],
                                           out["impostor_std"])
        return out


@dataclass(frozen=True)
class Moments:
    """``whole``: sums of all pairs; ``without``: the sums without each person, or ``None`` if not asked for;
    ``identity_sums`` float64 ``[identities, d]``: the sum of each person's embeddings; ``genuine`` and ``codes``: the
    genuine scores, float32, and whose each is."""

    whole: PairSums
    without: PairSums | None
    identity_sums: np.ndarray
    genuine: np.ndarray
    codes: np.ndarray


def pair_moments(people: Gallery, *, without_each: bool = False, threads: int = 1) -> Moments:
    """Sums over all pairs of ``people``; exact but for float32 rounding inside a block (1e-7 of a mean, tested).

    ``without_each``: also the sums with one person left out, for every person, in closed form (2 n d^2 operations
    more): a person a with sum s_a takes s_a (S - s_a) off the impostor scores, and sum_a x^T M x - ||M_a||^2 off their
    squares.
    """
    scores, codes = genuine_scores(people)
    second = _second_moment(people, threads)
    own, total = _identity_sums(people), float(np.trace(second))
    genuine = np.stack([np.bincount(codes, values, minlength=people.n_identities)
                        for values in (scores, np.square(scores, dtype=np.float64))])
    everything = own.sum(axis=0)
    # A row's own product is 1 to 1e-7, so its fourth power may stand in for its square.
    whole = PairSums(people.n_genuine, *genuine.sum(axis=1), people.n_impostor,
                     ((everything**2).sum() - total) / 2 - genuine[0].sum(),
                     ((second**2).sum() - total) / 2 - genuine[1].sum())
    without = _without_each(people, whole, genuine, own, second, threads) if without_each else None
    return Moments(whole, without, own, scores, codes)


def _without_each(people: Gallery, whole: PairSums, genuine: np.ndarray, own: np.ndarray, second: np.ndarray,
                  threads: int) -> PairSums:
    sizes = people.sizes.astype(np.float64)
    scores = np.einsum("id,id->i", own, own.sum(axis=0)[None] - own)
    forms = np.add.reduceat(_quadratic_forms(people, second, threads), _starts(people))
    return PairSums(whole.n_genuine - sizes * (sizes - 1) / 2, whole.genuine - genuine[0],
                    whole.genuine_squares - genuine[1], whole.n_impostor - sizes * (sizes.sum() - sizes),
                    whole.impostor - scores, whole.impostor_squares - (forms - sizes - 2 * genuine[1]))


def _starts(people: Gallery) -> np.ndarray:
    return np.concatenate([[0], people.sizes.cumsum()[:-1]])


def _second_moment(people: Gallery, threads: int) -> np.ndarray:
    """``sum x x^T``, float64 ``[d, d]``."""
    matrix = torch.from_numpy(people.embeddings)

    def block(at: int) -> np.ndarray:
        rows = matrix[at : at + _BLOCK]
        return torch.mm(rows.T, rows).numpy()

    total = np.zeros((matrix.shape[1], matrix.shape[1]))
    with one_thread_each(), ThreadPoolExecutor(max(1, threads)) as pool:
        for part in pool.map(block, range(0, len(matrix), _BLOCK)):
            total += part
    return total


def _quadratic_forms(people: Gallery, second: np.ndarray, threads: int) -> np.ndarray:
    """``x^T M x`` of every row, float64 ``[n]``."""
    matrix, middle = torch.from_numpy(people.embeddings), torch.from_numpy(second.astype(np.float32))

    def block(at: int) -> np.ndarray:
        rows = matrix[at : at + _BLOCK]
        return torch.mm(rows, middle).mul_(rows).sum(dim=1).double().numpy()

    with one_thread_each(), ThreadPoolExecutor(max(1, threads)) as pool:
        return np.concatenate(list(pool.map(block, range(0, len(matrix), _BLOCK))))


def _identity_sums(people: Gallery) -> np.ndarray:
    sums = np.empty((people.n_identities, people.embeddings.shape[1]))
    for batch, images in same_size_batches(people):
        sums[batch] = images.sum(dim=1).numpy()
    return sums
