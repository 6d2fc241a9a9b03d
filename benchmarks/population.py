"""Speed of the renderer of procedural people: pictures a second, and where the time goes.

    python benchmarks/population.py                            # 60 people x 16 pictures at 112 pixels
    python benchmarks/population.py --size 64 --workers 1 --json result.json

The rate is of wild photographs with all their truth, from the first person's to the last's: what it takes to start the
processes is printed beside it. CPU seconds, of all processes and their start, differ from wall seconds on a machine
that is not quiet. The share is of the machine's float32 matrix-product peak, measured in the same run, for the
floating-point operations of shading alone (about 450 for each covered sample); rendering is bound by memory traffic and
by the number of small operations, not by arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time

from measuring import machine, peak_rate

from negface.population import photograph, sample_people

FLOP_A_SAMPLE = 450


def cpu_seconds() -> float:
    """Processor time of this process and of those it has ended."""
    return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    peak = peak_rate()
    people = sample_people(options.people, seed=0)
    for _ in photograph(people.take([0]), 2, size=options.size, workers=1):
        pass  # the mesh and the textures are made once
    began, began_cpu, covered, first = time.perf_counter(), cpu_seconds(), 0, 0.0
    for _, _, rendered in photograph(people, options.images, size=options.size, workers=options.workers):
        first = first or time.perf_counter()
        covered += 4 * int((rendered.parsing > 0).sum())
    seconds, cpu = time.perf_counter() - first, cpu_seconds() - began_cpu
    count, rate = options.people * options.images, (options.people - 1) * options.images / seconds
    result = {
        "machine": machine(), "pictures": count, "size": options.size, "workers": options.workers,
        "covered_samples_per_picture": covered / count, "seconds_to_first_person": first - began,
        "seconds_after_it": seconds, "cpu_seconds": cpu, "pictures_per_second": rate,
        "pictures_per_cpu_second": count / cpu, "peak_gflops": peak / 1e9,
        "share_of_peak": FLOP_A_SAMPLE * covered / count * rate / peak}
    for key, value in result.items():
        print(f"{key:>28}: {value}")
    if options.json:
        with open(options.json, "w") as handle:
            json.dump(result, handle, indent=2)


if __name__ == "__main__":
    main()
