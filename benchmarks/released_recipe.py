"""Images a second of ours against the released recipe's arithmetic, and our scorer against pyeer, in one run.

    python benchmarks/released_recipe.py                     # batch 8 on the CPU, about three minutes
    python benchmarks/released_recipe.py --device cuda --batch 64 --json result.json

Networks: the published denoiser (216 million parameters) and first stage, with weights rebuilt from the published key
lists (tests/golden), so speed is real and pictures are noise. Released: two sequential float32 passes a step, contexts
projected at every one of them, float32 decoding; on our network, whose fused attention flatters it. Ours: the pipeline.
A few steps are timed and multiplied by the steps of the recipe. Quality stands in columns of its own: that of the
shipped model (64 px) in results/frontier.csv, where it has been measured. The student's row is arithmetic: four
predictions of this network with the guidance weight as an input, and its decoder in full.

Scorer: all pairs of 200 people x 20 embeddings x 512. Ours goes from embeddings to FDR, EER, FMR100 and FMR1000;
pyeer is given the scores ready made and has no intervals. With ``--processor-time`` seconds of all threads add up.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import machine, network_options, peak_rate, print_table, write_csv
from separability import scorer_rows

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "models"))

from golden_networks import options, rebuild  # noqa: E402 - the tests' golden weights, found by the line above

from negface.models import IDiffUNet, VQAutoencoder  # noqa: E402
from negface.pipelines import NegFaceDiffPipeline  # noqa: E402
from negface.sampling import guidance, schedulers  # noqa: E402
from negface.sampling.schedule import DEFAULT  # noqa: E402

RULE = guidance.constant(0.5)
RELEASED = (("released, DDPM-1000", "ddpm-1000", 1000), ("released, DDIM-200", "ddim-200", 200))
OURS = (("ours, DPM++ 20", "dpmpp-20", "dpmpp", 20, RULE),
        ("ours, DPM++ 20, interval", "dpmpp-20-interval", "dpmpp", 20, RULE.on(200, 700)),
        ("ours, DPM++ 20, reuse 2", "dpmpp-20-reuse2", "dpmpp", 20, RULE.reusing(2)),
        ("ours, UniPC 10", "unipc-10", "unipc", 10, RULE),
        ("ours, the default preset", f"{DEFAULT.scheduler}-{DEFAULT.steps}-reuse{DEFAULT.reuse}",
         DEFAULT.scheduler, DEFAULT.steps, RULE.reusing(DEFAULT.reuse)))
QUALITY = ("fdr", "eer", "diversity", "adherence")
STUDENT_STEPS = 4
Timer = Callable[[Sequence[Callable[[], object]]], list[float]]


def seconds(works: Sequence[Callable[[], object]], clock: Callable[[], float], device: str) -> list[float]:
    """The fastest of four calls of each, in turns, after one that is not counted."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(5):
        for work, mine in zip(works, taken, strict=True):
            start = clock()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            mine.append(clock() - start)
    return [min(mine[1:]) for mine in taken]


def unit(n: int, seed: int) -> torch.Tensor:
    """n unit vectors of length 512."""
    return torch.nn.functional.normalize(torch.randn(n, 512, generator=torch.Generator().manual_seed(seed)), dim=1)


@torch.inference_mode()
def released(pipe: NegFaceDiffPipeline, batch: int, time_of: Timer) -> dict[str, float]:
    """Seconds of a step (both passes, context work included) and of decoding, for a batch, in float32."""
    unet, device = pipe.unet, pipe.unet.device
    latents, wanted, negative = torch.randn(batch, 3, 32, 32).to(device), unit(batch, 0), unit(batch, 1)
    times = torch.full((batch,), 500, device=device)

    def step() -> None:
        for context in (wanted, negative):
            unet(latents, times, context.to(device))

    return dict(zip(("step", "decode"), time_of([step, lambda: pipe.decode(latents)]), strict=True))


def ours(pipe: NegFaceDiffPipeline, batch: int, time_of: Timer) -> dict[str, float]:
    """Seconds of a guided and a plain step, of what a call does once, and of decoding, for a batch, in bfloat16."""
    wanted, negative = unit(batch, 0), unit(batch, 1)

    def call(steps: int, rule: guidance.Guidance, output: str = "latent") -> Callable[[], object]:
        return lambda: pipe(wanted, negative, rule, steps, scheduler="ddim", dtype=torch.bfloat16,
                            output_type=output, progress=False)

    plain = guidance.none()
    one, five, plain_one, plain_five, drawn = time_of(
        [call(1, RULE), call(5, RULE), call(1, plain), call(5, plain), call(1, RULE, "uint8")])
    guided = (five - one) / 4
    return {"guided": guided, "plain": (plain_five - plain_one) / 4, "once": max(one - guided, 0.0),
            "decode": max(drawn - one, 0.0)}


def quality(setting: str) -> dict[str, str]:
    """FDR, EER, diversity and adherence of a setting on the shipped model; a dash where they were not measured."""
    path = ROOT / "results" / "frontier.csv"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")] if path.is_file() else []
    found = next((row for row in csv.DictReader(lines) if row["setting"] == setting), {})
    return {f"shipped_{name}": found.get(name) or "-" for name in QUALITY}


def table(theirs: dict[str, float], mine: dict[str, float], batch: int) -> list[dict[str, Any]]:
    """A row for each recipe; seconds and ratios of an image."""
    rows = [(name, setting, 2 * steps, (steps * theirs["step"] + theirs["decode"]) / batch)
            for name, setting, steps in RELEASED]
    for name, setting, scheduler, steps, rule in OURS:
        asked = [len(item) for item in rule.predicted(schedulers.make(scheduler).timesteps(steps))]
        spent = mine["once"] + asked.count(2) * mine["guided"] + asked.count(1) * mine["plain"] + mine["decode"]
        rows.append((name, setting, sum(asked), spent / batch))
    student = mine["once"] + STUDENT_STEPS * mine["plain"] + mine["decode"]
    rows.append(("student, 4 steps (arithmetic)", f"student-{STUDENT_STEPS}", STUDENT_STEPS, student / batch))
    times = {setting: spent for _, setting, _, spent in rows}
    return [{"recipe": name, "predictions": count, "seconds_an_image": spent, "images_per_second": 1 / spent,
             "times_ddim200": times["ddim-200"] / spent, "times_ddpm1000": times["ddpm-1000"] / spent,
             **quality(setting)} for name, setting, count, spent in rows]


def main() -> None:
    parser = network_options(__doc__, 8)
    parser.add_argument("--csv", help="write the table to this file, such as results/speed.csv")
    given = parser.parse_args()
    threads = torch.get_num_threads()
    clock = (lambda: time.process_time() / threads) if given.processor_time else time.perf_counter

    def time_of(works: Sequence[Callable[[], object]]) -> list[float]:
        return seconds(works, clock, given.device)

    unet, vae = rebuild(IDiffUNet(**options("unet_ca_full"))), rebuild(VQAutoencoder())
    pipe = NegFaceDiffPipeline(unet, vae).to(given.device)
    pipe.set_progress_bar_config(disable=True)
    theirs = released(pipe, given.batch, time_of)
    mine = ours(pipe, given.batch, time_of)
    rows = table(theirs, mine, given.batch)
    rows += scorer_rows(clock=time.process_time if given.processor_time else time.perf_counter)
    print(f"machine: {machine(given.device)}, {peak_rate(device=given.device) / 1e9:.0f} GFLOP/s fp32, "
          f"{peak_rate(torch.bfloat16, given.device) / 1e9:.0f} bf16\nwork: full-size networks, batch {given.batch}; "
          f"steps timed and multiplied\nseconds a batch, released: {theirs}\nseconds a batch, ours: {mine}")
    print_table(rows)
    if given.csv:
        write_csv(given.csv, rows, machine(given.device), f"{given.batch} images a batch; steps timed and multiplied; "
                  "shipped_: the same setting's quality on the shipped 64 px generator, from results/frontier.csv")
    if given.json:
        with open(given.json, "w") as handle:
            json.dump({"machine": machine(given.device), "batch": given.batch, "released": theirs, "ours": mine,
                       "rows": rows}, handle, indent=2)


if __name__ == "__main__":
    main()
