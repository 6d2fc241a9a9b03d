"""Scoring at scale: moments in closed form and thresholds from one pass over all pairs, float32 and int8.

    python benchmarks/scoring.py                                    # 50,000 x 512 on every processor
    python benchmarks/scoring.py --identities 25000 --skip-pass     # moments of 500,000 x 512
    python benchmarks/scoring.py --identities 25000 --share 0.05    # and a twentieth of its pass, multiplied
    python benchmarks/scoring.py --identities 25000                 # all of it: four passes, one to two hours
    python benchmarks/scoring.py --identities 25000 --precision int8 --no-intervals     # one of the four
    python benchmarks/scoring.py --identities 5000 --pyeer --csv results/scoring.csv --json result.json

Seconds are of the wall and of the processor; the share of the peak is that of the *processor's* seconds in the
machine's best square product (float32 for float32 and, with an int8 product of the same operations, for int8).
``estimated`` in a name: multiplied by the ratio of pairs. With ``--share`` only the blocks of rows that are said are
counted, evenly spread, and only that is timed: what comes before (moments, looking where to look) has its own rows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from measuring import beside_pyeer, best_seconds, machine, peak_rate, write_csv
from separability import embeddings

from negface.evaluation.at_scale import measure_at_scale
from negface.evaluation.inputs import Gallery, gallery
from negface.evaluation.moments import pair_moments
from negface.evaluation.tails import Tails, TailWork, over_threads

_TARGET = 500_000
PRECISIONS = ("float32", "int8")


def int8_peak(size: int = 1024) -> float:
    """Operations a second of the best square int8 product."""
    matrix = torch.randint(-127, 128, (size, size), dtype=torch.int8)
    return 2 * size**3 / best_seconds(lambda: torch._int_mm(matrix, matrix.T), repeats=5)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its seconds and its processor seconds."""
    start, start_cpu = time.perf_counter(), time.process_time()
    value = work()
    return value, time.perf_counter() - start, time.process_time() - start_cpu


def moments_row(people: Gallery, without_each: bool, threads: int, peak: float) -> dict[str, Any]:
    """Moments of all pairs, with or without the sums that leave one person out."""
    _, seconds, cpu = timed(lambda: pair_moments(people, without_each=without_each, threads=threads))
    n, d = people.embeddings.shape
    flop = 2 * n * d * d * (2 if without_each else 1)
    return {"what": "moments, jackknife" if without_each else "moments", "images": n, "seconds": seconds,
            "cpu_seconds": cpu, "share_of_peak": flop / cpu / peak}


def pass_row(people: Gallery, precision: str, intervals: bool, threads: int, peak: float,
             device: str) -> dict[str, Any]:
    """Moments and the pass over all pairs."""
    found, seconds, cpu = timed(lambda: measure_at_scale(people, threads=threads, int8=precision == "int8",
                                                         intervals=intervals, device=device))
    n, d = people.embeddings.shape
    pairs = people.n_genuine + people.n_impostor
    scale = (_TARGET / n) ** 2
    row = {"what": f"thresholds, {precision}" + (", intervals" if intervals else ""), "images": n, "pairs": pairs,
           "seconds": seconds, "cpu_seconds": cpu, "ns_a_pair": cpu / pairs * 1e9,
           "share_of_peak": 2 * d * pairs / cpu / peak, "cpu_minutes_for_500000_estimated": cpu * scale / 60,
           "wall_minutes_for_500000_estimated": seconds * scale / 60,
           "eer": found.values["eer"], "fmr100": found.values["fmr100"], "fmr1000": found.values["fmr1000"]}
    return row | {f"int8_{key}": value for key, value in (found.score_error or {}).items()}


class _Enough(Exception):
    """Ends a pass of which a share was timed."""


def share_row(people: Gallery, precision: str, intervals: bool, threads: int, peak: float, device: str,
              share: float) -> dict[str, Any]:
    """Some of the blocks of a pass, and what all of them would take."""
    row: dict[str, Any] = {"what": f"thresholds, {precision}" + (", intervals" if intervals else "")}

    def some(work: TailWork, jobs: Sequence[range]) -> Iterable[Tails]:
        step = len(jobs) / max(1, round(share * len(jobs)))
        chosen = [jobs[int((at + 0.5) * step)] for at in range(round(len(jobs) / step))]
        parts, seconds, cpu = timed(lambda: [int(part.lattice[1:].sum())
                                             for part in over_threads(threads)(work, chosen)])
        pairs, every = sum(parts), people.n_impostor
        row.update({"images": len(people.codes), "blocks": f"{len(chosen)} of {len(jobs)}", "pairs": pairs,
                    "seconds": seconds, "cpu_seconds": cpu, "ns_a_pair": cpu / pairs * 1e9,
                    "share_of_peak": 2 * people.embeddings.shape[1] * pairs / cpu / peak,
                    "wall_minutes_for_all_estimated": seconds * every / pairs / 60,
                    "cpu_minutes_for_all_estimated": cpu * every / pairs / 60})
        raise _Enough

    start, start_cpu = time.perf_counter(), time.process_time()
    with contextlib.suppress(_Enough):
        measure_at_scale(people, threads=threads, int8=precision == "int8", intervals=intervals, device=device,
                         map_blocks=some)
    spent, spent_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return row | {"seconds_before": spent - row["seconds"], "cpu_seconds_before": spent_cpu - row["cpu_seconds"]}


def pyeer_row(people: Gallery) -> dict[str, Any]:
    """Processor seconds of ours and of pyeer on the first thousand images; pyeer is given the scores."""
    images, labels = people.embeddings[:1000], people.codes[:1000]
    part = gallery(images, labels)
    _, _, ours = timed(lambda: measure_at_scale(part, intervals=False))
    return {"what": "against pyeer", "images": len(images), "pairs": len(images) * (len(images) - 1) // 2,
            "cpu_seconds": ours, **beside_pyeer(images, labels, ours, time.process_time)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=2500)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="of the pass")
    parser.add_argument("--skip-pass", action="store_true", help="only the moments")
    parser.add_argument("--share", type=float, help="of the rows: time so much of each pass and multiply")
    parser.add_argument("--precision", choices=PRECISIONS, help="only passes of this")
    parser.add_argument("--no-intervals", action="store_true", help="only passes without intervals")
    parser.add_argument("--pyeer", action="store_true", help="also time pyeer, on 1,000 images")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--csv", help="write the rows to this file, such as results/scoring.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    peaks = {"float32": peak_rate(), "int8": int8_peak()}
    given = embeddings(options.identities, options.images, options.dim)
    people, seconds, cpu = timed(lambda: gallery(*given))
    given = ()
    rows = [{"what": "brought to unit length", "images": len(people.codes), "seconds": seconds, "cpu_seconds": cpu}]
    _, seconds, cpu = timed(lambda: gallery(people.embeddings, people.codes))
    rows.append({"what": "found of unit length", "images": len(people.codes), "seconds": seconds, "cpu_seconds": cpu})
    rows += [moments_row(people, without, options.threads, peaks["float32"]) for without in (False, True)]
    if not options.skip_pass:
        chosen = [options.precision] if options.precision else PRECISIONS
        passes = [(people, precision, intervals, options.threads, peaks[precision], options.device)
                  for precision in chosen for intervals in ([False] if options.no_intervals else [False, True])]
        rows += [share_row(*each, options.share) if options.share else pass_row(*each) for each in passes]
    if options.pyeer:
        rows.append(pyeer_row(people))
    on = machine(options.device, options.threads)
    rates = f"a thread: {peaks['float32'] / 1e9:.0f} GFLOP/s fp32, {peaks['int8'] / 1e9:.0f} GOP/s int8"
    print(f"{on}; {rates}")
    for row in rows:
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in row.items()))
    memory = f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    print(memory)
    if options.csv:
        write_csv(options.csv, rows, on, f"{rates}; {memory}")
    if options.json:
        with open(options.json, "w") as handle:
            json.dump({"machine": on, "peaks": peaks, "rows": rows}, handle, indent=2)


if __name__ == "__main__":
    main()
