"""How much of a portrait each trait changes: the weights of ``negface.population.likeness``.

    python benchmarks/population_likeness.py --people 4 --json weights.json        # minutes; prints the table

Each trait of some people is moved by half a deviation of the population either way, all else neutral: beards of men,
pigments of light-skinned people, all else of the first people as they come. Two changes are measured, each divided by
the step taken and by the mean over traits, and their mean is the weight: that of the pixels, in which colours count
most, and that of the edges (differences of neighbouring grey levels, the picture brought to unit contrast), in which
shapes do.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from measuring import machine

from negface.population import TRAITS, People, neutral_shots, render, sample_people
from negface.population.likeness import SHOWN_BY

FULLY_SHOWN = 0.3
"""Below this much of the trait that hides it, a trait is taken to show."""


def models(pool: People, name: str, n: int) -> People:
    """The first ``n`` of the pool in whom the trait shows."""
    hidden = pool.trait(SHOWN_BY[name]) >= FULLY_SHOWN if name in SHOWN_BY else np.zeros(len(pool), bool)
    return pool.take(np.flatnonzero(~hidden)[:n])


def portraits(values: np.ndarray, size: int) -> np.ndarray:
    """Neutral portraits, float32 ``[n, size, size, 3]``."""
    names = tuple(str(row) for row in range(len(values)))
    return render(People(values, names), neutral_shots(["neutral"] * len(values)), size).images.astype(np.float32)


def edges(images: np.ndarray) -> np.ndarray:
    """Differences to the right and downwards of grey pictures at unit contrast."""
    grey = images.mean(-1)
    grey = (grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True)
    return np.stack([np.diff(grey, axis=1)[:, :, :-1], np.diff(grey, axis=2)[:, :-1]], -1)


def change(people: People, place: int, deviation: float, size: int) -> tuple[float, float]:
    """Mean change of pixels and of edges for one unit of the trait at ``place``."""
    trait, low, high = TRAITS[place], people.values.copy(), people.values.copy()
    low[:, place] = np.clip(low[:, place] - deviation / 2, trait.low, trait.high)
    high[:, place] = np.clip(high[:, place] + deviation / 2, trait.low, trait.high)
    step, (a, b) = (high - low)[:, place], (portraits(values, size) for values in (low, high))
    return tuple(float((np.abs(x - y).mean((1, 2, 3)) / step).mean()) for x, y in ((a, b), (edges(a), edges(b))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--json", help="write the weights to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, pool = time.perf_counter(), sample_people(20 * options.people, seed=options.seed)
    deviations = sample_people(2000, seed=options.seed + 1).values.std(0)
    found = np.array([change(models(pool, trait.name, options.people), place, float(deviations[place]), options.size)
                      for place, trait in enumerate(TRAITS)])
    found = (found / (found * deviations[:, None]).mean(0)).mean(1)
    weights = {trait.name: round(float(value), 2) for trait, value in zip(TRAITS, found)}
    for name in sorted(weights, key=weights.__getitem__, reverse=True):
        print(f"{name:>24}: {weights[name]:.2f}")
    print(f"{2 * options.people * len(TRAITS)} pictures in {time.perf_counter() - started:.0f} s on {machine()}")
    if options.json:
        with open(options.json, "w") as handle:
            json.dump(weights, handle, indent=2)


if __name__ == "__main__":
    main()
