"""Identity loss on the one-step reconstruction: the denoiser must draw what a reader takes for the wanted context.

After ID3 (arXiv 2409.17576): inner product of the embedding of x0_hat with the context. The embedding is read from the
latent by a small network trained for it, so nothing is decoded; the judge has no part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from negface.foundation.hashing import sha256_json
from negface.foundation.noise import keyed_generator, keyed_normal
from negface.foundation.progress import Progress
from negface.foundation.tensors import read_metadata, read_tensors, write_tensors
from negface.models.latent_reader import LatentReader

from .latents import Latents
from .recipe import IdentityLoss

NOISE_SHARE = 0.4
CONTRAST_WEIGHT, CONTRAST_SCALE = 0.25, 16.0
WARMUP = 100


def latent_reader(
    data: Latents, recipe: IdentityLoss, seed: int, path: Path, say: Callable[[str], None]
) -> LatentReader:
    """A frozen reader of these latents; from ``path`` if it holds one of the same data and recipe, else trained.

    Loss: ``1 - cos`` to the context of the picture, plus a quarter of the batch's contrastive cross-entropy
    (arXiv 2103.00020, sec. 2.3), on latents with up to 40 % noise, shifted by up to a cell.
    """
    torch.manual_seed(seed)
    reader = LatentReader(data.latents.shape[2], data.latents.shape[3], data.contexts.shape[2])
    key = sha256_json({"latents": data.hash, "recipe": recipe.reader_recipe(), "seed": seed})
    if path.exists() and read_metadata(path).get("key") == key:
        tensors, _ = read_tensors(path)
        reader.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    else:
        agreement = _train(reader, data, recipe, seed)
        say(f"latent reader: cosine {agreement:.3f} on its last training batches")
        tensors = {name: value.detach().contiguous().numpy() for name, value in reader.state_dict().items()}
        write_tensors(path, tensors, {"key": key, "cosine": agreement})
    return reader.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _train(reader: LatentReader, data: Latents, recipe: IdentityLoss, seed: int) -> float:
    reader.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=recipe.reader_learning_rate, weight_decay=0.05, fused=True)
    agreements = []
    with Progress("latent reader", recipe.reader_steps, unit="steps") as bar:
        for step in range(recipe.reader_steps):
            rate = 0.5 * (1 + np.cos(np.pi * step / recipe.reader_steps)) + 0.01
            for group in optimizer.param_groups:
                group["lr"] = recipe.reader_learning_rate * min(1.0, (step + 1) / WARMUP) * rate
            latents, contexts = _batch(data, recipe.reader_batch, seed, step)
            with torch.autocast("cpu", torch.bfloat16):
                read = reader(latents)
            cosine = (read * contexts).sum(1).mean()
            contrast = F.cross_entropy(CONTRAST_SCALE * read @ contexts.T, torch.arange(len(read)))
            loss = 1 - cosine + CONTRAST_WEIGHT * contrast
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            agreements.append(float(cosine.detach()))
            bar.advance(note=f"cosine {agreements[-1]:.3f}")
    return float(np.mean(agreements[-50:]))


def _batch(data: Latents, batch: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    generator = keyed_generator("latent-reader", seed, step)
    rows, mirror = generator.integers(0, len(data.labels), batch), generator.integers(0, 2, batch)
    latents = data.latents[rows, mirror]
    noise = keyed_normal(latents.shape, "latent-reader-noise", seed, step)
    share = NOISE_SHARE * generator.random((batch, 1, 1, 1), dtype=np.float32)
    shifted = np.roll(latents + share * noise, tuple(generator.integers(-1, 2, 2)), (2, 3))
    return torch.from_numpy(np.ascontiguousarray(shifted)), torch.from_numpy(data.contexts[rows, mirror])


def identity_loss(reader: LatentReader, clean: Tensor, contexts: Tensor, signal: Tensor, counted: Tensor) -> Tensor:
    """Mean of ``signal · (1 − cos(reader(x0_hat), context))`` over the rows ``counted`` (bool ``[n]``).

    Args:
        clean: one-step reconstructions ``[n, c, h, w]``. contexts: ``[n, d]``. signal: roots of alpha-bar ``[n]``.
    """
    distance = 1 - (reader(clean) * contexts).sum(1)
    return (signal * distance * counted).sum() / counted.sum().clamp(min=1)
