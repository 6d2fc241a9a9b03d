"""The fast decoder: taught by the full decoder's pictures of the teacher's own latents; no real picture is needed.

After the distilled decoders of Stable Diffusion (TAESD), with the autoencoder's L1 and multi-scale gradients.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from negface.foundation.errors import InputError
from negface.foundation.noise import keyed_generator, keyed_normal
from negface.models import FastDecoder, VQAutoencoder

from .autoencoder import gradient_loss
from .distill_recipe import DecoderSettings
from .ema import WeightAverage
from .pictures import sheet

SHEET_PICTURES = 8


def make_decoder(autoencoder: VQAutoencoder, settings: DecoderSettings, teacher_hash: str) -> FastDecoder:
    """A fast decoder of the autoencoder's latents; ``InputError`` where the levels cannot reach its pictures' size."""
    doublings = 2 ** (len(settings.model.widths) - 1)
    if autoencoder.downsample % doublings:
        raise InputError(f"{len(settings.model.widths)} levels enlarge {doublings} times, the autoencoder's latents "
                         f"are {autoencoder.downsample} times smaller than its pictures", where="decoder.model.widths",
                         fix="give fewer levels")
    return FastDecoder(autoencoder.config.latent_channels, settings.model.widths, settings.model.blocks,
                       autoencoder.downsample // doublings, teacher_hash)


class ImitationLoss(nn.Module):
    """L1 + multi-scale gradients to given pictures; a module of its own for distributed wrappers."""

    def __init__(self, decoder: FastDecoder, gradient_weight: float):
        super().__init__()
        self.decoder, self.gradient_weight = decoder, gradient_weight

    def forward(self, latents: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Unscaled latents and the full decoder's pictures ``[n, 3, H, W]`` to (loss, its L1 part)."""
        drawn = self.decoder.decode(latents).float()
        l1 = F.l1_loss(drawn, pictures)
        return l1 + self.gradient_weight * gradient_loss(drawn, pictures), l1.detach()


class DecoderTask:
    """The fast decoder's part of the training loop.

    Args:
        settings: the recipe's ``decoder`` section.
        latents: clean latents of unit variance, float32 ``[n, c, h, w]``; the last ``held_out`` are not trained on.
        autoencoder: the frozen autoencoder whose decoder is imitated.
        teacher_hash: of its weights.
        held_out: how many latents measure the result.
        accelerator: process group, device, precision.
    """

    name = "decoder"

    def __init__(self, settings: DecoderSettings, latents: np.ndarray, autoencoder: VQAutoencoder, teacher_hash: str,
                 held_out: int, accelerator: Accelerator):
        torch.manual_seed(settings.train.seed)
        self.settings, self.latents, self.autoencoder, self.accelerator = settings, latents, autoencoder, accelerator
        self.n_items = len(latents) - held_out
        decoder = make_decoder(autoencoder, settings, teacher_hash)
        self.objective = ImitationLoss(decoder, settings.gradient_weight).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(self.objective.parameters(), lr=settings.train.learning_rate,
                                      betas=settings.train.betas, weight_decay=settings.train.weight_decay, fused=True)
        self.prepared, self.optimizer = accelerator.prepare(self.objective, optimizer)
        self.average = WeightAverage(self.objective.decoder, settings.train.ema)

    def modules(self) -> dict[str, nn.Module]:
        return {"weights": self.objective.decoder, "average": self.average.module}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"weights": self.optimizer}

    def step(self, step: int, rows: np.ndarray, rate: float) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        latents = self._batch(step, rows)
        with self.accelerator.autocast():
            with torch.no_grad():
                pictures = self.autoencoder.decode(latents).float()
            loss, l1 = self.prepared(latents, pictures)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), self.settings.train.clip)
        self.optimizer.step()
        self.average.update(self.objective.decoder, step + 1)
        return {"loss": float(loss.detach()), "l1": float(l1), "gradient_norm": float(norm)}

    def _batch(self, step: int, rows: np.ndarray) -> Tensor:
        """Unscaled latents, half of them mirrored, with a little noise; keyed by (seed, step, place)."""
        train, rank, world = self.settings.train, self.accelerator.process_index, self.accelerator.num_processes
        mirrored = (keyed_generator("distill-mirror", train.seed, step).random(train.batch) < 0.5)[rank::world]
        latents = self.latents[rows]
        latents = np.where(mirrored[:, None, None, None], latents[..., ::-1], latents)
        noise = keyed_normal((train.batch, *latents.shape[1:]), "distill-jitter", train.seed, step)[rank::world]
        return self._unscaled(latents + self.settings.jitter * noise)

    def _unscaled(self, latents: np.ndarray) -> Tensor:
        values = torch.from_numpy(np.ascontiguousarray(latents, np.float32)).to(self.accelerator.device)
        return values / self.autoencoder.config.scaling_factor

    def measure(self) -> dict[str, float]:
        """Mean absolute difference to the full decoder's pictures in grey levels (of 255), on the latents held out."""
        full, fast = self._both(np.arange(self.n_items, len(self.latents)))
        return {"grey_levels": float((full.clamp(-1, 1) - fast.clamp(-1, 1)).abs().mean() * 127.5)}

    @torch.no_grad()
    def _both(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        latents = self._unscaled(self.latents[rows])
        with self.accelerator.autocast():
            return self.autoencoder.decode(latents).float(), self.average.module.decode(latents).float()

    def sample_sheet(self, path: Path, step: int) -> None:
        """Pictures of latents held out: the full decoder's above, the fast one's below."""
        sheet(list(self._both(np.arange(self.n_items, len(self.latents))[:SHEET_PICTURES])), path)

    def save(self, folder: Path) -> None:
        """A ``FastDecoder`` folder."""
        self.average.module.save_pretrained(folder)
