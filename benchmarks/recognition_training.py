"""Speed of recognition training: our loop against a plain fp32 eager loop of the same network, batch and pictures.

    python benchmarks/recognition_training.py                                   # recipes/recognition-student64.toml
    python benchmarks/recognition_training.py --recipe recipes/experiment-population.toml        # its student
    python benchmarks/recognition_training.py --recipe recipes/recognition-arcface.toml --batch 32 --json result.json

Both take steps in turn on the same decoded pictures: mirror, normalise, forward, backward, clip, the recipe's kind of
update (SGD or AdamW). Ours is the step of `negface train recognition` (bf16 autocast, channels last, fused update); the
plain loop is what one writes first. The ratio is of the best times. The forward pass is counted by torch on the meta
device, a step is taken as three of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import best_seconds, machine, peak_rate, print_table
from torch.utils.flop_counter import FlopCounterMode

from negface import datasets
from negface.experiments.grid import load_experiment
from negface.perception import Declaration
from negface.training.loop import KeyedOrder
from negface.training.recipe import RecognitionRecipe, load_recipe, read_toml
from negface.training.recognition import RecognitionTask, make_backbone
from negface.training.recognition_course import resolved
from negface.training.recognition_data import Pictures
from negface.training.trainers import make_accelerator

RECIPE = Path(__file__).parents[1] / "recipes" / "recognition-student64.toml"


def recognition_recipe(path: Path) -> RecognitionRecipe:
    """A recipe of ``negface train recognition``, or the student of an experiment's recipe."""
    if "student" in read_toml(path):
        return load_experiment(path).student.recipe
    return load_recipe(RecognitionRecipe, path)


def noise_folder(root: Path, people: int, shots: int, size: int) -> Path:
    """Identity folders of random pictures: the arithmetic does not know the difference."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for person in range(people):
        folder = root / f"{person:04d}"
        folder.mkdir(parents=True)
        for shot in range(shots):
            Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{shot:02d}.png")
    return root


def ours(recipe: RecognitionRecipe, pictures: Pictures, steps: int, out: Path) -> Callable[[], None]:
    """``steps`` steps of the trainer."""
    train = resolved(recipe, len(pictures))
    order, declaration = KeyedOrder(len(pictures), train.batch, train.seed), Declaration(name="benchmark")
    task = RecognitionTask(recipe, train, pictures, order, make_accelerator(train), declaration, out)

    def work() -> None:
        for step in range(steps):
            task.step(step, order.rows(step), 1e-3)

    return work


def plain(recipe: RecognitionRecipe, pictures: Pictures, steps: int) -> Callable[[], None]:
    """``steps`` steps as one writes them first: fp32, the default layout, torch's default form of the update."""
    from negface.training.heads import make_head

    device, batch = "cuda" if torch.cuda.is_available() else "cpu", recipe.train.batch
    backbone = make_backbone(recipe).to(device).train()
    head = make_head(recipe.head.name, len(pictures.names), recipe.model.dim, **recipe.head.options).to(device)
    parameters = [*backbone.parameters(), *head.parameters()]
    options = {"lr": 1e-3, "weight_decay": recipe.train.weight_decay}
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(parameters, betas=recipe.train.betas, **options)
    else:
        optimizer = torch.optim.SGD(parameters, momentum=recipe.momentum, **options)
    order = KeyedOrder(len(pictures), batch, recipe.train.seed)

    def work() -> None:
        for step in range(steps):
            images, labels = pictures.batch(order.rows(step))
            tensor = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
            flips = torch.rand(batch, device=device) < 0.5
            tensor[flips] = tensor[flips].flip(3)
            loss = head.loss(backbone(tensor), torch.from_numpy(labels).to(device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, recipe.train.clip)
            optimizer.step()

    return work


def forward_flop(recipe: RecognitionRecipe) -> int:
    """Operations of one forward pass of a batch."""
    side = recipe.model.image_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        make_backbone(recipe)(torch.zeros(recipe.train.batch, 3, side, side))
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="of a recognition training or of an experiment")
    parser.add_argument("--batch", type=int, help="in place of the recipe's")
    parser.add_argument("--steps", type=int, default=4, help="steps a timing")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each; the best counts")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    recipe = recognition_recipe(options.recipe)
    batch = options.batch or recipe.train.batch
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch": batch})})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"machine: {machine(device)}\nwork: {options.steps} steps of {batch} pictures, {options.recipe.name}, "
          f"{recipe.optimizer}")
    with tempfile.TemporaryDirectory() as folder:
        faces = noise_folder(Path(folder) / "faces", 64, 8, recipe.model.image_size)
        pictures = Pictures(datasets.open(faces), np.arange(512), recipe.model.image_size, recipe.data)
        pictures.batch(np.arange(512))
        loops = {"plain fp32 eager": plain(recipe, pictures, options.steps),
                 f"ours, {recipe.train.precision}": ours(recipe, pictures, options.steps, Path(folder))}
        best = dict.fromkeys(loops, float("inf"))
        for _ in range(options.repeats):
            for name, work in loops.items():
                best[name] = min(best[name], best_seconds(work, device, repeats=1) / options.steps)
        pictures.close()
    flop, peak = 3 * forward_flop(recipe), peak_rate(torch.float32, device)
    rows = [{"loop": name, "images_per_second": batch / seconds, "tflop_per_step": flop / 1e12,
             "peak_fp32_gflops": peak / 1e9, "share_of_fp32_peak": flop / seconds / peak}
            for name, seconds in best.items()]
    print_table(rows)
    slow, fast = best.values()
    print(f"ratio: {slow / fast:.2f}")
    if options.json:
        with open(options.json, "w") as handle:
            json.dump({"machine": machine(device), "recipe": options.recipe.name,
                       "optimizer": recipe.optimizer, "rows": rows, "ratio": slow / fast},
                      handle, indent=2)


if __name__ == "__main__":
    main()
