"""A small decoder that imitates a large one: below twenty steps the autoencoder's decoder dominates the cost.

After the distilled decoders of Stable Diffusion (TAESD): residual convolutions without norms or attention, most of
them at the latent's own size. Trained by ``negface train distill`` on the full decoder's pictures.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from negface.foundation.errors import InputError


class _Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.relu(hidden + self.conv2(F.relu(self.conv1(hidden))))


class FastDecoder(ModelMixin, ConfigMixin):
    """Stands in for ``VQAutoencoder.decode``: the same latents in, nearly the same pictures out.

    Args:
        latent_channels: channels of the latent.
        widths: width of each level, from the latent's size upwards; between two levels the side doubles.
        blocks: residual blocks of each level.
        patch: the last level draws ``patch × patch`` pixels a cell; the picture's side is the latent's times
            ``patch · 2^(levels − 1)``.
        teacher: SHA-256 of the weights of the autoencoder it imitates, or ``None`` if not known.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        widths: tuple[int, ...] = (64, 48),
        blocks: tuple[int, ...] = (3, 1),
        patch: int = 2,
        teacher: str | None = None,
    ):
        super().__init__()
        if not widths or len(widths) != len(blocks):
            raise InputError(f"{len(widths)} widths for {len(blocks)} numbers of blocks", where="FastDecoder")
        self.conv_in = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(_Block(width) for _ in range(count))) for width, count in zip(widths, blocks, strict=True)
        )
        self.ups = nn.ModuleList(nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in pairwise(widths))
        self.conv_out = nn.Conv2d(widths[-1], 3 * patch**2, 3, padding=1)

    @property
    def upsample(self) -> int:
        """Picture side over latent side."""
        return self.config.patch * 2 ** (len(self.config.widths) - 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents ``[n, c, h, w]`` to images ``[n, 3, H, W]``, nominally in [-1, 1], not clipped.

        ``InputError`` for another number of channels.
        """
        channels = self.config.latent_channels
        if latents.ndim != 4 or latents.shape[1] != channels:
            raise InputError(
                f"latents have shape {tuple(latents.shape)}, expected [n, {channels}, h, w]", where="FastDecoder.decode"
            )
        # Latents far out are as good as latents at the edge: a bounded input cannot make a picture explode.
        hidden = F.relu(self.conv_in(3 * torch.tanh(latents.to(self.conv_in.weight.dtype) / 3)))
        for index, level in enumerate(self.levels):
            if index:
                hidden = F.relu(F.pixel_shuffle(self.ups[index - 1](hidden), 2))
            hidden = level(hidden)
        return F.pixel_shuffle(self.conv_out(hidden), self.config.patch)

    def forward(self, latents: Tensor) -> Tensor:
        """``decode``."""
        return self.decode(latents)
