"""The run recipes of the repository, to the end, with nothing but their sizes and counts made small."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import SIZE

from negface.experiments import run
from negface.experiments.recipe import load_run_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("real-*.toml"))
FEW = {"batch": 4, "warmup": 1, "checkpoint_every": 2, "sample_every": 1000}
KINDS = ("baseline", "null-learned", "adaptive-far")


def smaller(section, **changes):
    return section.model_copy(update=changes)


def smoke(recipe):
    """Two or three steps of every training; one seed of all contexts, three of the strategies with one weight."""
    autoencoder, diffusion = recipe.autoencoder, recipe.diffusion
    return smaller(
        recipe,
        autoencoder=smaller(
            autoencoder, train=smaller(autoencoder.train, steps=2, **FEW),
            model=smaller(autoencoder.model, image_size=SIZE, channels=32, codebook_size=16)),
        diffusion=smaller(
            diffusion, train=smaller(diffusion.train, steps=3, **FEW),
            model=smaller(diffusion.model, initial_channels=32, context_channels=32),
            identity=smaller(diffusion.identity, start=1, reader_steps=2, reader_batch=4)),
        contexts={kind: seeds[:1] for kind, seeds in recipe.contexts.items()},
        strategies={name: recipe.strategies[name][:1] for name in KINDS},
        sampling=smaller(recipe.sampling, bank=6, identities=3, images=2, steps=2, batch=6, size=SIZE, device="cpu"),
        measuring=smaller(recipe.measuring, bootstrap=20, shown_people=2, shown_images=2))


@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem, marks=[] if path.stem == "real-lfw64" else [pytest.mark.slow])
    for path in RECIPES])
def test_every_run_recipe_in_the_repository_runs_in_a_smoke_form(path, setup):
    recipe = smoke(load_run_recipe(path))
    summary = run(recipe, setup())
    cells = [(kind, name) for kind in recipe.contexts for name in recipe.strategies]
    assert [(row["contexts"], row["strategy"]) for row in summary["table"]] == cells
    assert all(row["fdr"] is not None for row in summary["table"])
