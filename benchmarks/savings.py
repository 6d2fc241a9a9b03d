"""What each exact saving of a guided step is worth: all of them on, then each one off, in one run.

    python benchmarks/savings.py                          # the published denoiser, batch 4
    python benchmarks/savings.py --network small --batch 32 --json result.json

A guided step is two predictions an image, one for each branch. ``share`` is the part of the time without a saving that
the saving takes away, all others being on; ``difference`` how far the answer moves, over its largest value (float32
savings: rounding). Not in the table because there is nothing to switch off: no autograd graph is built and nothing is
checkpointed while sampling. ``--compile`` adds ``torch.compile`` (CUDA graphs on a GPU).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from measuring import machine, network_options, print_table

from negface.models import IDiffUNet, PreparedContext, layers

NETWORKS: dict[str, dict[str, Any]] = {
    "full": {},
    "small": {"in_channels": 4, "sample_size": 16, "channel_multipliers": (1, 2, 1),
              "is_attention": (False, False, True), "blocks_per_resolution": 1, "condition_type": "AdaGN",
              "group_channels": 16},
}
SAVINGS = ("contexts prepared once", "time prepared once", "shared beginning", "branches in one batch",
           "fused attention", "channels last", "bfloat16")


def explicit(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention as the released code writes it: products and a float32 softmax."""
    scores = torch.einsum("nhqc,nhkc->nhqk", query, keys) * query.shape[-1] ** -0.5
    return torch.einsum("nhqk,nhkc->nhqc", scores.float().softmax(-1).to(values.dtype), values)


@contextlib.contextmanager
def attention(fused: bool) -> Iterator[None]:
    """The network's own attention, or the explicit one."""
    kept = layers.attend
    layers.attend = kept if fused else explicit
    try:
        yield
    finally:
        layers.attend = kept


def guided_step(model: IDiffUNet, latents: torch.Tensor, contexts: torch.Tensor,
                on: set[str]) -> Callable[[], torch.Tensor]:
    """A function that makes both predictions of every image, with the savings that are on."""
    parts = list(contexts.chunk(2))
    if "contexts prepared once" in on:
        parts = [model.prepare_context(part) for part in parts]
    together = PreparedContext.cat(parts) if isinstance(parts[0], PreparedContext) else torch.cat(parts)
    t = model.prepare_times((500,)).at(500) if "time prepared once" in on else 500

    def step() -> torch.Tensor:
        if "branches in one batch" not in on:
            return torch.cat([model(latents, t, part) for part in parts])
        if "shared beginning" in on:
            return model(latents, t, together, branches=2)
        return model(latents.repeat(2, 1, 1, 1), t, together)

    return step


def measure(model: IDiffUNet, batch: int, device: str, on: set[str],
            clock: Callable[[], float]) -> tuple[float, torch.Tensor]:
    """Seconds of a guided step (fastest of eight) and its answer."""
    layout = torch.channels_last if "channels last" in on else torch.contiguous_format
    model = model.to(memory_format=layout)
    generator = torch.Generator().manual_seed(0)
    config = model.config
    latents = torch.randn(batch, config.in_channels, config.sample_size, config.sample_size, generator=generator)
    contexts = torch.nn.functional.normalize(torch.randn(2 * batch, config.context_input, generator=generator), dim=1)
    # Not inference_mode: there autocast casts every weight anew at each call.
    with (torch.no_grad(), attention("fused attention" in on),
          torch.autocast(device, dtype=torch.bfloat16, enabled="bfloat16" in on)):
        step = guided_step(model, latents.to(device), contexts.to(device), on)
        answer, taken = step().float(), []
        for _ in range(8):
            start = clock()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(clock() - start)
    return min(taken), answer


def main() -> None:
    parser = network_options(__doc__, 4)
    parser.add_argument("--network", choices=list(NETWORKS), default="full")
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    given = parser.parse_args()
    threads = torch.get_num_threads()
    clock = (lambda: time.process_time() / threads) if given.processor_time else time.perf_counter
    torch.manual_seed(0)
    model = IDiffUNet(**NETWORKS[given.network]).to(given.device).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # layers that start at zero would hide every difference
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    everything = set(SAVINGS)
    best, drawn = measure(model, given.batch, given.device, everything, clock)
    exact = everything - {"bfloat16"}
    _, reference = measure(model, given.batch, given.device, exact, clock)

    def apart(answer: torch.Tensor, other: torch.Tensor) -> float:
        return float((answer - other).abs().max() / other.abs().max())

    rows = [{"saving": "all", "seconds": best, "share": 0.0, "difference": apart(drawn, reference)}]
    for name in SAVINGS:
        taken, _ = measure(model, given.batch, given.device, everything - {name}, clock)
        other = exact - {name} if name != "bfloat16" else everything
        _, answer = measure(model, given.batch, given.device, other, clock)
        rows.append({"saving": name, "seconds": taken, "share": 1 - best / taken,
                     "difference": apart(answer, reference)})
    nothing, answer = measure(model, given.batch, given.device, set(), clock)
    rows.append({"saving": "none", "seconds": nothing, "share": 1 - best / nothing,
                 "difference": apart(answer, reference)})
    if given.compile:
        model.compile(mode="reduce-overhead" if given.device == "cuda" else "default")
        taken, answer = measure(model, given.batch, given.device, everything, clock)
        rows.append({"saving": "torch.compile on top", "seconds": taken, "share": 1 - taken / best,
                     "difference": apart(answer, drawn)})
    print(f"machine: {machine(given.device)}\nwork: a guided step of the {given.network} denoiser, batch {given.batch}")
    print_table(rows)
    if given.json:
        with open(given.json, "w") as handle:
            json.dump({"machine": machine(given.device), "network": given.network, "batch": given.batch, "rows": rows},
                      handle, indent=2)


if __name__ == "__main__":
    main()
