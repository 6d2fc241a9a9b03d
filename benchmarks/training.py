"""Speed of training steps of a recipe: steps and images a second, and the share of the measured peak.

    python benchmarks/training.py                                    # recipes/real-lfw64.toml, its own batch sizes
    python benchmarks/training.py --recipe recipes/real-lfw64-gpu.toml --steps 20 --json result.json

Real steps of the real trainers (forward, backward, clipping, optimiser, weight average) on random pictures and latents.
The forward pass is counted by torch on the meta device; a step is taken as three of them. The peak is the best square
matrix product in the precision of the recipe, in the same run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from denoiser import DTYPES, forward_flop
from measuring import best_seconds, machine, peak_rate, print_table
from torch.utils.flop_counter import FlopCounterMode

from negface.models import VQAutoencoder
from negface.training.autoencoder import AutoencoderTask
from negface.training.diffusion import DiffusionTask
from negface.training.latents import Latents
from negface.training.loop import KeyedOrder, Task, learning_rate
from negface.training.recipe import AutoencoderRecipe, DiffusionRecipe, parse_recipe, read_toml
from negface.training.trainers import make_accelerator

RECIPE = Path(__file__).parents[1] / "recipes" / "real-lfw64.toml"
N_IMAGES, DIM = 256, 512


def autoencoder_task(recipe: AutoencoderRecipe) -> tuple[Task, int]:
    """The task on random pictures, and the operations of one forward pass of a batch."""
    side = recipe.model.image_size
    images = np.random.default_rng(0).integers(0, 256, (N_IMAGES, side, side, 3), dtype=np.uint8)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = VQAutoencoder(**recipe.model.model_dump())
        model.decode(model.encode(torch.zeros(recipe.train.batch, 3, side, side)))
    return AutoencoderTask(recipe, images, make_accelerator(recipe.train)), counter.get_total_flops()


def diffusion_task(recipe: DiffusionRecipe, latent: tuple[int, int, int]) -> tuple[Task, int]:
    """The task on random latents, and the operations of one forward pass of a batch."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((N_IMAGES, 2, *latent), dtype=np.float32)
    contexts = rng.standard_normal((N_IMAGES, 2, DIM), dtype=np.float32)
    contexts /= np.linalg.norm(contexts, axis=2, keepdims=True)
    data = Latents(latents, contexts, np.arange(N_IMAGES), None, "random")
    shape = {"in_channels": latent[0], "sample_size": latent[1], "context_input": DIM}
    flop = forward_flop({**shape, **recipe.model.model_dump()}, recipe.train.batch)
    return DiffusionTask(recipe, data, None, make_accelerator(recipe.train)), flop


def measure(task: Task, flop: int, steps: int) -> dict:
    """The rate of ``steps`` steps, after one that is not counted."""
    train = task.recipe.train
    order = KeyedOrder(task.n_items, train.batch, train.seed)

    def work() -> None:
        for step in range(steps):
            task.step(step, order.rows(step), learning_rate(train, step))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    task.step(0, order.rows(0), learning_rate(train, 0))
    seconds = best_seconds(work, device, repeats=1) / steps
    peak = peak_rate(DTYPES[train.precision], device)
    parameters = sum(value.numel() for value in task.modules()["weights"].parameters())
    return {"training": task.name, "parameters": parameters, "batch": train.batch, "precision": train.precision,
            "steps_per_second": 1 / seconds, "images_per_second": train.batch / seconds,
            "tflop_per_step": 3 * flop / 1e12, "peak_gflops": peak / 1e9, "share_of_peak": 3 * flop / seconds / peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="a recipe of `negface run`")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    table = read_toml(options.recipe)
    autoencoder = parse_recipe(AutoencoderRecipe, table["autoencoder"], options.recipe)
    diffusion = parse_recipe(DiffusionRecipe, table["diffusion"], options.recipe)
    with torch.device("meta"):
        latent = VQAutoencoder(**autoencoder.model.model_dump()).latent_shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"machine: {machine(device)}\nwork: {options.steps} steps of each training of {options.recipe.name}")
    rows = [measure(*autoencoder_task(autoencoder), options.steps)]
    rows.append(measure(*diffusion_task(diffusion, latent), options.steps))
    print_table(rows)
    if options.json:
        with open(options.json, "w") as handle:
            json.dump({"machine": machine(device), "recipe": options.recipe.name, "rows": rows}, handle, indent=2)


if __name__ == "__main__":
    main()
