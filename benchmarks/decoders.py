"""Speed of the autoencoder's decoder against the small one of ``negface train distill``, shipped generator, in one run.

    python benchmarks/decoders.py                          # batch 32, fp32 and bf16
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/decoders.py        # one core, as docs/distillation.md has it
    python benchmarks/decoders.py --batch 64 --device cuda --json result.json

The autoencoder is the shipped one. The small decoder has the shape of recipes/distill-64.toml and random weights: time
does not depend on them. Both decode the same latents through the pipeline, in turns; the fastest of five counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from denoiser import DTYPES
from measuring import machine, network_options, print_table
from torch.utils.flop_counter import FlopCounterMode

from negface.experiments.assets import load
from negface.models import FastDecoder
from negface.pipelines import NegFaceDiffPipeline
from negface.training.recipe import read_toml

RECIPE = Path(__file__).parents[1] / "recipes" / "distill-64.toml"
DECODERS = ("full", "fast")
ROUNDS = 5


def pipeline(device: str) -> NegFaceDiffPipeline:
    """The shipped generator with a small decoder of the recipe's shape."""
    options = read_toml(RECIPE)["decoder"]["model"]
    torch.manual_seed(0)
    pipe = NegFaceDiffPipeline.from_pretrained(load("generator"))
    fast = FastDecoder(pipe.vae.config.latent_channels, tuple(options["widths"]), tuple(options["blocks"]))
    if fast.upsample != pipe.vae.downsample:
        raise SystemExit(f"{RECIPE.name} enlarges {fast.upsample} times, the shipped autoencoder {pipe.vae.downsample}")
    return NegFaceDiffPipeline(pipe.unet, pipe.vae, fast_decoder=fast).to(device)


def size(*networks: torch.nn.Module) -> int:
    """Weights of networks together."""
    return sum(value.numel() for network in networks for value in network.parameters())


@torch.inference_mode()
def measure(pipe: NegFaceDiffPipeline, latents: torch.Tensor, precision: str, now: Callable[[], float]) -> list[dict]:
    """A row for each decoder: the fastest of some calls in turns, after one of each that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in DECODERS}
    with torch.autocast(latents.device.type, DTYPES[precision], enabled=precision != "fp32"):
        for _ in range(ROUNDS + 1):
            for name in DECODERS:
                start = now()
                pipe.decode(latents, name)
                taken[name].append(now() - start)
        work = {name: operations(pipe, latents, name) for name in DECODERS}
    best = {name: min(values[1:]) for name, values in taken.items()}
    sizes = {"full": size(pipe.vae.post_quant_conv, pipe.vae.decoder), "fast": size(pipe.fast_decoder)}
    return [{"precision": precision, "decoder": name, "parameters": sizes[name], "milliseconds_an_image":
             1e3 * seconds / len(latents), "gflop_an_image": work[name] / 1e9 / len(latents),
             "times_full": best["full"] / seconds} for name, seconds in best.items()]


def operations(pipe: NegFaceDiffPipeline, latents: torch.Tensor, decoder: str) -> int:
    """Operations of decoding, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        pipe.decode(latents, decoder)
    return counter.get_total_flops()


def main() -> None:
    parser = network_options(__doc__, 32)
    given = parser.parse_args()

    def now() -> float:
        if given.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time() / torch.get_num_threads() if given.processor_time else time.perf_counter()

    pipe = pipeline(given.device)
    for network in (pipe.vae, pipe.fast_decoder):
        network.eval().to(memory_format=torch.channels_last)
    config = pipe.unet.config
    latents = torch.randn(given.batch, config.in_channels, config.sample_size, config.sample_size)
    latents = latents.to(given.device).contiguous(memory_format=torch.channels_last)
    rows: list[dict[str, Any]] = [row for name in DTYPES for row in measure(pipe, latents, name, now)]
    print(f"machine: {machine(given.device)}\nwork: latents {list(latents.shape)} to pictures")
    print_table(rows)
    if given.json:
        with open(given.json, "w") as handle:
            json.dump({"machine": machine(given.device), "batch": given.batch, "rows": rows}, handle, indent=2)


if __name__ == "__main__":
    main()
