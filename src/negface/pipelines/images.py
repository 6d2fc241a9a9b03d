"""From the autoencoder's range to pictures: the one place where floats become grey levels."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from negface.foundation.errors import UnknownNameError

OUTPUT_TYPES = ("pil", "np", "pt", "uint8", "latent")


def check_output_type(output_type: str) -> None:
    """``UnknownNameError`` with a suggestion for anything but ``pil``, ``np``, ``pt``, ``uint8``, ``latent``."""
    if output_type not in OUTPUT_TYPES:
        raise UnknownNameError("output type", output_type, OUTPUT_TYPES)


def to_uint8(images: Tensor) -> np.ndarray:
    """Images ``[n, 3, H, W]`` in [-1, 1] (clipped) to grey levels, uint8 ``[n, H, W, 3]``.

    ``round((x + 1) * 127.5)``, halves to even; computed in float32 on the CPU, so that equal floats give
    equal bytes everywhere.
    """
    levels = ((images.float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def convert(images: Tensor, output_type: str) -> list[Image.Image] | np.ndarray | Tensor:
    """Images ``[n, 3, H, W]`` in [-1, 1] as asked for.

    ``"pil"``: a list of RGB pictures; ``"uint8"``: uint8 ``[n, H, W, 3]``; ``"np"``: float32 ``[n, H, W, 3]`` and
    ``"pt"``: float32 ``[n, 3, H, W]``, both in [0, 1] as in diffusers, not rounded.
    """
    if output_type in ("pil", "uint8"):
        levels = to_uint8(images)
        return [Image.fromarray(picture) for picture in levels] if output_type == "pil" else levels
    unit = ((images.float().clamp(-1, 1) + 1) / 2).cpu()
    return unit.permute(0, 2, 3, 1).contiguous().numpy() if output_type == "np" else unit
