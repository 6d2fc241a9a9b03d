"""Randomness belongs to the image: numpy Philox keyed by SHA-256(dataset seed, identity id, image index, purpose).

The same key gives the same float32 numbers on every machine, whoever asks, in whatever order or batch; so a dataset
does not depend on how its work was cut up. Never ``torch.randn``.
"""

from __future__ import annotations

import hashlib

import numpy as np


def keyed_generator(*key: object) -> np.random.Generator:
    """A Philox generator whose 128-bit key is the SHA-256 of the key's parts (length-prefixed, so no two collide)."""
    digest = hashlib.sha256()
    for part in key:
        text = str(part).encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    words = np.frombuffer(digest.digest()[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(key=words))


def keyed_normal(shape: tuple[int, ...], *key: object) -> np.ndarray:
    """Standard normal float32 numbers of ``shape`` for a key."""
    return keyed_generator(*key).standard_normal(shape, dtype=np.float32)


def image_normal(shape: tuple[int, ...], seed: int, identity: str, image: int, purpose: str) -> np.ndarray:
    """The noise of one image: ``purpose`` is ``"prior"`` for x_T, ``"step/<timestep>"`` for stochastic schedulers."""
    return keyed_normal(shape, int(seed), str(identity), int(image), purpose)
