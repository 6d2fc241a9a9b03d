"""A plain residual recognition backbone: ReLU basic blocks (He et al., arXiv 1512.03385, sec. 3).

Unlike ``IResNet`` it has no norm before its convolutions and no PReLU. Features keep their place in the picture: with
average pooling the same network learns faces several times more slowly.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from negface.foundation.errors import InputError

REDUCED = 64


def _conv_norm(channels_in: int, channels_out: int, size: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, size // 2, bias=False), nn.BatchNorm2d(channels_out)
    )


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.first = _conv_norm(channels_in, channels_out, 3, stride)
        self.second = _conv_norm(channels_out, channels_out, 3, 1)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else _conv_norm(channels_in, channels_out, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(hidden))) + self.shortcut(hidden))


class ResNet(nn.Module):
    """Pictures to embeddings.

    Args:
        blocks: residual blocks of the stages; the stem and each stage but the first halve the side.
        widths: channels of the stages, as many as ``blocks``.
        dim: length ``d`` of an embedding.
        image_size: side of the pictures in pixels, divisible by every halving.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (1, 2, 2, 1),
        widths: Sequence[int] = (32, 64, 128, 256),
        dim: int = 512,
        image_size: int = 112,
    ):
        super().__init__()
        stride = 2 ** len(widths)
        if len(blocks) != len(widths) or image_size % stride:
            raise InputError(
                f"blocks {tuple(blocks)}, widths {tuple(widths)}, image_size {image_size} do not go together",
                where="ResNet",
                fix=f"as many blocks as widths, and a side divisible by {stride}",
            )
        self.image_size = image_size
        self.stem = nn.Sequential(_conv_norm(3, widths[0], 3, 2), nn.ReLU())
        stages, before = [], widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks)):
            for place in range(count):
                stages.append(_Block(before, width, 2 if number and place == 0 else 1))
                before = width
        self.stages = nn.Sequential(*stages)
        self.reduced = nn.Sequential(_conv_norm(widths[-1], REDUCED, 1, 1), nn.ReLU())
        self.out = nn.Linear(REDUCED * (image_size // stride) ** 2, dim)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images float ``[n, 3, S, S]`` to embeddings ``[n, d]``, not of unit length."""
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise InputError(
                f"images have shape {tuple(images.shape)}, expected [n, 3, {self.image_size}, {self.image_size}]",
                where="ResNet",
            )
        return self.norm(self.out(self.reduced(self.stages(self.stem(images))).flatten(1)))
