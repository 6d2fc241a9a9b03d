"""The two trainers as functions: a recipe and a folder of faces in, a model folder out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import SafetensorError

from negface import datasets
from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import ensure_folder, existing_folder, write_json
from negface.foundation.hashing import sha256_file
from negface.models import VQAutoencoder
from negface.perception import Embeddings

from .autoencoder import AutoencoderTask
from .diffusion import DiffusionTask
from .identity import latent_reader
from .latents import cache_latents, load_faces
from .loop import run
from .recipe import AutoencoderRecipe, DiffusionRecipe, Optimisation

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"


def make_accelerator(recipe: Optimisation) -> Accelerator:
    """Process group, device and precision; CPU unless a GPU is there (``torchrun`` sets the rest)."""
    precision = "bf16" if recipe.precision == "bf16" else "no"
    # accelerate keeps one precision per process; a second training may want another. The process group stays.
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
    if recipe.batch % accelerator.num_processes:
        raise InputError(
            f"train.batch {recipe.batch} cannot be shared equally by {accelerator.num_processes} processes",
            fix="make it a multiple of the number of processes",
        )
    return accelerator


def train_autoencoder(
    recipe: AutoencoderRecipe,
    faces: str | os.PathLike | datasets.FaceDataset,
    out: str | os.PathLike,
    *,
    identities: Sequence[str] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a VQ autoencoder on pictures, resuming what ``out`` holds.

    Args:
        recipe: validated recipe.
        faces: dataset of face pictures (any size; resized to the recipe's).
        out: folder for log, checkpoint, sample sheets and ``model/`` (a ``VQAutoencoder`` folder).
        identities: the people to train on; all if ``None``.
        say: where status lines go.

    Returns:
        ``{"steps", "seconds", "resumed_at", "loss", "model", "n_images", "n_identities"}``.

    Raises:
        InputError: nothing to train on. MismatchError: ``out`` is of another recipe. TrainingError: loss not finite.
    """
    out = ensure_folder(out)
    accelerator = make_accelerator(recipe.train)
    data = load_faces(faces, recipe.model.image_size, identities)
    identity = {"recipe": recipe.model_dump(mode="json"), "faces": data.hash}
    result = run(
        AutoencoderTask(recipe, data.images, accelerator), recipe.train, out, accelerator, identity=identity, say=say
    )
    return _finish(result, out, identity, data, accelerator)


def train_diffusion(
    recipe: DiffusionRecipe,
    faces: str | os.PathLike | datasets.FaceDataset,
    embeddings: str | os.PathLike | Embeddings,
    out: str | os.PathLike,
    *,
    autoencoder: str | os.PathLike,
    mirrored: str | os.PathLike | Embeddings | None = None,
    identities: Sequence[str] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train an identity-conditioned denoiser on cached latents, resuming what ``out`` holds.

    Args:
        recipe: validated recipe.
        faces: dataset of face pictures.
        embeddings: the conditioner's embedding of every picture of the dataset.
        out: folder for log, checkpoint, sample sheets and ``model/`` (a complete ``NegFaceDiffPipeline`` folder).
        autoencoder: folder of a trained ``VQAutoencoder``.
        mirrored: the conditioner's embeddings of the mirror images.
        identities: the people to train on; all if ``None``.
        say: where status lines go.

    Returns:
        As ``train_autoencoder``.
    """
    out = ensure_folder(out)
    accelerator = make_accelerator(recipe.train)
    model, weights_hash = load_autoencoder(autoencoder)
    model = model.to(accelerator.device)
    data = load_faces(faces, model.config.image_size, identities)
    with accelerator.main_process_first():
        latents = cache_latents(data, model, weights_hash, embeddings, mirrored, out / "latents.safetensors")
    identity = {"recipe": recipe.model_dump(mode="json"), "latents": latents.hash}
    reader = None
    if recipe.identity is not None:
        with accelerator.main_process_first():
            reader = latent_reader(latents, recipe.identity, recipe.train.seed, out / "reader.safetensors", say)
    task = DiffusionTask(recipe, latents, model, accelerator, reader)
    result = run(task, recipe.train, out, accelerator, identity=identity, say=say)
    return _finish(
        result, out, identity | {"autoencoder": weights_hash, "conditioner": latents.conditioner}, data, accelerator
    )


def load_autoencoder(folder: str | os.PathLike) -> tuple[VQAutoencoder, str]:
    """A frozen autoencoder and the hash of its weights; ``FormatError`` if the folder is not a complete one."""
    folder = existing_folder(Path(folder), "autoencoder folder")
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise InputError(
            f"holds no {WEIGHTS_NAME}", where=folder, fix="give the `model` folder of `negface train autoencoder`"
        )
    try:
        model = VQAutoencoder.from_pretrained(folder).eval().requires_grad_(False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise FormatError(
            f"not a complete autoencoder ({error})", where=folder, fix="train or copy it again"
        ) from error
    return model, sha256_file(weights)


def _finish(
    result: dict[str, Any], out: Path, identity: dict[str, Any], data: Any, accelerator: Accelerator
) -> dict[str, Any]:
    result |= {"n_images": len(data.images), "n_identities": len(data.identities)}
    if accelerator.is_main_process:
        write_json(out / "training.json", {**result, "made_from": identity, "identities": list(data.identities)})
    accelerator.wait_for_everyone()
    return result
