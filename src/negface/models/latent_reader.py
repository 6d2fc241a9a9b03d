"""A small network that reads from a latent which context it shows: the gradient of an identity loss without decoding.

It is trained on cached latents with the conditioner's contexts and is part of the training only, never a judge.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import group_norm

GROUP_CHANNELS = 16


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.norm1 = group_norm(channels_in, GROUP_CHANNELS)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1)
        self.norm2 = group_norm(channels_out, GROUP_CHANNELS)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1)
        same = channels_in == channels_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, stride)

    def forward(self, hidden: Tensor) -> Tensor:
        out = self.conv1(F.silu(self.norm1(hidden)))
        return self.shortcut(hidden) + self.conv2(F.silu(self.norm2(out)))


class LatentReader(nn.Module):
    """Latents ``[n, c, h, w]`` of unit variance (sides divisible by 4) to unit contexts ``[n, d]``."""

    def __init__(self, in_channels: int, sample_size: int, context_input: int, width: int = 64):
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, width, 3, 1, 1)
        self.body = nn.Sequential(
            _Block(width, width, 1),
            _Block(width, 2 * width, 2),
            _Block(2 * width, 2 * width, 1),
            _Block(2 * width, 4 * width, 2),
            _Block(4 * width, 4 * width, 1),
        )
        self.norm = group_norm(4 * width, GROUP_CHANNELS)
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(4 * width * (sample_size // 4) ** 2, context_input)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = F.silu(self.norm(self.body(self.conv_in(latents.contiguous(memory_format=torch.channels_last)))))
        return F.normalize(self.out(self.dropout(hidden).flatten(1)).float(), dim=1)
