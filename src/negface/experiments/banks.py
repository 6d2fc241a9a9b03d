"""The banks of a run: whom each kind of contexts draws, and the pool its negatives come from.

``authentic``: held-out people, with negatives from the people who trained; ``pca``: draws from the Gaussian fitted to
the people who trained; ``uniform``; ``two-stage``: embeddings of pictures sampled with the learned null.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from negface.contexts import ContextBank, sources
from negface.datasets import resize_rgb
from negface.foundation.progress import Progress
from negface.foundation.threads import torch_threads
from negface.generation.batches import TORCH_DTYPES
from negface.perception import Embeddings, Recognizer
from negface.pipelines import ImageNoise, NegFaceDiffPipeline
from negface.pipelines.images import to_uint8
from negface.sampling import guidance
from negface.sampling.loop import sample

from .eyes import of_people
from .people import Split
from .recipe import Sampling

TWO_STAGE_IDENTITY = "two-stage"


@dataclass(frozen=True)
class Contexts:
    """One kind of contexts with one seed: the bank, and where negatives come from (None: the bank itself)."""

    bank: ContextBank
    pool: ContextBank | None


def train_bank(embeddings: Embeddings, split: Split) -> ContextBank:
    """One context for each person who trained."""
    return _authentic(of_people(embeddings, split.train))


def make_contexts(kind: str, seed: int, recipe: Sampling, embeddings: Embeddings, split: Split,
                  seen_without_identity: Callable[[int], np.ndarray]) -> Contexts:
    """The contexts of a kind.

    Args:
        kind: ``authentic``, ``pca``, ``uniform`` or ``two-stage``.
        embeddings: all faces by the conditioner.
        seen_without_identity: ``seen_without_identity(seed)`` gives the conditioner's embeddings ``[bank, d]`` of
            pictures sampled with the learned null.
    """
    if kind == "authentic":
        held_out = _authentic(of_people(embeddings, split.test))
        return Contexts(_first(held_out, recipe.bank), _first(train_bank(embeddings, split), recipe.bank))
    if kind == "pca":
        return Contexts(sources.pca(train_bank(embeddings, split), recipe.bank, seed=seed), None)
    if kind == "uniform":
        return Contexts(sources.uniform(recipe.bank, embeddings.embeddings.shape[1], seed=seed), None)
    return Contexts(sources.two_stage(seen_without_identity(seed), conditioner=embeddings.recognizer, seed=seed), None)


def _authentic(embeddings: Embeddings) -> ContextBank:
    return sources.authentic(embeddings.embeddings, embeddings.labels, conditioner=embeddings.recognizer,
                             names=embeddings.identities, real_people=embeddings.describes_real_people)


def _first(bank: ContextBank, count: int) -> ContextBank:
    return bank if len(bank) <= count else bank.subset(slice(0, count))


def see_without_identity(model: Path, recognizer: Recognizer, recipe: Sampling, seed: int, *,
                         resize: bool) -> np.ndarray:
    """Embeddings ``[bank, d]`` of pictures sampled with the learned null (IDiff-Face's two-stage sampling).

    ``InputError`` if the model has no learned null.
    """
    pipe = NegFaceDiffPipeline.from_pretrained(model).to(recipe.device)
    seen = []
    with torch_threads(recipe.threads), Progress("sampling without identity", recipe.bank, unit="images") as bar:
        for start in range(0, recipe.bank, recipe.batch):
            images = _draw(pipe, recipe, seed, range(start, min(start + recipe.batch, recipe.bank)))
            sized = np.stack([resize_rgb(image, recipe.size) for image in images])
            seen.append(recognizer.embed(sized, resize=resize))
            bar.advance(len(images))
    return np.concatenate(seen)


def _draw(pipe: Any, recipe: Sampling, seed: int, rows: range) -> np.ndarray:
    unet, dtype = pipe.unet.eval(), TORCH_DTYPES[recipe.dtype]
    noise = ImageNoise([(seed, TWO_STAGE_IDENTITY, row) for row in rows],
                       (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size))
    with torch.no_grad(), torch.autocast(unet.device.type, dtype=dtype, enabled=dtype != torch.float32):
        null = unet.prepare_context("learned", len(rows))
        latents = sample(lambda x, t, _: {guidance.POSITIVE: unet(x, t, null).float()},
                         pipe.scheduler.build(recipe.scheduler), guidance.none(), noise.prior().to(unet.device),
                         recipe.steps, lambda t: noise(t).to(unet.device))
        return to_uint8(pipe.decode(latents))
