"""Training of the identity-conditioned denoiser on cached latents (IDiff-Face, arXiv 2308.04995, sec. 3.2).

Published recipe: ε-prediction, plain mean squared error, CPD 25 %. Options: velocity prediction (arXiv 2202.00512),
min-SNR weighting (arXiv 2303.09556), whole-context dropout to a learned null (arXiv 2207.12598).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from negface.foundation.noise import keyed_generator, keyed_normal
from negface.models import IDiffUNet, VQAutoencoder
from negface.models.latent_reader import LatentReader
from negface.pipelines import NegFaceDiffPipeline
from negface.sampling import guidance

from .ema import WeightAverage
from .identity import identity_loss
from .latents import Latents
from .pictures import sheet
from .recipe import DiffusionRecipe

SHEET_PEOPLE, SHEET_IMAGES, SHEET_STEPS = 8, 6, 15


def loss_weights(snr: Tensor, recipe: DiffusionRecipe) -> Tensor:
    """Weights ``[n]`` of the squared error of what the network predicts, for signal-to-noise ratios ``[n]``.

    ``min-snr`` caps the weight of the implied x0 error at γ: ``min(snr, γ)/snr`` for ε, ``min(snr, γ)/(snr + 1)`` for v
    (arXiv 2303.09556, sec. 3.4).
    """
    if recipe.loss_weighting == "uniform":
        return torch.ones_like(snr)
    capped = snr.clamp(max=recipe.min_snr_gamma)
    return capped / (snr if recipe.model.prediction_type == "epsilon" else snr + 1)


class DenoisingLoss(nn.Module):
    """Weighted mean squared error of the prediction; a module of its own for distributed wrappers."""

    def __init__(self, unet: IDiffUNet, recipe: DiffusionRecipe):
        super().__init__()
        self.unet, self.recipe = unet, recipe

    def forward(
        self, latents: Tensor, noise: Tensor, timesteps: Tensor, contexts: Tensor, empty: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Clean latents, noise ``[n, c, h, w]``, timesteps ``[n]``, contexts ``[n, d]``, empty (bool ``[n]``) to
        (loss, unweighted error per image ``[n]``, one-step reconstructions ``[n, c, h, w]``)."""
        signal, sigma = (values[timesteps][:, None, None, None] for values in (self.unet.signal, self.unet.sigma))
        noisy = signal * latents + sigma * noise
        target = noise if self.recipe.model.prediction_type == "epsilon" else signal * noise - sigma * latents
        prediction = self.unet.raw(noisy, timesteps, self.unet.training_context(contexts, empty)).float()
        error = (prediction - target).square().flatten(1).mean(1)
        loss = (loss_weights((signal / sigma).square().flatten(), self.recipe) * error).mean()
        if self.recipe.model.prediction_type == "epsilon":
            return loss, error.detach(), (noisy - sigma * prediction) / signal
        return loss, error.detach(), signal * noisy - sigma * prediction


class DiffusionTask:
    """The denoiser's part of the training loop.

    Args:
        recipe: the recipe.
        data: cached latents and contexts.
        autoencoder: for sample sheets and the saved pipeline.
        accelerator: process group, device, precision.
        reader: for the identity loss, if the recipe has one.
    """

    name = "diffusion"

    def __init__(
        self,
        recipe: DiffusionRecipe,
        data: Latents,
        autoencoder: VQAutoencoder,
        accelerator: Accelerator,
        reader: LatentReader | None = None,
    ):
        self.reader = None if reader is None else reader.to(accelerator.device)
        torch.manual_seed(recipe.train.seed)
        self.recipe, self.data, self.autoencoder, self.accelerator = recipe, data, autoencoder, accelerator
        self.n_items = len(data.labels)
        unet = IDiffUNet(
            in_channels=data.latents.shape[2],
            sample_size=data.latents.shape[3],
            context_input=data.contexts.shape[2],
            conditioner=data.conditioner,
            **recipe.model.model_dump(),
        )
        self.objective = DenoisingLoss(unet, recipe).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            self.objective.parameters(),
            lr=recipe.train.learning_rate,
            betas=recipe.train.betas,
            weight_decay=recipe.train.weight_decay,
            fused=True,
        )
        self.prepared, self.optimizer = accelerator.prepare(self.objective, optimizer)
        self.average = WeightAverage(self.objective.unet, recipe.train.ema)
        self.people = _person_means(data)

    def modules(self) -> dict[str, nn.Module]:
        return {"weights": self.objective.unet, "average": self.average.module}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"weights": self.optimizer}

    def step(self, step: int, rows: np.ndarray, rate: float) -> dict[str, float]:
        batch = self._batch(step, rows)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(
            int(
                keyed_generator("dropout", self.recipe.train.seed, step, self.accelerator.process_index).integers(2**31)
            )
        )
        with self.accelerator.autocast():
            loss, error, clean = self.prepared(*batch)
            identity = self._identity_loss(step, clean, *batch[2:])
            if identity is not None:
                loss = loss + self.recipe.identity.weight * identity
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), self.recipe.train.clip)
        self.optimizer.step()
        self.average.update(self.objective.unet, step + 1)
        losses = {"loss": float(loss.detach()), "error": float(error.mean()), "gradient_norm": float(norm)}
        if self.recipe.identity is not None:
            losses["identity"] = 0.0 if identity is None else float(identity.detach())
        return losses

    def _identity_loss(
        self, step: int, clean: Tensor, timesteps: Tensor, contexts: Tensor, empty: Tensor
    ) -> Tensor | None:
        recipe = self.recipe.identity
        if self.reader is None or recipe is None or step < recipe.start:
            return None
        some = slice(0, max(1, round(recipe.share * len(clean))))
        signal = self.objective.unet.signal[timesteps[some]]
        return identity_loss(self.reader, clean[some], contexts[some], signal, ~empty[some])

    def _batch(self, step: int, rows: np.ndarray) -> tuple[Tensor, ...]:
        """Everything random of a step, keyed by (seed, step, place in the global batch)."""
        recipe, rank, world = self.recipe, self.accelerator.process_index, self.accelerator.num_processes
        places = np.arange(recipe.train.batch)[rank::world]
        generator = keyed_generator("diffusion", recipe.train.seed, step)
        uniform = generator.random((recipe.train.batch, 4))
        strata = (uniform[0, 0] + np.arange(recipe.train.batch) / recipe.train.batch) % 1.0
        timesteps = (generator.permutation(strata) * 1000).astype(np.int64)[places]
        mirror = ((uniform[:, 1] < 0.5) & recipe.flips).astype(np.int64)[places]
        empty = (uniform[:, 2] < recipe.empty_share)[places]
        noise = keyed_normal(
            (recipe.train.batch, *self.data.latents.shape[2:]), "diffusion-noise", recipe.train.seed, step
        )[places]
        contexts = self._contexts(rows, mirror, uniform[places, 3], step, places)
        tensors = (self.data.latents[rows, mirror], noise, timesteps, contexts, empty)
        return tuple(torch.from_numpy(np.ascontiguousarray(value)).to(self.accelerator.device) for value in tensors)

    def _contexts(
        self, rows: np.ndarray, mirror: np.ndarray, chance: np.ndarray, step: int, places: np.ndarray
    ) -> np.ndarray:
        recipe = self.recipe
        contexts = self.data.contexts[rows, mirror]
        share = {"image": 0.0, "mixed": 0.5, "person": 1.0}[recipe.context_of]
        contexts = np.where((chance < share)[:, None], self.people[rows], contexts)
        if recipe.context_noise > 0:
            size = (recipe.train.batch, contexts.shape[1])
            jitter = keyed_normal(size, "context-noise", recipe.train.seed, step)[places]
            contexts = contexts + recipe.context_noise * jitter / np.sqrt(contexts.shape[1])
            contexts = contexts / np.linalg.norm(contexts, axis=1, keepdims=True)
        return contexts.astype(np.float32)

    def pipeline(self) -> NegFaceDiffPipeline:
        """The averaged denoiser with its autoencoder, ready to sample."""
        return NegFaceDiffPipeline(self.average.module, self.autoencoder)

    @torch.no_grad()
    def sample_sheet(self, path: Path, step: int) -> None:
        """People in rows: the training picture, then pictures sampled from its context (far negative, w = 0.5)."""
        rows = np.arange(0, self.n_items, max(1, self.n_items // SHEET_PEOPLE))[:SHEET_PEOPLE]
        device = self.accelerator.device
        contexts = torch.from_numpy(self.data.contexts[rows, 0]).to(device)
        negatives = contexts[(contexts @ contexts.T).argmin(1)]
        latents = torch.from_numpy(self.data.latents[rows, 0]).to(device)
        with self.accelerator.autocast():
            columns = [self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).float()]
            noise = torch.from_numpy(
                keyed_normal((SHEET_IMAGES, *self.data.latents.shape[2:]), "sheet", self.recipe.train.seed)
            ).to(device)
            pipe = self.pipeline()
            pipe.set_progress_bar_config(disable=True)
            for column in range(SHEET_IMAGES):
                images = pipe(
                    contexts,
                    negatives,
                    guidance=guidance.constant(0.5),
                    num_inference_steps=SHEET_STEPS,
                    latents=noise[column].expand(len(rows), -1, -1, -1),
                    output_type="pt",
                ).images
                columns.append(images.float() * 2 - 1)
        sheet([torch.stack([column[row] for column in columns]) for row in range(len(rows))], path)

    def save(self, folder: Path) -> None:
        """A complete pipeline folder."""
        self.pipeline().save_pretrained(folder)


def _person_means(data: Latents) -> np.ndarray:
    """The normalised mean context of each row's person, float32 ``[n, d]``."""
    sums = np.zeros((int(data.labels.max()) + 1, data.contexts.shape[2]), np.float64)
    np.add.at(sums, data.labels, data.contexts.sum(1))
    return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12))[data.labels].astype(np.float32)
