"""The analyser: how a face was photographed and who it might be, in numbers, for pictures that carry no truth.

It is trained on procedural people; on photographs only its pose can be compared with a trusted model, so the rest says
"not measured" there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..foundation import registry
from ..foundation.devices import check_device
from ..foundation.errors import FormatError, InputError
from .declarations import Declaration, resolve_declaration
from .inputs import check_images, normalise, resize_images
from .networks import read_state_dict

VALUES = ("yaw", "pitch", "roll", "light_azimuth", "light_elevation", "light_share", "exposure", "mouth_open", "smile",
          "brow_raise", "blink", "age", "skin_tone")
"""What is told, in order: degrees, stops, shares, years, and skin tone from 0 (lightest) to 1."""
UNITS = dict(zip(VALUES, ("degrees", "degrees", "degrees", "degrees", "degrees", "share", "stops", "0..1", "-1..1",
                          "-1..1", "0..1", "years", "0..1")))
BATCH = 64


class Analyser:
    """Measures pictures: make one with ``load_analyser``. ``errors`` are its mean absolute errors on held-out renders,
    by value name, with ``landmarks`` (pixels) and ``parsing`` (share of pixels told right)."""

    def __init__(self, module: Any, declaration: Declaration, *, device: str = "cpu"):
        self.declaration, self.device = declaration, device
        self._module = module.eval().to(check_device(device))

    @property
    def errors(self) -> dict[str, float]:
        """Errors stated in the declaration; empty if none were measured."""
        return dict(self.declaration.measured)

    def measure(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 ``[n, H, W, 3]`` RGB aligned faces (resized inside) to float32 ``[n]`` for each of ``VALUES``."""
        values, _, _ = self.read(images)
        return {name: values[:, place] for place, name in enumerate(VALUES)}

    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As ``measure``: values float32 ``[n, k]``, landmarks float32 ``[n, 68, 2]`` in pixels of the picture given,
        parsing uint8 ``[n, s, s]`` at the analyser's own size."""
        import torch

        given = check_images(images)
        sized = resize_images(given, self.declaration.size)
        parts = []
        for start in range(0, len(sized), BATCH):
            tensor = torch.from_numpy(normalise(sized[start:start + BATCH], self.declaration)).to(self.device)
            parts.append([item.cpu().numpy() for item in self._module.read(tensor)])
        if not parts:
            raise InputError("no pictures", where="analyser", fix="give at least one")
        values, points, parsing = (np.concatenate(column) for column in zip(*parts))
        scale = np.array([given.shape[2] / sized.shape[2], given.shape[1] / sized.shape[1]], np.float32)
        return values.astype(np.float32), ((points + 0.5) * scale - 0.5).astype(np.float32), parsing.astype(np.uint8)


def load_analyser(path: str | os.PathLike, declaration: Declaration | Mapping | str | os.PathLike | None = None, *,
                  device: str = "cpu") -> Analyser:
    """Open an analyser file by its declaration (task ``analyser``, kind ``torch``)."""
    from .. import models  # noqa: F401  (registers the architectures)

    found = resolve_declaration(path, declaration, task="analyser")
    module = registry.load("model", found.architecture)(**found.options)
    try:
        module.load_state_dict(read_state_dict(Path(path)))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"does not fit {found.architecture} ({reason})", where=path) from error
    return Analyser(module, found, device=device)
