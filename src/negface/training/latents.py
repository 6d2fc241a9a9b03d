"""Latents cached once: every picture and its mirror image through the frozen autoencoder, with their contexts.

The released trainer encodes every picture anew in every epoch, two thirds of its arithmetic; here it is done once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from negface import datasets
from negface.foundation.errors import InputError, MismatchError
from negface.foundation.hashing import sha256_array, sha256_json
from negface.foundation.progress import Progress
from negface.foundation.tensors import read_metadata, read_tensors, write_tensors
from negface.models import VQAutoencoder
from negface.perception import Embeddings, read_embeddings

ENCODE_BATCH = 32


@dataclass(frozen=True)
class Faces:
    """Training pictures uint8 ``[n, S, S, 3]`` RGB, labels int64 ``[n]``, their dataset rows, names, content hash."""

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    identities: tuple[str, ...]
    hash: str


@dataclass(frozen=True)
class Latents:
    """Scaled latents float32 ``[n, 2, c, h, w]`` (picture, mirror image) and contexts float32 ``[n, 2, d]``."""

    latents: np.ndarray
    contexts: np.ndarray
    labels: np.ndarray
    conditioner: dict[str, Any] | None
    hash: str


def chosen_rows(dataset: datasets.FaceDataset, identities: Sequence[str] | None = None) -> np.ndarray:
    """Rows int64 of the pictures of the named people (all, if ``None``).

    Raises:
        InputError: a name that is not in the dataset, or nobody left.
    """
    rows = np.arange(len(dataset))
    if identities is not None:
        unknown = sorted(set(identities) - set(dataset.identities))
        if unknown:
            raise InputError(
                f"{len(unknown)} identities are not in the dataset, the first is {unknown[0]!r}", where=dataset.root
            )
        wanted = np.isin(np.array(dataset.identities), list(identities))
        rows = rows[wanted[dataset.labels]]
    if len(rows) == 0:
        raise InputError("no pictures to train on", where=dataset.root)
    return rows


def load_faces(
    source: str | os.PathLike | datasets.FaceDataset, size: int, identities: Sequence[str] | None = None
) -> Faces:
    """Load the pictures of the named people (all, if ``None``), resized to ``size``; raises as ``chosen_rows``."""
    dataset = source if isinstance(source, datasets.FaceDataset) else datasets.open(source)
    rows = chosen_rows(dataset, identities)
    images = np.empty((len(rows), size, size, 3), np.uint8)
    with Progress("loading faces", len(rows), unit="images") as bar:
        for place, row in enumerate(rows):
            images[place] = datasets.resize_rgb(dataset[int(row)][0], size)
            bar.advance()
    names = tuple(dataset.identities[label] for label in sorted(set(dataset.labels[rows].tolist())))
    return Faces(images, dataset.labels[rows], rows, names, sha256_array(images))


def read_contexts(
    embeddings: str | os.PathLike | Embeddings, rows: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, Embeddings]:
    """Unit contexts float32 of the given dataset rows; ``MismatchError`` if the embeddings are of another dataset."""
    value = embeddings if isinstance(embeddings, Embeddings) else read_embeddings(embeddings)
    if len(value) <= rows.max() or not np.array_equal(np.asarray(value.labels)[rows], labels):
        raise MismatchError(
            f"the embeddings ({len(value)} rows) are not of these pictures",
            where="embeddings",
            fix="embed the same folder of faces with `negface embed`",
        )
    vectors = np.asarray(value.embeddings, dtype=np.float32)[rows]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), value


def cache_latents(
    faces: Faces,
    autoencoder: VQAutoencoder,
    autoencoder_hash: str,
    embeddings: str | os.PathLike | Embeddings,
    mirrored: str | os.PathLike | Embeddings | None,
    path: Path,
) -> Latents:
    """Latents and contexts of all pictures and mirror images; read from ``path`` if it holds just these.

    Args:
        faces: the pictures.
        autoencoder: frozen; its ``scaling_factor`` is applied.
        autoencoder_hash: content hash of its weights.
        embeddings: the conditioner's embedding per dataset row.
        mirrored: those of the mirror images; the unmirrored ones stand in if ``None``.
        path: cache file.
    """
    contexts, value = read_contexts(embeddings, faces.rows, faces.labels)
    other = contexts if mirrored is None else read_contexts(mirrored, faces.rows, faces.labels)[0]
    both = np.stack([contexts, other], axis=1)
    key = sha256_json({"faces": faces.hash, "autoencoder": autoencoder_hash, "contexts": sha256_array(both)})
    if path.exists() and read_metadata(path).get("key") == key:
        tensors, _ = read_tensors(path, ("latents",))
        latents = tensors["latents"].astype(np.float32)
    else:
        latents = _encode(faces.images, autoencoder)
        write_tensors(path, {"latents": latents}, {"key": key})
    return Latents(latents.astype(np.float32), both, faces.labels, value.recognizer, key)


def _encode(images: np.ndarray, autoencoder: VQAutoencoder) -> np.ndarray:
    out = np.empty((len(images), 2, *autoencoder.latent_shape), np.float16)
    scale = autoencoder.config.scaling_factor
    with torch.no_grad(), Progress("caching latents", len(images), unit="images") as bar:
        for start in range(0, len(images), ENCODE_BATCH):
            block = torch.from_numpy(images[start : start + ENCODE_BATCH]).to(autoencoder.device)
            block = block.permute(0, 3, 1, 2).float().div(127.5).sub(1)
            pair = torch.cat([block, block.flip(3)]).contiguous(memory_format=torch.channels_last)
            encoded = (autoencoder.encode(pair).float() * scale).cpu().numpy()
            out[start : start + len(block), 0], out[start : start + len(block), 1] = np.split(encoded, 2)
            bar.advance(len(block))
    return out
