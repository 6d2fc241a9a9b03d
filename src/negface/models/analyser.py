"""A small network that says how a face was photographed: pose, light, expression, age, skin tone, landmarks, parsing.

Residual trunk with one head for numbers and landmarks and a U-shaped one for the parsing map (arXiv 1505.04597).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negface.foundation.errors import InputError

from .resnet import _Block, _conv_norm

N_LANDMARKS = 68
_REDUCED = 32


class Analyser(nn.Module):
    """Pictures to numbers, landmarks and parsing logits.

    Args:
        n_values: how many numbers (pose, light, …) are told; the order is the trainer's.
        n_classes: classes of the parsing map.
        image_size: side ``S`` of the pictures in pixels, divisible by 8.
        widths: channels at a half, a quarter and an eighth of the side.
    """

    def __init__(
        self, *, n_values: int, n_classes: int = 13, image_size: int = 64, widths: Sequence[int] = (32, 64, 128)
    ):
        super().__init__()
        if image_size % 8:
            raise InputError(f"image_size is {image_size}, must be a multiple of 8", where="Analyser")
        first, second, third = widths
        self.image_size, self.n_values = image_size, n_values
        self.stem = nn.Sequential(_conv_norm(3, first, 3, 2), nn.ReLU())
        self.at_half = _Block(first, first, 1)
        self.at_quarter = nn.Sequential(_Block(first, second, 2), _Block(second, second, 1))
        self.at_eighth = nn.Sequential(_Block(second, third, 2), _Block(third, third, 1))
        self.reduced = nn.Sequential(_conv_norm(third, _REDUCED, 1, 1), nn.ReLU())
        cells = (image_size // 8) ** 2
        self.hidden = nn.Sequential(nn.Linear(_REDUCED * cells + third, 256), nn.ReLU())
        self.values = nn.Linear(256, n_values)
        self.points = nn.Linear(256, 2 * N_LANDMARKS)
        self.up_quarter = nn.Sequential(_conv_norm(third + second, second, 3, 1), nn.ReLU())
        self.up_half = nn.Sequential(_conv_norm(second + first, first, 3, 1), nn.ReLU())
        self.parsing = nn.Conv2d(first, n_classes, 1)
        self.register_buffer("value_mean", torch.zeros(n_values))
        self.register_buffer("value_std", torch.ones(n_values))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images ``[n, 3, S, S]`` to standardised values ``[n, k]``, landmarks ``[n, 68, 2]`` as shares of
        the side around its middle, and parsing logits ``[n, classes, S/2, S/2]``."""
        half = self.at_half(self.stem(images))
        quarter = self.at_quarter(half)
        eighth = self.at_eighth(quarter)
        hidden = self.hidden(torch.cat([self.reduced(eighth).flatten(1), eighth.mean((2, 3))], 1))
        up = self.up_quarter(torch.cat([F.interpolate(eighth, scale_factor=2.0), quarter], 1))
        up = self.up_half(torch.cat([F.interpolate(up, scale_factor=2.0), half], 1))
        return self.values(hidden), self.points(hidden).unflatten(1, (N_LANDMARKS, 2)), self.parsing(up)

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images as above to values ``[n, k]`` in their units, landmarks ``[n, 68, 2]`` in pixels (x, y), and parsing
        int64 ``[n, S, S]``."""
        values, points, logits = self(images)
        size = self.image_size
        whole = F.interpolate(logits.float(), (size, size), mode="bilinear", align_corners=False).argmax(1)
        return values.float() * self.value_std + self.value_mean, (points.float() + 0.5) * size - 0.5, whole
