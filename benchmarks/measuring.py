"""What every benchmark measures first: the machine, and its own best rate at matrix products. Prints both if run."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


def machine(device: str = "cpu") -> str:
    """The processor's name, the threads in use, versions."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    if device == "cpu":
        with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as handle:
            name = next(line.split(":", 1)[1].strip() for line in handle if line.startswith("model name"))
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


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
