"""Speed of separability over all pairs with intervals, and its ratio to pyeer's per-score cost in the same run.

    python benchmarks/separability.py                        # 2,000 people x 20 images x 512, 1,000 replicates
    python benchmarks/separability.py --identities 500 --images 10 --json result.json

The work counted is that of the scores (2 d operations a pair) and of the bootstrap's weighing; the share is of the
machine's measured float32 product. CPU seconds are printed beside wall seconds: they differ on a machine that is not
quiet.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import NOT_INSTALLED, beside_pyeer, machine, peak_rate

from negface.evaluation import separability


def embeddings(n_identities: int, n_images: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """People around random directions, some tighter than others: EER near 1 %."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((n_identities, 1, dim), dtype=np.float32) / np.float32(np.sqrt(dim))
    widths = np.float32(1.25 / np.sqrt(dim)) * random.gamma(4, 0.25, (n_identities, n_images, 1)).astype(np.float32)
    images = np.empty((n_identities, n_images, dim), np.float32)
    for at in range(0, n_identities, 1000):
        part = random.standard_normal(images[at : at + 1000].shape, dtype=np.float32)
        images[at : at + 1000] = centres[at : at + 1000] + widths[at : at + 1000] * part
    return images.reshape(-1, dim), np.repeat(np.arange(n_identities), n_images)


def against_pyeer(dim: int, bootstrap: int) -> dict[str, Any]:
    """Both on 100 people x 10 images (499,500 pairs), in this run."""
    images, labels = embeddings(100, 10, dim)
    start = time.perf_counter()
    separability(images, labels, bootstrap=bootstrap)
    ours = time.perf_counter() - start
    return {"ours_with_scores_and_intervals_s": ours, **beside_pyeer(images, labels, ours)}


def scorer_rows(n_identities: int = 200, n_images: int = 20, dim: int = 512,
                clock: Callable[[], float] = time.perf_counter) -> list[dict[str, Any]]:
    """All pairs of one set: ours from embeddings to FDR, EER, FMR100 and FMR1000, without and with intervals; pyeer.

    Ours takes the better of two calls after one that is not counted; pyeer, given the scores, is called once.
    """
    images, labels = embeddings(n_identities, n_images, dim)

    def ours(bootstrap: int) -> float:
        taken = []
        for _ in range(3):
            start = clock()
            separability(images, labels, bootstrap=bootstrap)
            taken.append(clock() - start)
        return min(taken[1:])

    plain, intervals = ours(0), ours(1000)
    theirs = beside_pyeer(images, labels, plain, clock)
    spent = theirs["pyeer_given_scores_s"]
    pairs = len(labels) * (len(labels) - 1) // 2
    rows = {"scorer, ours": plain, "scorer, ours, with intervals": intervals, "scorer, pyeer, given scores": spent}
    return [{"recipe": name, "pairs": pairs, "seconds_all_pairs": seconds,
             "times_pyeer": spent if spent == NOT_INSTALLED else spent / seconds} for name, seconds in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=2000)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    peak = peak_rate()
    images, labels = embeddings(options.identities, options.images, options.dim)
    start, start_cpu = time.perf_counter(), time.process_time()
    found = separability(images, labels, bootstrap=options.bootstrap)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    n_pairs = found.n_genuine + found.n_impostor
    score_flop = 2 * options.dim * n_pairs
    weigh_flop = len(found.det["fmr"]) * options.identities**2 * options.bootstrap
    result = {
        "machine": machine(), "identities": options.identities, "images": len(labels), "dim": options.dim,
        "bootstrap": options.bootstrap, "pairs": n_pairs, "score_tflop": score_flop / 1e12,
        "bootstrap_tflop": weigh_flop / 1e12, "seconds": seconds, "cpu_seconds": cpu,
        "pairs_per_second": n_pairs / seconds, "peak_gflops": peak / 1e9,
        "share_of_peak": (score_flop + weigh_flop) / seconds / peak,
        "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "eer": found.eer, "eer_interval": found.intervals["eer"], "fdr": found.fdr,
        "against_pyeer": against_pyeer(options.dim, options.bootstrap)}
    for key, value in result.items():
        print(f"{key:>20}: {value}")
    if options.json:
        with open(options.json, "w") as handle:
            json.dump(result, handle, indent=2)


if __name__ == "__main__":
    main()
