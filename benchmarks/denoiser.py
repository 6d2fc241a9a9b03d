"""Speed of the full-size denoiser (216 million parameters, 32x32 latents), sampling, and its share of the peak.

    python benchmarks/denoiser.py                       # batch 16, fp32 and bf16
    python benchmarks/denoiser.py --batch 64 --device cuda --json result.json

The work is what the plain network takes, counted by torch on the meta device (2 operations a multiply-add; 13.5 GFLOP
an image with the contexts prepared, as in the pipeline), whatever is computed instead. Rounds of one prediction and of
plain matrix products of the same precision, for as long as the prediction took, take turns; the share of the peak is
the median over the rounds of its rate over the best shape's. ``seconds_with_contexts`` projects the contexts too.
``--clock processor`` counts a thread's processor time: for a machine that other programs use at the same time.
For single figures on Linux set ``MALLOC_MMAP_THRESHOLD_`` and ``MALLOC_TRIM_THRESHOLD_`` to some GiB beforehand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from measuring import machine, print_table
from torch.utils.flop_counter import FlopCounterMode

from negface.models import IDiffUNet

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PRODUCTS = ((2048, 2048, 2048), (1536, 1536, 1536), (4096, 1024, 1024))


def forward_flop(options: dict, batch: int = 1, prepared: bool = False) -> int:
    """Operations of one prediction of an ``IDiffUNet`` with these options, counted without computing anything.

    ``prepared`` leaves out what depends only on the contexts and the timesteps.
    """
    with torch.device("meta"):
        model = IDiffUNet(**options)
        side, channels = model.config.sample_size, model.config.in_channels
        context, when = torch.zeros(batch, model.config.context_input), torch.zeros(batch, dtype=torch.long)
        if prepared:
            context, when = model.prepare_context(context), model.prepare_times([500]).at(500)
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(batch, channels, side, side), when, context)
    return counter.get_total_flops()


def products(dtype: torch.dtype, device: str) -> list[tuple[Callable[[], object], int]]:
    """Matrix products of several shapes, the fastest of which is the peak, and their operations."""
    scale = 4 if device == "cuda" else 1
    work = []
    for rows, shared, columns in PRODUCTS:
        left = torch.randn(scale * rows, scale * shared, device=device).to(dtype)
        right = torch.randn(scale * shared, scale * columns, device=device).to(dtype)
        work.append((lambda left=left, right=right: left @ right, 2 * scale**3 * rows * shared * columns))
    return work


class Clock:
    """Seconds of a call: on the wall, or of the processor (a thread's share of all threads' seconds)."""

    def __init__(self, kind: str, device: str):
        self.kind, self.device = kind, device

    def now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time() / torch.get_num_threads() if self.kind == "processor" else time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        start = self.now()
        work()
        return self.now() - start

    def rate(self, work: Callable[[], object], operations: int, window: float) -> float:
        """Operations a second of a call repeated for a window of seconds."""
        spent, calls = 0.0, 0
        while spent < window:
            spent, calls = spent + self.seconds(work), calls + 1
        return calls * operations / spent


def measure(model: IDiffUNet, precision: str, batch: int, device: str, flop: int, clock: Clock, rounds: int) -> dict:
    """Rates of predictions and of products, in turns: a processor's clock changes while it works."""
    dtype = DTYPES[precision]
    model = model.to(device, dtype).to(memory_format=torch.channels_last)
    latents = torch.randn(batch, model.config.in_channels, model.config.sample_size, model.config.sample_size)
    latents = latents.to(device, dtype).contiguous(memory_format=torch.channels_last)
    contexts = torch.nn.functional.normalize(torch.randn(batch, model.config.context_input), dim=1).to(device, dtype)
    times, peaks = [], []
    with torch.inference_mode():
        prepared, when = model.prepare_context(contexts), model.prepare_times([500]).at(500)
        shapes = products(dtype, device)
        for work in (lambda: model(latents, when, prepared), *(work for work, _ in shapes)):
            work()
        for _ in range(rounds):
            times.append(clock.seconds(lambda: model(latents, when, prepared)))
            peaks.append(max(clock.rate(*shape, times[-1] / len(shapes)) for shape in shapes))
        unprepared = min(clock.seconds(lambda: model(latents, 500, contexts)) for _ in range(2))
    shares = [flop / spent / peak for spent, peak in zip(times, peaks, strict=True)]
    seconds = statistics.median(times)
    return {"precision": precision, "batch": batch, "seconds": seconds, "seconds_with_contexts": unprepared,
            "predictions_per_second": batch / seconds, "gflops": flop / seconds / 1e9,
            "peak_gflops": statistics.median(peaks) / 1e9, "share_of_peak": statistics.median(shares),
            "share_lowest": min(shares), "share_highest": max(shares)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--clock", default="wall", choices=["wall", "processor"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    flop = forward_flop({}, options.batch, prepared=True)
    torch.manual_seed(0)
    model, clock = IDiffUNet().eval(), Clock(options.clock, options.device)
    print(f"machine: {machine(options.device)}\nwork: {flop / 1e12:.4g} TFLOP a batch of {options.batch}")
    rows = [measure(model, name, options.batch, options.device, flop, clock, options.rounds)
            for name in options.precision]
    print_table(rows)
    by_name = {row["precision"]: row["seconds"] for row in rows}
    if len(by_name) == len(DTYPES):
        print(f"bf16 is {by_name['fp32'] / by_name['bf16']:.2f} times as fast as fp32")
    if options.json:
        with open(options.json, "w") as handle:
            json.dump({"machine": machine(options.device), "rows": rows}, handle, indent=2)


if __name__ == "__main__":
    main()
