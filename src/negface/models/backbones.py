"""Recognition backbones: the improved residual networks of ArcFace (arXiv 1801.07698, sec. 3.1; arXiv 2004.04989).

Attribute names follow the published iResNet state dicts, so released weights load key by key.
"""

from __future__ import annotations

from torch import Tensor, nn

from negface.foundation.errors import InputError

WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
NORM_EPS = 1e-5
STRIDE = 16


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
        self.prelu = nn.PReLU(channels_out)
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
        blocks: residual blocks of the four stages; each stage halves the side.
        dim: length ``d`` of an embedding.
        image_size: side of the pictures in pixels, a multiple of 16.
        dropout: probability before the last layer, in training only.
    """

    def __init__(
        self, blocks: tuple[int, int, int, int], *, dim: int = 512, image_size: int = 112, dropout: float = 0.0
    ):
        super().__init__()
        if image_size < STRIDE or image_size % STRIDE:
            raise InputError(f"image_size is {image_size}, must be a multiple of {STRIDE}", where="IResNet")
        self.image_size = image_size
        self.conv1 = _conv3(3, WIDTHS[0])
        self.bn1 = _norm(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(before, width, count) for before, width, count in zip((WIDTHS[0], *WIDTHS), WIDTHS, blocks)
        )
        self.bn2 = _norm(WIDTHS[-1])
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(WIDTHS[-1] * (image_size // STRIDE) ** 2, dim)
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
        hidden = self.layer4(self.layer3(self.layer2(self.layer1(hidden))))
        return self.features(self.fc(self.dropout(self.bn2(hidden)).flatten(1)))


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
