"""The two ends of the scale: the floor (pictures whose names are shuffled) and the ceiling (pictures of new people)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from negface import datasets
from negface.foundation.errors import IncompleteError
from negface.foundation.files import atomic_folder, ensure_folder
from negface.foundation.noise import keyed_generator

from .grid import ExperimentRecipe, Range, Setting
from .materials import Materials, render_people
from .steps import Journal


@dataclass(frozen=True)
class Pictures:
    """A set a student learns from: its folder, the people in it (None: all), and what making it said."""

    folder: Path
    identities: tuple[str, ...] | None
    made: Mapping[str, Any]


def floor_pictures(setting: Setting, source: Path, folder: Path, journal: Journal, place: str) -> Pictures:
    """The baseline's pictures under shuffled names: as many people with as many pictures, and nothing to learn.

    ``IncompleteError`` while the baseline is not there.
    """
    if not (source / datasets.PLAN_NAME).is_file():
        raise IncompleteError("the baseline's pictures are not made yet", where="floor",
                              fix="run the same command again")

    def make() -> dict[str, Any]:
        dataset = datasets.open(source)
        order = shuffled(dataset.labels, setting.seed)
        with atomic_folder(folder) as temporary:
            for row, label in enumerate(order.tolist()):
                suffix = Path(dataset.manifest[row]["file"]).suffix
                target = ensure_folder(temporary / f"{label:05d}") / f"{row:07d}{suffix}"
                target.write_bytes(dataset.read(row))
        return {"images": len(dataset), "images_per_second": None, "mean_weight": 0.0}

    made = journal.step(f"{place}/pictures", {"place": place}, make, [folder])
    return Pictures(folder, None, made)


def shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    """The labels in an order keyed by the seed."""
    return keyed_generator("floor", seed).permutation(labels)


def ceiling_pictures(setting: Setting, root: Path, recipe: ExperimentRecipe, materials: Materials, journal: Journal,
                     place: str) -> Pictures:
    """Rendered pictures of as many new people; of a folder of faces, the people the generator learned from."""
    if materials.known_faces is not None:
        return Pictures(materials.known_faces, materials.split.train, {"images_per_second": None, "mean_weight": None})
    people, sampling = recipe.population, recipe.sampling
    part = Range(start=people.ceiling + setting.seed * sampling.identities, people=sampling.identities)
    folder = render_people(journal, f"{place}/dataset", part, people, images=sampling.images, size=sampling.size)
    return Pictures(folder, None, {"images": sampling.identities * sampling.images, "images_per_second": None,
                                   "mean_weight": None})
