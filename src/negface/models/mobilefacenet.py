"""MobileFaceNet: inverted residuals, a global depthwise layer, a million parameters (arXiv 1804.07573, table 1).

``width`` scales all channels; ``tiny`` is the same network cut down for tests.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from negface.foundation.errors import InputError

from .processor_gradients import PReLU, StridedDepthwise

PUBLISHED = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
"""Expansion, channels, repetitions, stride of the bottlenecks (table 1)."""
SMALLEST = ((1, 16, 1, 2), (2, 16, 1, 2))


def _conv(channels_in: int, channels_out: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    if groups > 1 and stride > 1:
        conv: nn.Conv2d = StridedDepthwise(channels_out, size, stride)
    else:
        conv = nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels_out)]


class _Bottleneck(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int):
        super().__init__()
        hidden = expansion * channels_in
        self.layers = nn.Sequential(
            *_conv(channels_in, hidden, 1),
            PReLU(hidden),
            *_conv(hidden, hidden, 3, stride, hidden),
            PReLU(hidden),
            *_conv(hidden, channels_out, 1),
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, hidden: Tensor) -> Tensor:
        out = self.layers(hidden)
        return out + hidden if self.residual else out


class MobileFaceNet(nn.Module):
    """Pictures to embeddings.

    Args:
        dim: length ``d`` of an embedding.
        image_size: side of the pictures in pixels, divisible by 16.
        width: factor on all channels but the last.
        bottlenecks: rows of (expansion, channels, repetitions, stride).
        last: channels before the global depthwise convolution.
    """

    def __init__(
        self,
        *,
        dim: int = 128,
        image_size: int = 112,
        width: float = 1.0,
        bottlenecks: Sequence[Sequence[int]] = PUBLISHED,
        last: int = 512,
    ):
        super().__init__()
        stride = 2
        for _, _, _, step in bottlenecks:
            stride *= step
        if image_size < stride or image_size % stride:
            raise InputError(f"image_size is {image_size}, must be a multiple of {stride}", where="MobileFaceNet")
        self.image_size = image_size

        def scaled(channels: int) -> int:
            return max(8, round(channels * width / 8) * 8)

        channels = scaled(bottlenecks[0][1])
        layers = [*_conv(3, channels, 3, 2), PReLU(channels)]
        layers += [*_conv(channels, channels, 3, 1, channels), PReLU(channels)]
        for expansion, wide, repetitions, step in bottlenecks:
            for place in range(repetitions):
                layers.append(_Bottleneck(channels, scaled(wide), step if place == 0 else 1, expansion))
                channels = scaled(wide)
        layers += [*_conv(channels, last, 1), PReLU(last)]
        self.body = nn.Sequential(*layers)
        self.whole = nn.Sequential(
            nn.Conv2d(last, last, image_size // stride, groups=last, bias=False), nn.BatchNorm2d(last)
        )
        self.out = nn.Conv2d(last, dim, 1, bias=False)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images float ``[n, 3, S, S]`` to embeddings ``[n, d]``, not of unit length."""
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise InputError(
                f"images have shape {tuple(images.shape)}, expected [n, 3, {self.image_size}, {self.image_size}]",
                where="MobileFaceNet",
            )
        return self.norm(self.out(self.whole(self.body(images))).flatten(1))


def tiny(*, dim: int = 32, image_size: int = 32) -> MobileFaceNet:
    """For tests: 20 thousand parameters, sides divisible by 8."""
    return MobileFaceNet(dim=dim, image_size=image_size, width=0.5, bottlenecks=SMALLEST, last=64)
