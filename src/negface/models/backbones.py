"""Recognition backbones: the improved residual networks of ArcFace (arXiv 1801.07698, sec. 3.1; arXiv 2004.04989).

Attribute names follow the published iResNet state dicts, so released weights load key by key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from negface.foundation.errors import InputError

from .processor_gradients import PReLU

WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
NORM_EPS = 1e-5


def _conv3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPS)


class _Block(nn.Module):
    """Norm - conv - norm - PReLU - conv (with the stride) - norm, and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.bn1 = _norm(channels_in)
        self.conv1 = _conv3(channels_in, channels_out)
        self.bn2 = _norm(channels_out)
        self.prelu = PReLU(channels_out)
        self.conv2 = _conv3(channels_out, channels_out, stride)
        self.bn3 = _norm(channels_out)
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, _norm(channels_out))

    def forward(self, hidden: Tensor) -> Tensor:
        out = self.prelu(self.bn2(self.conv1(self.bn1(hidden))))
        out = self.bn3(self.conv2(out))
        return out + (hidden if self.downsample is None else self.downsample(hidden))


def _stage(channels_in: int, channels_out: int, blocks: int) -> nn.Sequential:
    first = _Block(channels_in, channels_out, 2)
    return nn.Sequential(first, *(_Block(channels_out, channels_out, 1) for _ in range(blocks - 1)))


class IResNet(nn.Module):
    """Pictures to embeddings.

    Args:
        blocks: residual blocks of the stages (published: four); each stage halves the side.
        widths: channels of the stages, as many as ``blocks``; the published ones if ``None``.
        stem_stride: 1 (published), or 2 to halve the side before the first stage.
        dim: length ``d`` of an embedding.
        image_size: side of the pictures in pixels, divisible by every halving.
        dropout: probability before the last layer, in training only.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        widths: Sequence[int] | None = None,
        stem_stride: int = 1,
        dim: int = 512,
        image_size: int = 112,
        dropout: float = 0.0,
    ):
        super().__init__()
        widths = widths or WIDTHS
        if len(blocks) != len(widths):
            raise InputError(f"{len(blocks)} numbers of blocks for {len(widths)} widths", where="IResNet")
        stride = stem_stride * 2 ** len(widths)
        if image_size < stride or image_size % stride:
            raise InputError(f"image_size is {image_size}, must be a multiple of {stride}", where="IResNet")
        self.image_size, self.n_stages = image_size, len(widths)
        self.conv1 = _conv3(3, widths[0], stem_stride)
        self.bn1 = _norm(widths[0])
        self.prelu = PReLU(widths[0])
        for number, (before, width, count) in enumerate(zip((widths[0], *widths), widths, blocks), 1):
            self.add_module(f"layer{number}", _stage(before, width, count))
        self.bn2 = _norm(widths[-1])
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1] * (image_size // stride) ** 2, dim)
        self.features = nn.BatchNorm1d(dim, eps=NORM_EPS)
        # Published: the last norm centres and scales, but does not learn a scale that would weigh the components.
        self.features.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images float ``[n, 3, S, S]`` to embeddings ``[n, d]``, not of unit length.

        Raises:
            InputError: another shape than the network was built for.
        """
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise InputError(
                f"images have shape {tuple(images.shape)}, expected [n, 3, {self.image_size}, {self.image_size}]",
                where="IResNet",
            )
        hidden = self.prelu(self.bn1(self.conv1(images)))
        for number in range(1, self.n_stages + 1):
            hidden = self.get_submodule(f"layer{number}")(hidden)
        return self.features(self.fc(self.dropout(self.bn2(hidden)).flatten(1)))


def iresnet(*, blocks: Sequence[int], **options: Any) -> IResNet:
    """Any depth and width; ``options`` as ``IResNet``."""
    return IResNet(blocks, **options)


def iresnet18(**options: int | float) -> IResNet:
    """24,025,600 parameters; ``options`` as ``IResNet``."""
    return IResNet(BLOCKS[18], **options)


def iresnet34(**options: int | float) -> IResNet:
    """34,139,328 parameters; ``options`` as ``IResNet``."""
    return IResNet(BLOCKS[34], **options)


def iresnet50(**options: int | float) -> IResNet:
    """43,590,848 parameters, 12.6 GFLOP a picture; ``options`` as ``IResNet``."""
    return IResNet(BLOCKS[50], **options)


def iresnet100(**options: int | float) -> IResNet:
    """65,156,160 parameters, 24.2 GFLOP a picture; ``options`` as ``IResNet``."""
    return IResNet(BLOCKS[100], **options)
