"""What of a negative prediction to keep for k steps: the direction, as the library does, or the bare prediction.

    python benchmarks/reuse.py                                       # 32 people, about a minute of one core
    python benchmarks/reuse.py --people 8 --json result.json

Shipped generator, float32, far negatives, w = 0.5; contexts of people whom no shipped model saw. The error of a rule is
the distance of its final latents to those of the full rule (both predictions at every step), over the distance that
guidance makes at all (the full rule against w = 0): means over people, intervals by a bootstrap over them.
``guidance.constant(w).reusing(k)`` keeps e_pos - e_neg; the loop here keeps e_neg, all else being the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from measuring import machine, print_table

from negface.contexts import ContextBank, sources
from negface.contexts.negatives import select
from negface.experiments.assets import load
from negface.experiments.eyes import of_people
from negface.experiments.people import read_split
from negface.models import IDiffUNet, PreparedContext
from negface.perception import read_embeddings
from negface.pipelines import NegFaceDiffPipeline
from negface.pipelines.noise import ImageNoise
from negface.sampling import guidance
from negface.sampling.guidance import NEGATIVE, POSITIVE, Guidance
from negface.sampling.loop import Predict, sample
from negface.sampling.schedulers import Scheduler

SOLVERS = (("dpmpp", 20), ("unipc", 8))
KEPT_FOR = (2, 3)


def unseen_people() -> ContextBank:
    """Contexts of the people whom no shipped model saw."""
    found = read_embeddings(load("embeddings-conditioner"))
    found = of_people(found, read_split(load("people"), found.identities).test)
    return sources.authentic(found.embeddings, found.labels, conditioner=found.recognizer, names=found.identities,
                             real_people=found.describes_real_people)


def predictor(unet: IDiffUNet, wanted: np.ndarray, negative: np.ndarray) -> Predict:
    """Predictions of the branches asked for, in one batch; contexts ``[n, d]`` and times are prepared once."""
    times = unet.prepare_times(range(guidance.T))
    parts = {POSITIVE: unet.prepare_context(torch.from_numpy(wanted)),
             NEGATIVE: unet.prepare_context(torch.from_numpy(negative))}

    def predict(latents: torch.Tensor, t: int, branches: tuple[str, ...]) -> dict[str, torch.Tensor]:
        contexts = PreparedContext.cat([parts[branch] for branch in branches])
        predicted = unet(latents, times.at(t), contexts, branches=len(branches))
        return dict(zip(branches, predicted.chunk(len(branches)), strict=True))

    return predict


def negative_kept(predict: Predict, scheduler: Scheduler, rule: Guidance, k: int, latents: torch.Tensor,
                  steps: int) -> torch.Tensor:
    """Final latents where the negative prediction of every k-th step stands for those of the steps after it.

    ``rule`` guides at every step.
    """
    solver, kept = scheduler.start(steps), latents
    for index, t in enumerate(solver.timesteps):
        found = predict(latents, t, (POSITIVE, NEGATIVE) if index % k == 0 else (POSITIVE,))
        kept = found.get(NEGATIVE, kept)
        latents = solver.step(index, rule.mix({POSITIVE: found[POSITIVE], NEGATIVE: kept}, t), latents)
    return latents


def distances(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    """Euclidean distance of each person's latents, ``[n]``."""
    return (left - right).flatten(1).norm(dim=1).double().numpy()


def share(errors: np.ndarray, made: np.ndarray, replicates: int = 1000) -> dict[str, float]:
    """Mean error over the mean distance that guidance makes, with a 95 % bootstrap interval over people."""
    rows = np.random.default_rng(0).integers(0, len(made), (replicates, len(made)))
    low, high = np.percentile(errors[rows].mean(1) / made[rows].mean(1), [2.5, 97.5])
    return {"error": errors.mean() / made.mean(), "low": low, "high": high}


def compare(predict: Predict, scheduler: Scheduler, rule: Guidance, latents: torch.Tensor, steps: int,
            kept_for: Sequence[int] = KEPT_FOR) -> list[dict[str, Any]]:
    """A row for each k and each of the two things kept."""
    full = sample(predict, scheduler, rule, latents, steps)
    made = distances(full, sample(predict, scheduler, guidance.none(), latents, steps))
    rows = []
    for k in kept_for:
        ends = {"direction": sample(predict, scheduler, rule.reusing(k), latents, steps),
                "negative prediction": negative_kept(predict, scheduler, rule, k, latents, steps)}
        rows += [{"kept": name, "k": k, **share(distances(end, full), made)} for name, end in ends.items()]
    return rows


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=32)
    parser.add_argument("--weight", type=float, default=0.5)
    parser.add_argument("--json", help="write the figures to this file")
    given = parser.parse_args()
    pipe = NegFaceDiffPipeline.from_pretrained(load("generator"))
    unet, pool = pipe.unet.eval().to(memory_format=torch.channels_last), unseen_people()
    bank = pool.subset(slice(0, given.people))
    predict = predictor(unet, bank.contexts, select(bank, "far", pool=pool).negatives)
    config = unet.config
    latents = ImageNoise(range(len(bank)), (config.in_channels, config.sample_size, config.sample_size)).prior()
    rule, began, rows = guidance.constant(given.weight), time.process_time(), []
    for name, steps in SOLVERS:
        found = compare(predict, pipe.scheduler.build(name), rule, latents, steps)
        rows += [{"scheduler": f"{name}-{steps}", **row} for row in found]
    print(f"machine: {machine()}\nwork: {len(bank)} people, far negatives of {len(pool)}, {rule}; "
          f"{time.process_time() - began:.0f} s of the processor")
    print_table(rows)
    if given.json:
        with open(given.json, "w") as handle:
            json.dump({"machine": machine(), "people": len(bank), "rule": str(rule), "rows": rows}, handle, indent=2)


if __name__ == "__main__":
    main()
