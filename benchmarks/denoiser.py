"""Speed of the full-size denoiser (216 million parameters, 32x32 latents), sampling, and its share of the peak.

    python benchmarks/denoiser.py                       # batch 16, fp32 and bf16
    python benchmarks/denoiser.py --batch 64 --device cuda --json result.json

The work is counted by torch on the meta device (2 operations a multiply-add; 13.8 GFLOP an image); the peak is the
best square matrix product of the same precision in the same run. ``with context`` projects the contexts at every call,
``prepared`` does so once beforehand, as the pipeline does.
"""

from __future__ import annotations

import argparse
import json

import torch
from measuring import best_seconds, machine, peak_rate
from torch.utils.flop_counter import FlopCounterMode

from negface.models import IDiffUNet

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def forward_flop(options: dict, batch: int = 1) -> int:
    """Operations of one prediction of an ``IDiffUNet`` with these options, counted without computing anything."""
    with torch.device("meta"):
        model = IDiffUNet(**options)
        side, channels = model.config.sample_size, model.config.in_channels
        inputs = torch.zeros(batch, channels, side, side), torch.zeros(batch, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            model(*inputs, torch.zeros(batch, model.config.context_input))
    return counter.get_total_flops()


def measure(model: IDiffUNet, precision: str, batch: int, device: str, flop: int) -> list[dict]:
    """Rates with contexts given and prepared."""
    dtype = DTYPES[precision]
    model = model.to(device, dtype).to(memory_format=torch.channels_last)
    latents = torch.randn(batch, model.config.in_channels, model.config.sample_size, model.config.sample_size)
    latents = latents.to(device, dtype).contiguous(memory_format=torch.channels_last)
    contexts = torch.nn.functional.normalize(torch.randn(batch, model.config.context_input), dim=1).to(device, dtype)
    peak, rows = peak_rate(dtype, device), []
    with torch.inference_mode():
        for name, context in (("with context", contexts), ("prepared", model.prepare_context(contexts))):
            seconds = best_seconds(lambda context=context: model(latents, 500, context), device)
            rows.append({"precision": precision, "context": name, "batch": batch, "seconds": seconds,
                         "predictions_per_second": batch / seconds, "tflop": flop / 1e12,
                         "peak_gflops": peak / 1e9, "share_of_peak": flop / seconds / peak})
    return rows


def print_rows(rows: list[dict]) -> None:
    """One line a row, rounded."""
    for row in rows:
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in row.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    flop = forward_flop({}, options.batch)
    torch.manual_seed(0)
    model = IDiffUNet().eval()
    print(f"machine: {machine(options.device)}\nwork: {flop / 1e12:.4g} TFLOP a batch of {options.batch}")
    rows = [row for name in options.precision for row in measure(model, name, options.batch, options.device, flop)]
    print_rows(rows)
    if options.json:
        with open(options.json, "w") as handle:
            json.dump({"machine": machine(options.device), "rows": rows}, handle, indent=2)


if __name__ == "__main__":
    main()
