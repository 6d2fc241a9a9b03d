"""The VQ autoencoder of latent diffusion (arXiv 2112.10752, app. G; VQGAN, arXiv 2012.09841).

Latents are taken *before* quantisation; ``decode`` re-quantises them first when ``requantize`` is set, as published.
Attribute names follow the released state dict.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from negface.foundation.errors import InputError

from .layers import group_norm

NORM_EPS = 1e-6


class _ResBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, group_channels: int | None):
        super().__init__()
        self.norm1 = group_norm(channels_in, group_channels, NORM_EPS)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out, group_channels, NORM_EPS)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, hidden: Tensor) -> Tensor:
        out = self.conv1(F.silu(self.norm1(hidden)))
        out = self.conv2(F.silu(self.norm2(out)))
        return out + (hidden if self.nin_shortcut is None else self.nin_shortcut(hidden))


class _Attention(nn.Module):
    """Single-head self-attention over all cells."""

    def __init__(self, channels: int, group_channels: int | None):
        super().__init__()
        self.norm = group_norm(channels, group_channels, NORM_EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        normed = self.norm(hidden)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(hidden.shape)
        return hidden + self.proj_out(mixed)


class _Middle(nn.Module):
    def __init__(self, channels: int, group_channels: int | None):
        super().__init__()
        self.block_1 = _ResBlock(channels, channels, group_channels)
        self.attn_1 = _Attention(channels, group_channels)
        self.block_2 = _ResBlock(channels, channels, group_channels)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(hidden)))


class _Down(nn.Module):
    """Stride-2 convolution, padded right and bottom."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(F.pad(hidden, (0, 1, 0, 1)))


class _Up(nn.Module):
    """Nearest-neighbour doubling and a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))


class _Level(nn.Module):
    def __init__(self, widths: list[int], group_channels: int | None):
        super().__init__()
        self.block = nn.ModuleList(
            _ResBlock(a, b, group_channels) for a, b in pairwise(widths)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.block:
            hidden = block(hidden)
        return hidden


class _Encoder(nn.Module):
    def __init__(
        self,
        channels: int,
        multipliers: tuple[int, ...],
        blocks: int,
        latent_channels: int,
        patch: int,
        group_channels: int | None,
    ):
        super().__init__()
        self.patch = patch
        self.conv_in = nn.Conv2d(3 * patch**2, channels, 3, padding=1)
        self.down, width = nn.ModuleList(), channels
        for index, multiplier in enumerate(multipliers):
            level = _Level([width, *[channels * multiplier] * blocks], group_channels)
            width = channels * multiplier
            if index < len(multipliers) - 1:
                level.downsample = _Down(width)
            self.down.append(level)
        self.mid = _Middle(width, group_channels)
        self.norm_out = group_norm(width, group_channels, NORM_EPS)
        self.conv_out = nn.Conv2d(width, latent_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv_in(F.pixel_unshuffle(images, self.patch))
        for level in self.down:
            hidden = level(hidden)
            if hasattr(level, "downsample"):
                hidden = level.downsample(hidden)
        return self.conv_out(F.silu(self.norm_out(self.mid(hidden))))


class _Decoder(nn.Module):
    def __init__(
        self,
        channels: int,
        multipliers: tuple[int, ...],
        blocks: int,
        latent_channels: int,
        patch: int,
        group_channels: int | None,
    ):
        super().__init__()
        self.patch = patch
        width = channels * multipliers[-1]
        self.conv_in = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.mid = _Middle(width, group_channels)
        levels = []
        for index in reversed(range(len(multipliers))):
            level = _Level([width, *[channels * multipliers[index]] * (blocks + 1)], group_channels)
            width = channels * multipliers[index]
            if index > 0:
                level.upsample = _Up(width)
            levels.append(level)
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = group_norm(width, group_channels, NORM_EPS)
        self.conv_out = nn.Conv2d(width, 3 * patch**2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            hidden = level(hidden)
            if hasattr(level, "upsample"):
                hidden = level.upsample(hidden)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(hidden))), self.patch)


class Quantizer(nn.Module):
    """Nearest codebook entry by squared L2 (VQ-VAE, arXiv 1711.00937, eq. 1-2)."""

    def __init__(self, size: int, channels: int):
        super().__init__()
        self.embedding = nn.Embedding(size, channels)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """``[n, c, h, w]`` to (quantised ``[n, c, h, w]``, indices int64 ``[n, h, w]``); fp32 inside."""
        n, channels, height, width = latents.shape
        flat = latents.permute(0, 2, 3, 1).reshape(-1, channels).float()
        codes = self.embedding.weight.float()
        half_norm = 0.5 * codes.square().sum(1)
        with torch.autocast(latents.device.type, enabled=False):
            indices = torch.cat(
                [torch.addmm(-half_norm, block, codes.T).argmax(1) for block in flat.detach().split(16_384)]
            )
        quantized = self.embedding(indices).reshape(n, height, width, channels).permute(0, 3, 1, 2)
        return quantized, indices.reshape(n, height, width)


class VQAutoencoder(ModelMixin, ConfigMixin):
    """VQ autoencoder; with three multipliers the latent has a quarter of the picture's side (f4).

    Args:
        image_size: side of the pictures in pixels it was trained for.
        latent_channels: channels of the latent.
        channels: width of the first level.
        multipliers: width multipliers, one per level; each but the last halves the side.
        blocks: residual blocks per level (one more in the decoder).
        codebook_size: entries of the codebook.
        patch: pixels are folded into channels by this factor first (1 = published); 2 makes a step four times cheaper.
        group_channels: channels per group of the group norms; ``None`` = 32 groups, as published.
        requantize: whether ``decode`` first snaps latents to the codebook (published: yes).
        scaling_factor: latents times this have unit variance (1.0 for published weights).
        template: the alignment template of its pictures, or ``None`` if not known.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        image_size: int = 128,
        latent_channels: int = 3,
        channels: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 4),
        blocks: int = 2,
        codebook_size: int = 8192,
        patch: int = 1,
        group_channels: int | None = None,
        requantize: bool = True,
        scaling_factor: float = 1.0,
        template: str | None = None,
    ):
        super().__init__()
        if channels % 32:
            raise InputError(f"channels is {channels}, must be a multiple of 32 (group norm)", where="VQAutoencoder")
        fold = patch * 2 ** (len(multipliers) - 1)
        if image_size % fold:
            raise InputError(f"image_size {image_size} is not a multiple of {fold}", where="VQAutoencoder")
        multipliers = tuple(multipliers)
        self.encoder = _Encoder(channels, multipliers, blocks, latent_channels, patch, group_channels)
        self.quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.quantize = Quantizer(codebook_size, latent_channels)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = _Decoder(channels, multipliers, blocks, latent_channels, patch, group_channels)

    @property
    def downsample(self) -> int:
        """Picture side over latent side."""
        return self.config.patch * 2 ** (len(self.config.multipliers) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(c, h, w)`` of one latent."""
        side = self.config.image_size // self.downsample
        return self.config.latent_channels, side, side

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, 3, H, W]`` in [-1, 1] to latents ``[n, c, H/f, W/f]``, unscaled, before quantisation."""
        if images.ndim != 4 or images.shape[1] != 3 or any(side % self.downsample for side in images.shape[2:]):
            raise InputError(
                f"images have shape {tuple(images.shape)}, expected [n, 3, H, W] with sides divisible by "
                f"{self.downsample}",
                where="VQAutoencoder.encode",
            )
        return self.quant_conv(self.encoder(images.to(self.quant_conv.weight.dtype)))

    def decode(self, latents: Tensor, *, requantize: bool | None = None) -> Tensor:
        """Unscaled latents ``[n, c, h, w]`` to images ``[n, 3, H, W]``, nominally in [-1, 1], not clipped."""
        channels = self.config.latent_channels
        if latents.ndim != 4 or latents.shape[1] != channels:
            raise InputError(
                f"latents have shape {tuple(latents.shape)}, expected [n, {channels}, h, w]",
                where="VQAutoencoder.decode",
            )
        if requantize if requantize is not None else self.config.requantize:
            latents = self.quantize(latents)[0]
        return self.decoder(self.post_quant_conv(latents.to(self.post_quant_conv.weight.dtype)))
