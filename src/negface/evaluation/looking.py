"""Instruments looking at a dataset: analyser, head pose and quality; one number of each a picture, and their errors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from negface import datasets
from negface.datasets import FaceDataset
from negface.foundation.errors import InputError
from negface.foundation.progress import Progress
from negface.perception import Embeddings, load_pose, load_quality
from negface.perception.analyser import UNITS, load_analyser

from ._attributes import ON_PHOTOGRAPHS
from .leakage_sheet import check_order

ANGLES = ("yaw", "pitch", "roll")
BATCH = 64


@dataclass(frozen=True)
class Instruments:
    """Open models, or None; ``look`` asks each for what it tells."""

    analyser: Any = None
    pose: Any = None
    quality: Any = None

    @classmethod
    def open(cls, analyser: str | os.PathLike | None, pose: Sequence[str | os.PathLike],
             quality: str | os.PathLike | None) -> Instruments:
        """Open the files given; ``InputError`` if there is none."""
        if analyser is None and not pose and quality is None:
            raise InputError("no instrument", where="diversity", fix="give --analyser, --pose or --quality")
        return cls(load_analyser(analyser) if analyser is not None else None, load_pose(list(pose)) if pose else None,
                   load_quality(quality) if quality is not None else None)

    def names(self) -> str:
        """Names of the declarations."""
        declared = [item.declaration for item in (self.analyser, self.quality) if item is not None]
        return " + ".join(item.name for item in [*declared, *(self.pose.declarations if self.pose else ())])

    def measure(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Numbers float ``[n]`` by attribute of uint8 ``[n, H, W, 3]``; the pose model goes before the analyser."""
        found = dict(self.analyser.measure(images)) if self.analyser is not None else {}
        if self.pose is not None:
            found |= dict(zip(ANGLES, self.pose.estimate(images).T))
        if self.quality is not None:
            found["quality"] = self.quality.score(images)
        return found


@dataclass(frozen=True)
class Seen:
    """``values``: attribute -> ``[n]`` in the order of the dataset; ``errors`` of the instruments, where known."""

    values: dict[str, np.ndarray]
    labels: np.ndarray
    names: str
    errors: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def instruments(self) -> dict[str, dict[str, Any]]:
        """Attribute -> ``by``, ``error`` (mean absolute, ``None``: not known) and ``unit`` of what measured it."""
        return {name: {"by": self.names, "error": self.errors.get(name), "unit": self.units.get(name, "")}
                for name in self.values}


def look(dataset: FaceDataset, instruments: Instruments) -> Seen:
    """Measure every picture, a batch at a time; pictures must be of one size (``InputError`` names the odd one)."""
    parts = []
    with Progress("looking", len(dataset), unit="images") as bar:
        for start in range(0, len(dataset), BATCH):
            images = [dataset[row][0] for row in range(start, min(start + BATCH, len(dataset)))]
            odd = next((at for at, image in enumerate(images) if image.shape != images[0].shape), None)
            if odd is not None:
                raise InputError(f"is {images[odd].shape[1]}x{images[odd].shape[0]}, others are "
                                 f"{images[0].shape[1]}x{images[0].shape[0]}", where=dataset.name(start + odd),
                                 fix="align the faces to one size")
            parts.append(instruments.measure(np.stack(images)))
            bar.advance(len(images))
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    errors = dict(instruments.analyser.errors) if instruments.analyser is not None else {}
    if instruments.pose is not None:
        errors = {name: error for name, error in errors.items() if name not in ANGLES}
    units = {**dict.fromkeys(ANGLES, "degrees"), "quality": "0..1",
             **(UNITS if instruments.analyser is not None else {})}
    return Seen(values, dataset.labels, instruments.names(), errors, units)


def look_at(faces: str | os.PathLike | None, analyser: str | os.PathLike | None, embeddings: Embeddings, *,
            photographs: bool) -> Seen:
    """What an analyser tells of the pictures that were embedded, in their order; nothing where neither is given.

    Of ``photographs`` only what counts as measured (``ON_PHOTOGRAPHS``) is kept. ``InputError`` where one of the two is
    missing, ``MismatchError`` where the embeddings are not of these pictures.
    """
    if faces is None and analyser is None:
        return Seen({}, embeddings.labels, "")
    if faces is None or analyser is None:
        raise InputError("the attributes' spread takes pictures and an analyser", where="attributes",
                         fix="give --faces and --analyser, or neither")
    instruments, dataset = Instruments.open(analyser, (), None), datasets.open(faces)
    check_order(dataset, embeddings, "embedded pictures")
    seen = look(dataset, instruments)
    kept = {name: numbers for name, numbers in seen.values.items() if not photographs or name in ON_PHOTOGRAPHS}
    return replace(seen, values=kept)
