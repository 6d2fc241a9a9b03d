"""A folder of faces in, embeddings out, with the provenance that says which pictures and which recogniser."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .. import datasets
from ..foundation.errors import InputError
from ..foundation.files import read_json
from ..foundation.progress import Progress
from .embeddings import Embeddings
from .inputs import fit_images
from .recognizers import Recognizer


def _load(dataset: datasets.FaceDataset, indices: range, recognizer: Recognizer, resize: bool,
          digest: hashlib._Hash) -> np.ndarray:
    pictures = []
    for index in indices:
        data, name = dataset.read(index), dataset.name(index)
        digest.update(f"{dataset.manifest[index]['file']}\0{len(data)}\0".encode() + data)
        picture = datasets.load_rgb(data, where=name, notes=dataset.notes)
        try:
            pictures.append(fit_images(picture[None], recognizer.declaration, resize=resize)[0])
        except InputError as error:
            raise InputError(error.what, where=name, fix=error.fix) from error
    return np.stack(pictures)


def embed_dataset(source: str | os.PathLike | datasets.FaceDataset, recognizer: Recognizer, *, flip: bool = False,
                  resize: bool = False, batch: int = 256) -> Embeddings:
    """Embed every picture of a dataset, in its order.

    Args:
        source: anything ``negface.datasets.open`` reads, or an open dataset.
        flip: sum the raw embeddings of picture and mirror before normalising.
        resize: resize pictures of another size than the recogniser's instead of refusing them.
        batch: pictures read ahead and held at a time; changes nothing in the result.

    Returns:
        embeddings float32 ``[n, d]``, unit rows; provenance with ``recognizer`` (name, hash), its ``declaration``,
        ``flip``, ``resize``, ``dataset`` (path, counts, SHA-256 over names and bytes) and ``converted`` (what pictures
        that were not 8-bit RGB had done to them, counted).
    """
    dataset = source if isinstance(source, datasets.FaceDataset) else datasets.open(source)
    digest = hashlib.sha256()
    spans = [range(start, min(start + batch, len(dataset))) for start in range(0, len(dataset), batch)]
    parts = []
    with ThreadPoolExecutor(1) as reader, Progress("embedding", len(dataset), unit="images") as bar:
        coming = [reader.submit(_load, dataset, span, recognizer, resize, digest) for span in spans[:1]]
        for number, span in enumerate(spans):
            pictures = coming.pop().result()
            if number + 1 < len(spans):
                coming.append(reader.submit(_load, dataset, spans[number + 1], recognizer, resize, digest))
            parts.append(_embed(recognizer, pictures, flip, dataset, span))
            bar.advance(len(span))
    provenance = {
        "recognizer": recognizer.declaration.identity, "declaration": recognizer.declaration.to_dict(), "flip": flip,
        "resize": resize, "converted": dict(sorted(dataset.notes.items())),
        "dataset": {"path": str(dataset.root), "n_images": len(dataset), "n_identities": len(dataset.identities),
                    "hash": digest.hexdigest()}}
    if _nobody_exists(dataset):
        provenance["describes_real_people"] = False
    names = [dataset.manifest[index]["file"] for index in range(len(dataset))]
    return Embeddings(np.concatenate(parts), np.asarray(dataset.labels, np.int64), tuple(dataset.identities),
                      tuple(names), provenance)


def _nobody_exists(dataset: datasets.FaceDataset) -> bool:
    """Whether the folder is one of procedural people (``negface population make``)."""
    card = Path(dataset.root) / "population.json"
    return card.is_file() and read_json(card).get("describes_real_people") is False


def _embed(recognizer: Recognizer, pictures: np.ndarray, flip: bool, dataset: datasets.FaceDataset,
           span: range) -> np.ndarray:
    try:
        return recognizer.embed(pictures, flip=flip)
    except InputError as error:
        if not (error.where or "").startswith("image "):
            raise
        index = span[int(error.where.split()[1])]
        raise InputError(error.what, where=dataset.name(index), fix=error.fix) from error
