"""Recognisers: a picture of a face to a unit vector, with the declaration that makes the vector mean something.

Flip rule as in insightface's verification: the raw embeddings of a picture and its mirror are summed, then normalised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..foundation.errors import InputError
from .declarations import Declaration, resolve_declaration
from .inputs import fit_images
from .networks import Network, answers, available_threads, module_network, open_network


class Recognizer:
    """A face recogniser: make one with ``load_recognizer``, or from a torch module with ``Recognizer.from_module``."""

    def __init__(self, network: Network, declaration: Declaration, *, threads: int = 1, device: str = "cpu"):
        self.declaration, self.threads, self.device, self._network = declaration, threads, device, network

    @classmethod
    def from_module(cls, module: Any, declaration: Declaration, *, device: str = "cpu") -> Recognizer:
        """A recogniser from a torch module ``[n, 3, h, w] -> [n, dim]`` (torch brings its own threads)."""
        return cls(module_network(module, device=device), declaration, device=device)

    def raw(self, images: np.ndarray, *, resize: bool = False) -> np.ndarray:
        """Embeddings before normalisation, float32 ``[n, dim]``, of uint8 ``[n, H, W, 3]`` RGB images."""
        images = fit_images(images, self.declaration, resize=resize)
        return answers(self._network, images, self.declaration, threads=self.threads, device=self.device)

    def embed(self, images: np.ndarray, flip: bool = False, *, resize: bool = False) -> np.ndarray:
        """Unit embeddings, float32 ``[n, dim]``, of uint8 ``[n, H, W, 3]`` RGB images.

        Args:
            images: pictures of the declared size, aligned to the declared template.
            flip: sum the raw embeddings of picture and mirror before normalising (twice the work).
            resize: resize pictures of another size instead of refusing them (``InputError``).
        """
        images = fit_images(images, self.declaration, resize=resize)
        vectors = self.raw(images)
        if flip:
            vectors = vectors + self.raw(images[:, :, ::-1])
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
        if len(bad):
            raise InputError(f"{self.declaration.name} gave a zero or non-finite embedding", where=f"image {bad[0]}",
                             fix="look at the picture; check mean and std of the declaration")
        return (vectors / lengths).astype(np.float32)


def load_recognizer(path: str | os.PathLike, declaration: Declaration | Mapping | str | os.PathLike | None = None, *,
                    threads: int | None = None, device: str = "cpu") -> Recognizer:
    """Open a recogniser file, ONNX or torch, by its declaration.

    Args:
        path: the model file.
        declaration: a value, a mapping, or a JSON/TOML file; None = the sidecar ``<file>.json``, else the built-in
            table of well-known files by SHA-256.
        threads: pictures computed at the same time (None = all processors); the answer does not depend on it.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises ``InputError`` (no file, no declaration, no such device), ``MismatchError`` (hash, input size, dimension
    against the declaration), ``FormatError`` (truncated file).
    """
    found = resolve_declaration(path, declaration, task="recognizer")
    network = open_network(Path(path), found, device=device)
    threads = threads or (available_threads() if found.kind == "onnx" else 1)
    return Recognizer(network, found, threads=threads, device=device)


def recognizer_hash(recognizer: Recognizer | Declaration | Mapping | str | None) -> str | None:
    """SHA-256 of a recogniser given as itself, its declaration, ``{"name", "hash"}``, or the hash; None if unknown."""
    if isinstance(recognizer, Recognizer):
        recognizer = recognizer.declaration
    if isinstance(recognizer, Declaration):
        return recognizer.sha256 or None
    if isinstance(recognizer, Mapping):
        return recognizer.get("hash") or recognizer.get("sha256") or None
    return recognizer or None


def same_recognizer(first: Recognizer | Declaration | Mapping | str | None,
                    second: Recognizer | Declaration | Mapping | str | None) -> bool:
    """Whether two recognisers are the same file, by hash (never by name); one of unknown hash is never the same."""
    one, other = recognizer_hash(first), recognizer_hash(second)
    return one is not None and other is not None and one.lower() == other.lower()
