"""The nearest training pictures beside the generated ones, for a person to judge: a cosine is no verdict on a face."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from negface.datasets import FaceDataset, resize_rgb
from negface.foundation.errors import InputError, MismatchError
from negface.foundation.files import atomic_path
from negface.perception import Embeddings

TILE, CAPTION, GAP, PER_ROW = 112, 14, 8, 5


def check_order(dataset: FaceDataset, embeddings: Embeddings, what: str) -> None:
    """``MismatchError`` unless the embeddings are those of this dataset's pictures, in order."""
    names = [row["file"] for row in dataset.manifest]
    if len(names) != len(embeddings) or (embeddings.images and list(embeddings.images) != names):
        raise MismatchError(f"{len(embeddings)} embeddings are not of its {len(names)} pictures", where=dataset.root,
                            fix=f"give the folder that the {what} were embedded from")


def write_leakage_sheet(out: str | os.PathLike, closest: Sequence[dict[str, Any]], made: FaceDataset,
                        training: FaceDataset) -> tuple[int, int]:
    """Write pairs (generated left, training right, cosine below) as one PNG, closest first; returns width and height.

    ``closest``: ``leakage_closest``, with ``image``, ``training_image`` (rows) and ``cosine``. ``InputError`` if empty.
    """
    if not closest:
        raise InputError("there is no pair to show", where=out)
    tiles = [_tile(made[item["image"]][0], training[item["training_image"]][0], item["cosine"]) for item in closest]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % min(PER_ROW, len(tiles)))
    width = min(PER_ROW, len(tiles))
    rows = [np.concatenate(tiles[at : at + width], axis=1) for at in range(0, len(tiles), width)]
    picture = Image.fromarray(np.concatenate(rows, axis=0))
    with atomic_path(out) as temporary:
        picture.save(temporary, "PNG")
    return picture.size


def _tile(one: np.ndarray, other: np.ndarray, cosine: float) -> np.ndarray:
    tile = Image.new("RGB", (2 * TILE + GAP, TILE + CAPTION), "white")
    for place, image in ((0, one), (TILE, other)):
        tile.paste(Image.fromarray(resize_rgb(image, TILE)), (place, 0))
    ImageDraw.Draw(tile).text((2, TILE + 1), f"{cosine:.3f}", fill="black")
    return np.asarray(tile)
