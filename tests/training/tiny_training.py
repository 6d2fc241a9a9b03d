"""Tiny real trainings: 16-pixel pictures, 8×8 latents, a few steps."""

import csv
import json

import numpy as np
import torch

from negface.models import VQAutoencoder
from negface.perception import Embeddings
from negface.training.latents import Latents
from negface.training.recipe import AutoencoderRecipe, DiffusionRecipe
from negface.training.trainers import make_accelerator

DIM = 16
TRAIN = {"steps": 6, "batch": 4, "warmup": 2, "learning_rate": 1e-3, "precision": "fp32", "log_every": 1,
         "checkpoint_every": 3, "sample_every": 1000}
VAE = {"image_size": 16, "channels": 32, "multipliers": (1, 2), "blocks": 1, "codebook_size": 16, "patch": 2}
UNET = {"initial_channels": 32, "channel_multipliers": (1, 2), "is_attention": (False, True),
        "blocks_per_resolution": 1, "context_channels": 32}


def autoencoder_recipe(train=None, **options):
    return AutoencoderRecipe(model={**VAE, **options.pop("model", {})}, train={**TRAIN, **(train or {})}, **options)


def diffusion_recipe(train=None, **options):
    return DiffusionRecipe(model={**UNET, **options.pop("model", {})}, train={**TRAIN, **(train or {})}, **options)


def accelerator(precision="fp32"):
    return make_accelerator(autoencoder_recipe({"precision": precision}).train)


def unit(n, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embeddings(n_identities=3, n_images=2, seed=0):
    """Of a ``face_folder`` of that size."""
    labels = np.repeat(np.arange(n_identities), n_images)
    return Embeddings(unit(len(labels), seed), labels, provenance={"recognizer": {"name": "tiny", "hash": "c" * 64}})


def latents(n_identities=3, n_images=2, seed=0):
    """Cached data without an autoencoder: latents ``[n, 2, 3, 4, 4]``."""
    n = n_identities * n_images
    values = np.random.default_rng(seed).standard_normal((n, 2, 3, 4, 4)).astype(np.float32)
    contexts = np.stack([unit(n, 1), unit(n, 2)], axis=1)
    labels = np.repeat(np.arange(n_identities), n_images)
    return Latents(values, contexts, labels, {"name": "tiny", "hash": "c" * 64}, "k")


def vae_folder(path, **options):
    """A saved autoencoder that nobody trained."""
    torch.manual_seed(0)
    VQAutoencoder(**{**VAE, "scaling_factor": 0.5, **options}).save_pretrained(path)
    return path


def log_rows(out, *, timed=False):
    """Rows of ``log.csv`` as text, without the clock."""
    with open(out / "log.csv", newline="") as handle:
        return [{k: v for k, v in row.items() if timed or k != "seconds"} for row in csv.DictReader(handle)]


def toml(table):
    """A recipe as TOML text."""
    def value(item):
        return "{" + ", ".join(f"{k} = {value(v)}" for k, v in item.items()) + "}" if isinstance(item, dict) else (
            json.dumps(item))
    return "".join(f"{key} = {value(item)}\n" for key, item in table.items())
