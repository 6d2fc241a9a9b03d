"""The pictures that a generator may have remembered, for the page: each beside the nearest of its training pictures.

Training pictures often lie elsewhere; the few that are shown are copied beside the set, so that results stay movable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from negface import datasets
from negface.foundation.errors import MismatchError, NegFaceError
from negface.foundation.files import ensure_folder, write_bytes
from negface.foundation.hashing import sha256_bytes

MOST = 12
NEAREST = "nearest"


class NamedPictures:
    """Pictures of a dataset by the name that its manifest, and so its embeddings, gives them."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def _dataset(self) -> datasets.FaceDataset:
        return datasets.open(self.folder)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {row["file"]: index for index, row in enumerate(self._dataset.manifest)}

    def copy(self, name: str, root: Path, below: str) -> str:
        """Write a picture's bytes below ``root`` under a name of its content; returns the path relative to ``root``.

        Errors: ``MismatchError`` where the dataset has no such picture.
        """
        if name not in self._rows:
            raise MismatchError(f"has no picture {name!r}", where=self.folder,
                                fix="give the folder that the embeddings were made from")
        data = self._dataset.read(self._rows[name])
        path = f"{below}/{sha256_bytes(data)[:16]}{Path(name).suffix}"
        if not (root / path).is_file():
            ensure_folder((root / path).parent)
            write_bytes(root / path, data)
        return path


def nearest_pairs(root: Path, place: str, base: str, closest: Sequence[Mapping[str, Any]] | None,
                  training: NamedPictures | None) -> list[dict[str, Any]]:
    """The report's ``leakage_pairs`` of a set, closest first; none where pictures or their names are not known.

    Args:
        root: what the report's paths are relative to. place: the folder below it that takes the training pictures.
        base: folder of the set's pictures, relative to ``root``.
        closest: ``leakage_closest`` of its measures. training: the pictures the generator was trained on.
    """
    if training is None:
        return []
    pairs = []
    for item in list(closest or ())[:MOST]:
        if "image_name" not in item or "training_image_name" not in item:
            continue
        try:
            beside = training.copy(item["training_image_name"], root, f"{place}/{NEAREST}")
        except NegFaceError:  # faces that moved since they were embedded: the page goes without
            return []
        pairs.append({"a": f"{base}/{item['image_name']}", "b": beside, "cosine": item["cosine"],
                      "a_identity": str(item["identity"]), "b_identity": str(item["training_identity"])})
    return pairs
