"""The generator of a run: trained on the ``train`` people only, or given; and the facts the tables carry about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from negface.foundation.errors import InputError
from negface.foundation.files import read_json
from negface.foundation.hashing import sha256_json
from negface.generation import model_hash

from .people import Split, training_record
from .recipe import RunRecipe
from .steps import Journal


def fit(recipe: RunRecipe, journal: Journal, faces: Path, embeddings: Mapping[str, Path], split: Split, *,
        content: Mapping[str, str], autoencoder: Path | None, say: Callable[[str], None]) -> Path:
    """Train what is missing; returns the model folder.

    Args:
        embeddings: files of the faces' embeddings, ``conditioner`` and ``conditioner-mirrored``.
        content: hashes of ``faces`` and ``conditioner``.
        autoencoder: a trained one; None trains it.

    Folders carry the hash of their inputs in their names, so another recipe or other people train beside, and never
    over, what hours were spent on. ``InputError`` where the recipe has no section to train from.
    """
    from negface.training import train_autoencoder, train_diffusion

    if recipe.diffusion is None or (recipe.autoencoder is None and autoencoder is None):
        raise InputError("has nothing to train from: the sections autoencoder and diffusion are needed", where="recipe",
                         fix="add them, or give a trained model (--model)")
    shared = {"faces": content["faces"], "train": sha256_json(list(split.train))}
    if autoencoder is None:
        wanted = {**shared, "recipe": recipe.autoencoder.model_dump(mode="json")}
        folder = _folder(journal, "autoencoder", wanted)
        autoencoder = folder / "model"
        journal.step(f"training/{folder.name}", wanted, lambda: _plain(
            train_autoencoder(recipe.autoencoder, faces, folder, identities=split.train, say=say)), [autoencoder])
    wanted = {**shared, "recipe": recipe.diffusion.model_dump(mode="json"), "autoencoder": model_hash(autoencoder),
              "conditioner": content["conditioner"]}
    target = _folder(journal, "diffusion", wanted)
    journal.step(f"training/{target.name}", wanted, lambda: _plain(
        train_diffusion(recipe.diffusion, faces, embeddings["conditioner"], target, autoencoder=autoencoder,
                        mirrored=embeddings["conditioner-mirrored"], identities=split.train, say=say)),
        [target / "model"])
    return target / "model"


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    """A trainer's result without the folder, which may move."""
    return {key: value for key, value in result.items() if key != "model"}


def _folder(journal: Journal, name: str, inputs: dict[str, Any]) -> Path:
    return journal.root / "training" / f"{name}-{sha256_json(inputs)[:10]}"


def model_facts(model: Path) -> dict[str, Any]:
    """Name, hash, sizes and parameter counts of a saved pipeline, from its configuration and headers alone."""
    from safetensors import safe_open

    def parameters(folder: Path) -> int:
        count = 0
        for file in folder.glob("*.safetensors"):
            with safe_open(file, framework="np") as handle:
                for key in handle.keys():  # noqa: SIM118 - a handle is no mapping
                    size = 1
                    for side in handle.get_slice(key).get_shape():
                        size *= side
                    count += size
        return count

    unet = read_json(model / "unet" / "config.json")
    vae = read_json(model / "vae" / "config.json") if (model / "vae").is_dir() else {}
    return {"hash": model_hash(model), "denoiser_parameters": parameters(model / "unet"),
            "autoencoder_parameters": parameters(model / "vae") if vae else 0, "image_size": vae.get("image_size"),
            "latents": [unet["in_channels"], unet["sample_size"], unet["sample_size"]],
            "context_length": unet["context_input"], "condition_type": unet.get("condition_type"),
            "conditioner": unet.get("conditioner"), "learned_null": unet.get("learned_null"),
            "training": {key: value for key, value in training_record(model).items()
                         if key in ("steps", "seconds", "n_images", "n_identities")}}
