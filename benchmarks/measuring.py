"""What benchmarks share: the machine and its best rate at matrix products, pyeer's time, tables printed and as CSV.

Not in `make bench`: it measures nothing of ours. Run by itself it prints the machine and its rates.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import platform
import shlex
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from negface.foundation.files import write_text

NOT_INSTALLED = "not installed"
WRITTEN = ("--csv", "--json")


def network_options(description: str | None, batch: int) -> argparse.ArgumentParser:
    """The options of a benchmark of networks: batch, device, clock, file of the figures."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--processor-time", action="store_true",
                        help="count processor seconds over threads: for a machine that is not quiet")
    parser.add_argument("--json", help="write the figures to this file")
    return parser


def machine(device: str = "cpu", threads: int | None = None) -> str:
    """The processor's name, the threads in use (torch's unless told), versions."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    if device == "cpu":
        with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as handle:
            name = next(line.split(":", 1)[1].strip() for line in handle if line.startswith("model name"))
    return f"{name}, {threads or torch.get_num_threads()} threads, torch {torch.__version__}"


def best_seconds(work: Callable[[], object], device: str = "cpu", repeats: int = 3) -> float:
    """Seconds of the fastest of some calls, after one that is not counted."""
    best = float("inf")
    for attempt in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        if attempt:
            best = min(best, time.perf_counter() - start)
    return best


def peak_rate(dtype: torch.dtype = torch.float32, device: str = "cpu", size: int | None = None) -> float:
    """FLOP/s of the best square product."""
    size = size or (8192 if device == "cuda" else 2048)
    matrix = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / best_seconds(lambda: matrix @ matrix, device, 5)


def pyeer_seconds(genuine: np.ndarray, impostor: np.ndarray,
                  clock: Callable[[], float] = time.perf_counter) -> float | None:
    """Seconds of pyeer for given scores: it gets them ready made, and gives no intervals. None: it is not installed."""
    # pyeer asks setuptools' retired module for the path of its HTML report, which is not used here.
    sys.modules.setdefault("pkg_resources", types.ModuleType("pkg_resources"))
    try:
        from pyeer.eer_info import get_eer_stats
    except ImportError:
        return None
    start = clock()
    get_eer_stats(genuine.tolist(), impostor.tolist())
    return clock() - start


def beside_pyeer(images: np.ndarray, labels: np.ndarray, ours: float,
                 clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """pyeer's seconds for all pairs of ``images`` ``[n, d]``, and their ratio to ours; or that it is not installed."""
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    scores, same = (unit @ unit.T)[first, second], labels[first] == labels[second]
    theirs = pyeer_seconds(scores[same], scores[~same], clock)
    return {"pyeer_given_scores_s": NOT_INSTALLED if theirs is None else theirs,
            "ratio": NOT_INSTALLED if theirs is None else theirs / ours}


def command() -> str:
    """The command line that was given, without the files it writes."""
    words, kept = iter(sys.argv[1:]), []
    for word in words:
        if word in WRITTEN:
            next(words, None)
        elif not word.startswith(tuple(f"{option}=" for option in WRITTEN)):
            kept.append(word)
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *kept])


def write_csv(path: str | Path, rows: Sequence[dict[str, Any]], on: str, remark: str) -> None:
    """Rows under the command, the machine, versions and a remark; a field that a row does not have is empty."""
    text = io.StringIO()
    text.write(f"# {command()}\n# {on}, numpy {np.__version__}, Python {platform.python_version()}; {remark}\n")
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows under their columns' names, four digits, a dash where a row has no such column."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name, "-")) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(f"{machine()}: {peak_rate() / 1e9:.0f} GFLOP/s fp32, {peak_rate(torch.bfloat16) / 1e9:.0f} GFLOP/s bf16")
