"""Moments of all genuine and impostor scores without forming a pair, and what they are without each single person.

With unit rows x and M = sum x x^T, the scores of all ordered pairs add up to |sum x|^2 and their squares to ||M||_F^2;
what is left after the genuine pairs are taken off are the impostors: 2 n d^2 operations instead of n^2 d. Sums of
blocks of 4,096 rows in float32, everything beyond in float64. Blocks are fixed, so threads change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from negface.foundation.threads import torch_threads

from .bootstrap import fisher
from .genuine import count_genuine, sums_with_others
from .inputs import Gallery
from .scoring import first_rows

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
    ``with_others`` float64 ``[identities]``: the sum of each person's scores with everybody else; ``genuine`` float64
    ``[2, identities]``: the sum of each person's own scores and of their squares; ``genuine_bins`` int64: these scores
    by bin (``ranked.bin_of``)."""

    whole: PairSums
    without: PairSums | None
    with_others: np.ndarray
    genuine: np.ndarray
    genuine_bins: np.ndarray


def pair_moments(people: Gallery, *, without_each: bool = False, threads: int = 1, device: str = "cpu") -> Moments:
    """Sums over all pairs of ``people``; exact but for float32 rounding inside a block (1e-7 of a mean, tested).

    ``without_each``: also the sums with one person left out, for every person, in closed form (2 n d^2 operations
    more): a person a with sum s_a takes s_a (S - s_a) off the impostor scores, and sum_a x^T M x - ||M_a||^2 off their
    squares. ``device``: where the products and their sums are made, block by block; no memory there grows with the set.
    """
    genuine, bins = count_genuine(people, threads=threads, device=device)
    # Where most pairs are genuine, what is left after they are taken off is small beside float32's rounding of them.
    blocks = _Blocks(people, threads, device, torch.float64 if people.n_genuine > people.n_impostor else torch.float32)
    second, with_others = blocks.second_moment(), sums_with_others(people)
    # A row's own product is 1 to 1e-7, so its fourth power may stand in for its square.
    whole = PairSums(people.n_genuine, *genuine.sum(axis=1), people.n_impostor, with_others.sum() / 2,
                     ((second**2).sum() - np.trace(second)) / 2 - genuine[1].sum())
    without = _without_each(people, whole, genuine, with_others,
                            blocks.quadratic_forms(second)) if without_each else None
    return Moments(whole, without, with_others, genuine, bins)


def _without_each(people: Gallery, whole: PairSums, genuine: np.ndarray, with_others: np.ndarray,
                  forms: np.ndarray) -> PairSums:
    sizes = people.sizes.astype(np.float64)
    squares = np.add.reduceat(forms, first_rows(people)) - sizes - 2 * genuine[1]
    return PairSums(whole.n_genuine - sizes * (sizes - 1) / 2, whole.genuine - genuine[0],
                    whole.genuine_squares - genuine[1], whole.n_impostor - sizes * (sizes.sum() - sizes),
                    whole.impostor - with_others, whole.impostor_squares - squares)


@dataclass(frozen=True)
class _Blocks:
    """Products over all rows of a gallery, a block at a time."""

    people: Gallery
    threads: int
    device: str
    dtype: torch.dtype

    def second_moment(self) -> np.ndarray:
        """``sum x x^T``, float64 ``[d, d]``."""
        d = self.people.embeddings.shape[1]
        total = torch.zeros(d, d, dtype=torch.float64, device=self.device)
        for part in self._over(lambda _, rows: torch.mm(rows.T, rows)):
            total += part
        return total.cpu().numpy()

    def quadratic_forms(self, second: np.ndarray) -> np.ndarray:
        """``x^T M x`` of every row, float64 ``[n]``."""
        middle, forms = torch.from_numpy(second).to(self.device, self.dtype), np.empty(len(self.people.codes))

        def write(at: int, rows: torch.Tensor) -> None:
            # In place: small results that stay would lie between the large ones, which then find no room again.
            forms[at : at + len(rows)] = torch.mm(rows, middle).mul_(rows).sum(dim=1).double().cpu().numpy()

        for _ in self._over(write):
            pass
        return forms

    def _over(self, product: Callable[[int, torch.Tensor], Any]) -> Iterator[Any]:
        """What ``product`` makes of the first row's number and the rows of each block."""
        matrix = torch.from_numpy(self.people.embeddings)

        def block(at: int) -> Any:
            return product(at, matrix[at : at + _BLOCK].to(self.device, self.dtype))

        with torch_threads(1), ThreadPoolExecutor(max(1, self.threads)) as pool:
            yield from pool.map(block, range(0, len(matrix), _BLOCK))
