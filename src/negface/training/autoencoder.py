"""Training of the VQ autoencoder: L1 + multi-scale gradient + commitment, optional patch adversary.

Sources: VQ-VAE (arXiv 1711.00937, eq. 3) for commitment, VQGAN (arXiv 2012.09841, eq. 6-7) for the adversary with its
adaptive weight, MiDaS (arXiv 1907.01341, eq. 11) for multi-scale gradient matching: edges without a feature network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from negface.foundation.noise import keyed_generator
from negface.models import VQAutoencoder

from .ema import WeightAverage
from .pictures import sheet
from .recipe import AutoencoderRecipe


def gradient_loss(prediction: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute difference of image gradients over ``scales`` halvings; images ``[n, 3, H, W]``."""
    total = prediction.new_zeros(())
    difference = prediction - target
    for scale in range(scales):
        if scale:
            difference = F.avg_pool2d(difference, 2)
        total = total + difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return total / scales


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches (pix2pix, arXiv 1611.07004, sec. 3.2.2); ``[n, 3, H, W] -> [n, 1, h, w]``."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False),
            nn.GroupNorm(8, 2 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * channels, 4 * channels, 4, 1, 1, bias=False),
            nn.GroupNorm(8, 4 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * channels, 1, 4, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class ReconstructionLoss(nn.Module):
    """Reconstruct and score; a module of its own so that distributed wrappers see one forward pass."""

    def __init__(self, model: VQAutoencoder, recipe: AutoencoderRecipe):
        super().__init__()
        self.model, self.recipe = model, recipe

    def forward(self, images: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Images ``[n, 3, H, W]`` in [-1, 1] and which rows go through the codebook (bool ``[n]``) to
        (loss, reconstruction, parts)."""
        latents = self.model.encode(images).float()
        codes, _ = self.model.quantize(latents)
        snapped = latents + (codes - latents).detach()
        passed = torch.where(quantized[:, None, None, None], snapped, latents)
        reconstruction = self.model.decode(passed, requantize=False).float()
        parts = {
            "l1": F.l1_loss(reconstruction, images),
            "gradient": gradient_loss(reconstruction, images),
            "commitment": F.mse_loss(latents, codes.detach()),
            "codebook": F.mse_loss(codes, latents.detach()),
        }
        loss = (
            parts["l1"]
            + self.recipe.gradient_weight * parts["gradient"]
            + self.recipe.commitment_weight * parts["commitment"]
            + parts["codebook"]
        )
        return loss, reconstruction, parts


class AutoencoderTask:
    """The autoencoder's part of the training loop.

    Args:
        recipe: the recipe.
        images: uint8 ``[n, S, S, 3]`` RGB.
        accelerator: process group, device, precision.
    """

    name = "autoencoder"

    def __init__(self, recipe: AutoencoderRecipe, images: np.ndarray, accelerator: Accelerator):
        torch.manual_seed(recipe.train.seed)
        self.recipe, self.images, self.accelerator = recipe, images, accelerator
        self.n_items = len(images)
        model = VQAutoencoder(**recipe.model.model_dump()).to(accelerator.device)
        self._start_codebook_on_data(model)
        self.objective = ReconstructionLoss(model, recipe).to(memory_format=torch.channels_last)
        options = {"betas": recipe.train.betas, "weight_decay": recipe.train.weight_decay}
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.train.learning_rate, **options)
        self.prepared, self.optimizer = accelerator.prepare(self.objective, optimizer)
        self.average = WeightAverage(self.objective.model, recipe.train.ema)
        self.discriminator = self.discriminator_optimizer = None
        if recipe.adversary:
            self.discriminator = PatchDiscriminator(recipe.adversary.channels).to(memory_format=torch.channels_last)
            self.discriminator_optimizer = torch.optim.AdamW(
                self.discriminator.parameters(), lr=recipe.adversary.learning_rate, betas=(0.5, 0.99), weight_decay=0.0
            )
            self.discriminator_prepared, self.discriminator_optimizer = accelerator.prepare(
                self.discriminator, self.discriminator_optimizer
            )

    def _start_codebook_on_data(self, model: VQAutoencoder) -> None:
        """Codebook entries start at latents of training pictures, so that none is dead from the beginning."""
        rows = keyed_generator("codebook", self.recipe.train.seed).integers(0, self.n_items, 256)
        with torch.no_grad():
            latents = model.encode(self._pictures(rows)).permute(0, 2, 3, 1).flatten(0, 2)
            size = self.recipe.model.codebook_size
            pick = keyed_generator("codes", self.recipe.train.seed).integers(0, len(latents), size)
            model.quantize.embedding.weight.copy_(latents[torch.from_numpy(pick)])

    def _pictures(self, rows: np.ndarray, flips: np.ndarray | None = None) -> Tensor:
        pictures = self.images[rows]
        if flips is not None:
            pictures = np.where(flips[:, None, None, None], pictures[:, :, ::-1], pictures)
        tensor = torch.from_numpy(np.ascontiguousarray(pictures)).to(self.accelerator.device)
        return tensor.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)

    def modules(self) -> dict[str, nn.Module]:
        modules = {"weights": self.objective.model, "average": self.average.module}
        return modules | ({"discriminator": self.discriminator} if self.discriminator else {})

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        optimizers = {"weights": self.optimizer}
        return optimizers | ({"discriminator": self.discriminator_optimizer} if self.discriminator else {})

    def step(self, step: int, rows: np.ndarray, rate: float) -> dict[str, float]:
        batch = self.recipe.train.batch
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        generator = keyed_generator("autoencoder", self.recipe.train.seed, step, 0)
        images = self._pictures(rows, (generator.random(batch) < 0.5)[share])
        quantized = torch.from_numpy((generator.random(batch) < self.recipe.quantized_share)[share]).to(images.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.accelerator.autocast():
            loss, reconstruction, parts = self.prepared(images, quantized)
            adversary = self.recipe.adversary
            if adversary and step >= adversary.start:
                fooled = -self.discriminator(reconstruction).float().mean()
                parts["adversary"] = fooled
                loss = loss + adversary.weight * self._adaptive_weight(parts["l1"], fooled) * fooled
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), self.recipe.train.clip)
        self.optimizer.step()
        self.average.update(self.objective.model, step + 1)
        losses = {key: float(value.detach()) for key, value in {"loss": loss, **parts, "gradient_norm": norm}.items()}
        if adversary:
            losses.setdefault("adversary", 0.0)
            losses["discriminator"] = (
                self._train_discriminator(images, reconstruction.detach()) if step >= adversary.start else 0.0
            )
        return losses

    def _adaptive_weight(self, reconstruction_loss: Tensor, adversarial_loss: Tensor) -> Tensor:
        """Ratio of gradient norms at the last layer (VQGAN, eq. 7), clipped to [0, 1e3]."""
        last = self.objective.model.decoder.conv_out.weight
        losses = (reconstruction_loss, adversarial_loss)
        gradients = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in losses)
        wanted, given = (self.accelerator.reduce(gradient, "mean").norm() for gradient in gradients)
        return (wanted / (given + 1e-4)).clamp(0, 1e3).detach()

    def _train_discriminator(self, real: Tensor, fake: Tensor) -> float:
        with self.accelerator.autocast():
            real_score, fake_score = self.discriminator_prepared(torch.cat([real, fake])).float().chunk(2)
            loss = 0.5 * (F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean())
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.discriminator_optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def sample_sheet(self, path: Path, step: int) -> None:
        """Pictures above their reconstructions."""
        images = self._pictures(np.arange(min(16, self.n_items)))
        with self.accelerator.autocast():
            shown = self.average.module.decode(self.average.module.encode(images).float())
        sheet([images.cpu(), shown.float().cpu()], path)

    def save(self, folder: Path) -> None:
        """The averaged autoencoder with the ``scaling_factor`` that gives training latents unit variance."""
        model = self.average.module
        rows = keyed_generator("scale", self.recipe.train.seed).permutation(self.n_items)[:512]
        with torch.no_grad(), self.accelerator.autocast():
            parts = np.array_split(rows, min(8, len(rows)))
            spread = torch.cat([model.encode(self._pictures(part)).float() for part in parts]).std()
        model.register_to_config(scaling_factor=float(1 / spread))
        model.save_pretrained(folder)
