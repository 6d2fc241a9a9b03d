"""Speed and memory of folder -> rec -> shards -> folder, against copying the same folder with ``shutil``.

    python benchmarks/dataset_conversion.py                     # 100,000 pictures of 2,000 people, 2 KiB each
    python benchmarks/dataset_conversion.py --people 200 --images 10 --json result.json

Every conversion writes, flushes to disk, reads everything back and compares. Memory is the growth of the peak over
what the process had before the first conversion; pictures are never held, names and labels are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from negface.datasets import codec, convert_dataset


def faces(root: Path, people: int, images: int, size: int) -> int:
    """Identity folders of small distinct JPEGs, filled up to ``size`` bytes; returns the bytes written."""
    random = np.random.default_rng(0)
    picture = codec("jpeg").encode(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    for person in range(people):
        folder = root / f"{person:06d}"
        folder.mkdir(parents=True)
        for image in range(images):
            (folder / f"{image:05d}.jpg").write_bytes(picture + random.bytes(size - len(picture)))
    return people * images * size


def peak() -> float:
    """Peak resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--size", type=int, default=2048, help="bytes a picture")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {"machine": f"{platform.machine()}, {os.cpu_count()} processors, numpy {np.__version__}",
              "n_images": options.people * options.images, "steps": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        total = faces(root / "folder", options.people, options.images, options.size)
        print(f"{result['machine']}: {result['n_images']:,} pictures, {total / 2**20:.0f} MiB")
        start, cpu = time.perf_counter(), time.process_time()
        shutil.copytree(root / "folder", root / "copy")
        copy = time.perf_counter() - start
        print(f"{'shutil.copytree':>16}: {copy:6.1f} s wall, {time.process_time() - cpu:6.1f} s CPU")
        before, source = peak(), root / "folder"
        for to in ("rec", "shards", "folder"):
            out = root / f"as-{to}"
            start, cpu = time.perf_counter(), time.process_time()
            done = convert_dataset(source, out, to)
            wall, used = time.perf_counter() - start, time.process_time() - cpu
            result["steps"].append({"to": to, "seconds": wall, "cpu_seconds": used, "ratio_to_copy": wall / copy,
                                    "peak_growth_mib": peak() - before, "content_sha256": done["content_sha256"]})
            rate, grown = result["n_images"] / wall, peak() - before
            print(f"{'-> ' + to:>16}: {wall:6.1f} s wall, {used:6.1f} s CPU, {rate:8,.0f} images/s, "
                  f"{wall / copy:5.2f} x copy, peak +{grown:.0f} MiB "
                  f"({grown * 2**20 / result['n_images']:.0f} bytes a picture)")
            source = out
        assert len({step["content_sha256"] for step in result["steps"]}) == 1
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
