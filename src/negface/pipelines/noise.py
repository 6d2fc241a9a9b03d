"""The noise of images as a pipeline uses it: a batch of keys in, tensors out; an image never depends on its batch.

Contract: architecture, "Randomness belongs to the image" (numpy Philox keyed by SHA-256, made on the CPU).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from negface.foundation.errors import InputError
from negface.foundation.noise import image_normal
from negface.sampling.schedulers import Noise

Key = int | tuple[int, str, int]


class ImageNoise:
    """Standard normal float32 noise for a batch of images, on the CPU.

    Args:
        keys: one per image: ``(dataset seed, identity id, image index)`` as in a dataset, or one int ``s``, which is
            short for ``(s, "", 0)``.
        shape: shape of one latent, ``(c, h, w)``.
    """

    def __init__(self, keys: Sequence[Key], shape: tuple[int, ...]):
        self.keys, self.shape = [_full_key(key, row) for row, key in enumerate(keys)], tuple(shape)

    def prior(self) -> Tensor:
        """x_T: ``[n, c, h, w]``, purpose ``"prior"``."""
        return self._draw("prior")

    def __call__(self, t: int) -> Tensor:
        """Noise of the step that leaves timestep ``t``: ``[n, c, h, w]``, purpose ``"step/<t>"``."""
        return self._draw(f"step/{int(t)}")

    def _draw(self, purpose: str) -> Tensor:
        return torch.from_numpy(np.stack([image_normal(self.shape, *key, purpose) for key in self.keys]))


def _full_key(key: Key, row: int) -> tuple[int, str, int]:
    try:
        seed, identity, image = key if isinstance(key, tuple) else (key, "", 0)
        if int(seed) == seed and int(image) == image:
            return int(seed), str(identity), int(image)
    except (TypeError, ValueError):
        pass
    raise InputError(f"{key!r} is neither a whole number nor (seed, identity, image)", where=f"seeds[{row}]")


class Remembered:
    """A noise source of a known shape, asked once per timestep however many groups of a batch need it."""

    def __init__(self, noise: Noise, shape: tuple[int, ...]):
        self.noise, self.shape, self.last = noise, tuple(shape), (None, None)

    def __call__(self, t: int) -> Tensor:
        """``noise(t)``; asked again for the same ``t`` at once, the same tensor. ``InputError`` for another shape."""
        if self.last[0] != t:
            self.last = (t, torch.as_tensor(self.noise(t)))
            if tuple(self.last[1].shape) != self.shape:
                raise InputError(f"noise({t}) has shape {list(self.last[1].shape)}, the latents {list(self.shape)}",
                                 where="noise")
        return self.last[1]
