"""Sample sheets: what a person looks at to see how far a training is."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from negface.foundation.files import atomic_path


def to_uint8(images: Tensor) -> Tensor:
    """Images ``[n, 3, H, W]`` in [-1, 1] to uint8 ``[n, H, W, 3]``."""
    return images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def sheet(rows: list[Tensor], path: Path) -> None:
    """Write rows of images ``[n, 3, H, W]`` in [-1, 1] as one PNG."""
    grid = torch.cat([torch.cat(list(to_uint8(row)), dim=1) for row in rows], dim=0)
    with atomic_path(path) as temporary:
        Image.fromarray(grid.contiguous().numpy()).save(temporary, format="PNG")
