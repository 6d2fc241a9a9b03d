"""``negface train``: autoencoders, denoisers and recognisers from a recipe and a folder of faces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, emit

app = typer.Typer(
    help="Train generators and recognisers from a recipe (TOML) and faces; resumes what is there.", no_args_is_help=True
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


@app.command()
def recognition(
    recipe: Recipe,
    faces: Faces,
    out: Out,
    name: Annotated[str, typer.Option(help="Name of the recogniser, for its declaration and reports.")] = "recognizer",
    people: People = None,
    development: Annotated[list[Path] | None, typer.Option(help="Pairs to validate on: a .bin or a pair list; repeat "
                           "for more. Chooses the weights, drops the rate, stops early.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="Text file with one identity a line: refuse to train on any of "
                        "these (the people of the tests to come).")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write the model as ONNX too, compared with torch.")] = False,
    track: Annotated[bool, typer.Option("--track", help="Write TensorBoard events (extra `track`).")] = False,
    threads: Threads = None,
    json: JsonOption = None,
) -> None:
    """Train a recogniser: a backbone and a margin head on labelled faces; also by torchrun.

    Example: negface train recognition student.toml --faces dataset --out runs/student --development dev.bin
    """
    from negface.training import train_recognition
    from negface.training.recipe import RecognitionRecipe, load_recipe

    _set_threads(threads)
    result = train_recognition(load_recipe(RecognitionRecipe, recipe), faces, out, name=name,
                               identities=_identities(people), development=development or (),
                               held_out=_identities(held_out) or (), onnx=onnx, track=track)
    if os.environ.get("RANK", "0") == "0":
        shown = f", {result['images_per_second']:g} images/s"
        if result["validation"] is not None:
            shown += f", validation accuracy {result['validation']:.4f}"
        if result["n_broken"]:
            shown += f", {result['n_broken']} unreadable pictures passed over"
        if result["onnx_difference"] is not None:
            shown += f", ONNX differs by {result['onnx_difference']:.1g}"
        emit(result, json=json, text=_summary("recognition", result) + shown)


@app.command()
def distill(
    recipe: Recipe,
    out: Out,
    model: Annotated[Path, typer.Option(help="Folder of the pipeline to distil (the teacher).")],
    contexts: Annotated[Path, typer.Option(help="Bank of the people to draw while learning, and of their negatives.")],
    threads: Threads = None,
    json: JsonOption = None,
) -> None:
    """Distil a pipeline: one guided prediction a step, four steps or fewer, and a fast decoder.

    Example: negface train distill distill.toml --model runs/diffusion/model --contexts bank.safetensors --out distilled
    """
    from negface.training import train_distill
    from negface.training.distill_recipe import DistillRecipe
    from negface.training.recipe import load_recipe

    _set_threads(threads)
    result = train_distill(load_recipe(DistillRecipe, recipe), model, contexts, out)
    if os.environ.get("RANK", "0") == "0":
        emit(result, json=json, text=_distilled(result))


def _distilled(result: dict) -> str:
    lines = [f"{result['runs']} runs of the teacher; model in {result['model']}"]
    if "student" in result:
        student = result["student"]
        lines.append(
            f"student: {len(student['timesteps'])} predictions at {student['timesteps']}, distance to the teacher "
            f"{student['student']:.4f} (its own scheduler at as many steps: {student['teacher_same_steps']:.4f})"
        )
    if "decoder" in result:
        lines.append(f"decoder: {result['decoder']['grey_levels']:.2f} grey levels from the full one")
    return "\n".join(lines)


@app.command()
def analyser(
    recipe: Recipe,
    population: Annotated[Path, typer.Option(metavar="DIR", help="Procedural people with their truth (`negface "
                                             "population make`).")],
    out: Out,
    threads: Threads = None,
    json: JsonOption = None,
) -> None:
    """Train an analyser on renders: pose, light, expression, age, skin tone, landmarks, parsing.

    Example: negface train analyser analyser.toml --population people --out runs/analyser
    """
    from negface.training.analyser import train_analyser
    from negface.training.recipe import AnalyserRecipe, load_recipe

    _set_threads(threads)
    _report("analyser", train_analyser(load_recipe(AnalyserRecipe, recipe), population, out), json)
