"""Images a second of ``negface generate``, from an empty folder to the finished dataset, and of sampling alone.

    python benchmarks/generation.py                                # shipped generator, default preset, 1 and 2 workers
    python benchmarks/generation.py --model runs/distilled/model   # a student with its fast decoder
    python benchmarks/generation.py --decoder runs/distilled --csv results/generation.csv

People are invented contexts (uniform directions): time does not depend on them. ``sampling alone`` draws the same
batches in this process and throws them away, so what a single worker lacks to its rate is what encoding and writing
cost. Seconds hold everything, the start of workers included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, print_table, write_csv

from negface.contexts import ContextBank
from negface.experiments.assets import load
from negface.foundation.threads import torch_threads
from negface.generation import Plan, Tools, generate, make_inputs, make_plan
from negface.generation.batches import BatchSampler, load_pipeline
from negface.generation.inputs import Inputs
from negface.generation.planning import model_facts
from negface.sampling import guidance
from negface.sampling.distilled import Distilled
from negface.sampling.schedule import DEFAULT

FORMATS = ("folder", "shards")


def planned(options: argparse.Namespace, form: str) -> tuple[Plan, Inputs]:
    """The plan of the default preset, or of a distilled model's own."""
    facts = model_facts(options.model)
    bank = ContextBank.from_vectors(np.random.default_rng(0).normal(size=(options.identities, facts["dim"])),
                                    normalise=True)
    inputs = make_inputs(bank, "far")
    own = facts["schedulers"].build() if facts["schedulers"] is not None else None
    preset: dict[str, Any] = {"guidance": guidance.constant(0.5).reusing(DEFAULT.reuse), "scheduler": DEFAULT.scheduler,
                              "steps": DEFAULT.steps}
    if isinstance(own, Distilled):
        preset = {"guidance": guidance.constant(0.5), "scheduler": own.to_dict(), "steps": len(own.visits)}
    return make_plan(options.model, inputs, images=options.images, batch=options.batch, dtype=options.dtype, threads=1,
                     device=options.device, size=options.size, align="none" if options.size is None else "template",
                     format=form, decoder=options.decoder, **preset), inputs


def sampling_alone(plan: Plan, inputs: Inputs, decoder: str | None, model: str) -> float:
    """Seconds of the plan's batches, drawn and thrown away."""
    sampler = BatchSampler(plan, inputs, load_pipeline(model, plan, decoder))
    items = [(label, image) for label in range(len(plan.identities)) for image in range(plan.images)]
    batches = [items[at:at + plan.batch] for at in range(0, len(items), plan.batch)]
    with torch_threads(plan.threads):
        sampler(batches[0])
        start = time.perf_counter()
        for batch in batches:
            sampler(batch)
        return time.perf_counter() - start


def whole(plan: Plan, inputs: Inputs, decoder: str | None, model: str, workers: int) -> float:
    """Seconds of ``negface generate`` into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(plan, inputs, Path(folder) / "set", Tools(model=model, decoder=decoder), workers=workers)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(load("generator")), help="folder of a pipeline (default: shipped)")
    parser.add_argument("--decoder", help="a fast decoder of negface train distill")
    parser.add_argument("--identities", type=int, default=20)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--size", type=int, default=112, help="side of the pictures")
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--csv", help="write the rows to this file, such as results/generation.csv")
    options = parser.parse_args()
    plan, inputs = planned(options, "folder")
    n = options.identities * options.images
    alone = n / sampling_alone(plan, inputs, options.decoder, options.model)
    rows = [{"what": "sampling alone", "format": "", "workers": 1, "images": n, "images_per_second": alone}]
    for form in FORMATS:
        for workers in options.workers:
            rate = n / whole(*planned(options, form), options.decoder, options.model, workers)
            rows.append({"what": "negface generate", "format": form, "workers": workers, "images": n,
                         "images_per_second": rate, "of_sampling": rate / alone,
                         "hours_for_500000": 500_000 / rate / 3600})
    for row in rows:
        row["scheduler"], row["dtype"] = f"{plan.scheduler['name']}-{plan.steps}", options.dtype
    on = machine(options.device, 1)
    print(f"machine: {on}\nwork: {n} pictures of {options.size} px, batch {options.batch}, a thread a worker")
    print_table(rows)
    if options.csv:
        write_csv(options.csv, rows, on, f"{n} pictures of {options.size} px")
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": on, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
