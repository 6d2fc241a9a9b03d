"""``negface train``: autoencoders and denoisers from a recipe and a folder of faces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, emit

app = typer.Typer(
    help="Train the generators from a recipe (TOML) and a folder of faces; resumes what is there.", no_args_is_help=True
)

Recipe = Annotated[Path, typer.Argument(help="Recipe, a TOML file.")]
Faces = Annotated[Path, typer.Option(help="Faces: identity folders or a dataset of NegFace.")]
Out = Annotated[
    Path, typer.Option(help="Folder for log, checkpoint, samples and model; resumed if it holds a checkpoint.")
]
People = Annotated[Path | None, typer.Option(help="Text file with one identity a line: train on these only.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Torch threads of this process.")]


def _identities(people: Path | None) -> list[str] | None:
    from negface.foundation.files import existing_file

    if people is None:
        return None
    return [line.strip() for line in existing_file(people).read_text().splitlines() if line.strip()]


def _set_threads(threads: int | None) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


def _report(name: str, result: dict, json: Path | None) -> None:
    """Once, also where ``torchrun`` runs this command in several processes."""
    if os.environ.get("RANK", "0") == "0":
        emit(result, json=json, text=_summary(name, result))


def _summary(name: str, result: dict) -> str:
    resumed = f", resumed at {result['resumed_at']}" if result["resumed_at"] else ""
    return (
        f"{name}: {result['steps']} steps on {result['n_images']} images of {result['n_identities']} people in "
        f"{result['seconds']:.0f} s{resumed}; model in {result['model']}"
    )


@app.command()
def autoencoder(
    recipe: Recipe, faces: Faces, out: Out, people: People = None, threads: Threads = None, json: JsonOption = None
) -> None:
    """Train a VQ autoencoder: L1 + multi-scale gradient + commitment, optional patch adversary.

    Example: negface train autoencoder autoencoder.toml --faces faces --out runs/autoencoder
    """
    from negface.training import train_autoencoder
    from negface.training.recipe import AutoencoderRecipe, load_recipe

    _set_threads(threads)
    result = train_autoencoder(load_recipe(AutoencoderRecipe, recipe), faces, out, identities=_identities(people))
    _report("autoencoder", result, json)


@app.command()
def diffusion(
    recipe: Recipe,
    faces: Faces,
    out: Out,
    embeddings: Annotated[Path, typer.Option(help="The conditioner's embeddings of the faces (`negface embed`).")],
    autoencoder: Annotated[Path, typer.Option(help="Folder of the trained autoencoder (its `model` folder).")],
    mirrored: Annotated[Path | None, typer.Option(help="The conditioner's embeddings of the mirrored faces.")] = None,
    people: People = None,
    threads: Threads = None,
    json: JsonOption = None,
) -> None:
    """Train an identity-conditioned denoiser on cached latents.

    Example: negface train diffusion recipe.toml --faces faces --embeddings e.npz --autoencoder ae/model --out diffusion
    """
    from negface.training import train_diffusion
    from negface.training.recipe import DiffusionRecipe, load_recipe

    _set_threads(threads)
    result = train_diffusion(
        load_recipe(DiffusionRecipe, recipe),
        faces,
        embeddings,
        out,
        autoencoder=autoencoder,
        mirrored=mirrored,
        identities=_identities(people),
    )
    _report("diffusion", result, json)
