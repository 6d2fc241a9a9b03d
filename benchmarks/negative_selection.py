"""Speed and memory of negative selection, as ratios to the bare float32 matrix product of the same size in one run.

    python benchmarks/negative_selection.py                      # 15,000 x 512, all rows
    python benchmarks/negative_selection.py --pool 300000 --queries 4096

With fewer queries than the pool holds, only that many rows are ranked against the whole pool; the time of all rows is
then stated as an extrapolation.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
import torch
from measuring import machine, peak_rate

from negface.contexts import ContextBank, similarity
from negface.contexts.negatives import select


def random_bank(n: int, dim: int, prefix: str = "") -> ContextBank:
    """A bank of uniform directions, made fast (identity of the numbers does not matter here)."""
    vectors = np.random.default_rng(0).standard_normal((n, dim), dtype=np.float32)
    vectors /= np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return ContextBank(vectors, tuple(f"{prefix}{row}" for row in range(n)), {"source": "benchmark"})


def bare_product(queries: np.ndarray, pool: np.ndarray, rows: int) -> float:
    """Seconds of the same products without any ranking."""
    left, right, strip = torch.from_numpy(queries), torch.from_numpy(pool).T, torch.empty(rows, len(pool))
    start = time.perf_counter()
    for first in range(0, len(left), rows):
        block = left[first:first + rows]
        torch.mm(block, right, out=strip[:len(block)])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=int, default=15_000)
    parser.add_argument("--queries", type=int, default=None, help="rows ranked; all by default")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", default=None, help="write the figures here")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    pool = random_bank(options.pool, options.dim)
    n_queries = min(options.queries or options.pool, options.pool)
    bank = pool.subset(slice(0, n_queries))
    work = 2 * n_queries * options.pool * options.dim
    rows = similarity.strip_rows(options.pool)
    peak = peak_rate()
    bare_product(bank.contexts[:rows], pool.contexts, rows)
    print(machine())
    print(f"{n_queries} x {options.pool} x {options.dim}: {work / 1e9:.1f} GFLOP; "
          f"measured peak {peak / 1e9:.0f} GFLOP/s")
    figures = []
    for strategy in ("close", "far", "mid"):
        bare = bare_product(bank.contexts, pool.contexts, rows)
        start = time.perf_counter()
        select(bank, strategy, pool=pool)
        seconds = time.perf_counter() - start
        bare = (bare + bare_product(bank.contexts, pool.contexts, rows)) / 2
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        figure = {"strategy": strategy, "seconds": seconds, "bare_product_seconds": bare, "ratio": seconds / bare,
                  "rows_per_second": n_queries / seconds, "share_of_peak": work / seconds / peak,
                  "peak_memory_gib": memory}
        figures.append(figure)
        all_rows = "" if n_queries == options.pool else \
            f"; all {options.pool} rows extrapolate to {seconds * options.pool / n_queries:.0f} s"
        print(f"{strategy:5s} {seconds:7.2f} s, {figure['ratio']:.2f} x the bare product ({bare:.2f} s), "
              f"{figure['rows_per_second']:.0f} rows/s, {100 * figure['share_of_peak']:.0f} % of peak, "
              f"{memory:.2f} GiB{all_rows}")
    if options.json:
        with open(options.json, "w") as handle:
            json.dump({"machine": machine(), "pool": options.pool, "queries": n_queries, "figures": figures}, handle)


if __name__ == "__main__":
    main()
