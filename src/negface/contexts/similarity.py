"""Exact ranking of a pool by cosine, for many queries, without an ``n x n`` matrix.

Each strip of float32 cosines (one matrix product) only narrows the pool to the members within the product's rounding
bound of the answer; float64 cosines of those decide, ties to the lower index. So the answer is that of float64
arithmetic and does not depend on block size, thread count or matrix library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..foundation.progress import Progress

STRIP_ELEMENTS = 1 << 26
ROWS_PER_TASK = 16
BLOCK = 16384

# (cosines of one query, float32 [m], may be overwritten; own pool row or -1; band; exact) -> pool row
Chooser = Callable[[np.ndarray, int, float, Callable[[np.ndarray], np.ndarray]], int]


def exact_cosines(query: np.ndarray, members: np.ndarray) -> np.ndarray:
    """float64 cosines ``[k]`` of a vector ``[d]`` and rows ``[k, d]``; equal rows give equal bits."""
    dots = np.multiply(members, query, dtype=np.float64).sum(axis=1)
    squares = np.multiply(members, members, dtype=np.float64).sum(axis=1)
    return dots / np.sqrt(squares * np.multiply(query, query, dtype=np.float64).sum())


def paired_cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float64 cosines ``[n]`` of row i of one with row i of the other, both ``[n, d]``."""
    result = np.empty(len(left))
    for start in range(0, len(left), BLOCK):
        first, second = (side[start:start + BLOCK].astype(np.float64) for side in (left, right))
        squares = np.square(first).sum(axis=1) * np.square(second).sum(axis=1)
        result[start:start + BLOCK] = (first * second).sum(axis=1) / np.sqrt(squares)
    return result


def rounding_band(queries: np.ndarray, pool: np.ndarray) -> float:
    """How far a float32 dot product of two rows can lie from the cosine (any order of summation, with or without FMA).

    ``d * 2^-24 * |x||y|`` (Higham, Accuracy and Stability, eq. 3.5) plus what rows not exactly of unit length add.
    """
    return 1.01 * (queries.shape[1] * 2.0**-24 + _length_error(queries) + _length_error(pool)) + 1e-6


def _length_error(vectors: np.ndarray) -> float:
    worst = 0.0
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start:start + BLOCK]
        squares = np.einsum("nd,nd->n", block, block, dtype=np.float64)
        worst = max(worst, float(np.abs(np.sqrt(squares) - 1).max(initial=0.0)))
    return worst


def choose_nearest(cosines: np.ndarray, own: int, band: float, exact: Callable[[np.ndarray], np.ndarray]) -> int:
    """The member with the largest cosine."""
    if own >= 0:
        cosines[own] = -np.inf
    candidates = np.flatnonzero(cosines >= cosines.max() - 2 * band)
    return int(candidates[np.argmax(exact(candidates))]) if len(candidates) > 1 else int(candidates[0])


def choose_farthest(cosines: np.ndarray, own: int, band: float, exact: Callable[[np.ndarray], np.ndarray]) -> int:
    """The member with the least cosine."""
    if own >= 0:
        cosines[own] = np.inf
    candidates = np.flatnonzero(cosines <= cosines.min() + 2 * band)
    return int(candidates[np.argmin(exact(candidates))]) if len(candidates) > 1 else int(candidates[0])


def choose_median(cosines: np.ndarray, own: int, band: float, exact: Callable[[np.ndarray], np.ndarray]) -> int:
    """The member of rank ``(m - 1) // 2`` among the m others, cosines ascending, equal ones by index."""
    others = len(cosines) - (own >= 0)
    if own >= 0:
        cosines[own] = np.inf
    return _of_rank(cosines, (others - 1) // 2, band, exact)


def choose_upper_median(cosines: np.ndarray, own: int, band: float, exact: Callable[[np.ndarray], np.ndarray]) -> int:
    """The member of rank ``m // 2`` among all m of the pool, the query's own identity included."""
    return _of_rank(cosines, len(cosines) // 2, band, exact)


def _of_rank(cosines: np.ndarray, rank: int, band: float, exact: Callable[[np.ndarray], np.ndarray]) -> int:
    """The member of a rank, cosines ascending, equal ones by index."""
    middle = np.partition(cosines, rank)[rank]
    low, high = middle - 2 * band, middle + 2 * band
    candidates = np.flatnonzero((cosines >= low) & (cosines <= high))
    if len(candidates) == 1:
        return int(candidates[0])
    below = int(np.count_nonzero(cosines < low))
    return int(candidates[np.argsort(exact(candidates), kind="stable")[rank - below]])


def pick(queries: np.ndarray, pool: np.ndarray, own: np.ndarray, choose: Chooser, *, label: str = "ranking",
         block_rows: int | None = None) -> np.ndarray:
    """One pool row for each query.

    Args:
        queries, pool: float32 unit rows ``[n, d]`` and ``[m, d]``.
        own: int64 ``[n]``, the pool row that is the query's own identity (left out), or -1.
        choose: one of the choosers above.
        block_rows: queries a strip; by default a strip of cosines takes about 256 MiB. It does not change the answer.

    Returns int64 ``[n]``. Uses as many threads as torch was given.
    """
    chosen = np.empty(len(queries), dtype=np.int64)
    band = rounding_band(queries, pool)

    def work(strip: np.ndarray, start: int, first: int) -> None:
        for row in range(first, min(first + ROWS_PER_TASK, len(strip))):
            query = queries[start + row]
            chosen[start + row] = choose(strip[row], int(own[start + row]), band,
                                         lambda members, query=query: exact_cosines(query, pool[members]))

    with Progress(label, len(queries), unit="contexts") as bar, ThreadPoolExecutor(_threads()) as workers:
        for start, strip in _strips(queries, pool, block_rows or strip_rows(len(pool))):
            list(workers.map(lambda first: work(strip, start, first), range(0, len(strip), ROWS_PER_TASK)))  # noqa: B023
            bar.advance(len(strip))
    return chosen


def strip_rows(pool_size: int) -> int:
    """Queries a strip, so that it takes about 256 MiB and is still tall enough for the matrix product."""
    return int(min(512, max(32, STRIP_ELEMENTS // max(pool_size, 1))))


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _strips(queries: np.ndarray, pool: np.ndarray, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Strips of float32 cosines ``[<= rows, m]``; each is overwritten by the next."""
    import torch

    strip = np.empty((min(rows, len(queries)), len(pool)), dtype=np.float32)
    transposed = torch.from_numpy(pool).T
    precision = torch.get_float32_matmul_precision()
    # A caller may have allowed bfloat16 products, which the rounding band does not cover.
    torch.set_float32_matmul_precision("highest")
    try:
        for start in range(0, len(queries), rows):
            block = torch.from_numpy(queries[start:start + rows])
            torch.mm(block, transposed, out=torch.from_numpy(strip)[:len(block)])
            yield start, strip[:len(block)]
    finally:
        torch.set_float32_matmul_precision(precision)
