"""Embeddings of a benchmark's pictures: each different picture once, mirror apart, kept in a cache by content.

The key of a cache file is the hash of the recogniser, its declaration, the pictures' bytes and the resize; so another
list over the same pictures in the same order, or the same benchmark with and without flip, is not embedded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from negface.datasets import load_rgb
from negface.foundation.errors import InputError
from negface.foundation.hashing import sha256_json
from negface.foundation.progress import track
from negface.foundation.tensors import read_tensors, write_tensors
from negface.perception import Recognizer

_INPUT = ("size", "channels", "mean", "std", "dim", "architecture", "options", "output_name")


@dataclass(frozen=True)
class Pictures:
    """Pictures to embed: ``distinct`` of them, ``row_of[k]`` int64 is the distinct picture that picture k is.

    ``load(i)`` gives distinct picture i as uint8 ``[H, W, 3]``; ``name(i)`` is its name in errors; ``sha256`` is the
    hash of all contents in order.
    """

    row_of: np.ndarray
    load: Callable[[int], np.ndarray]
    name: Callable[[int], str]
    sha256: str

    @property
    def distinct(self) -> int:
        return int(self.row_of.max()) + 1


def distinct_pictures(read: Callable[[int], bytes], n: int, names: Sequence[str] = ()) -> Pictures:
    """The different pictures among n encoded ones, by their bytes, in order of first appearance."""
    first: list[int] = []
    seen: dict[bytes, int] = {}
    rows, digest = np.empty(n, np.int64), hashlib.sha256()
    for k in range(n):
        key = hashlib.sha256(read(k)).digest()
        if key not in seen:
            seen[key] = len(first)
            first.append(k)
            digest.update(key)
        rows[k] = seen[key]

    def name(i: int) -> str:
        return names[first[i]] if names else f"picture {first[i]}"

    return Pictures(rows, lambda i: load_rgb(read(first[i]), where=name(i)), name, digest.hexdigest())


def embed_pictures(recognizer: Recognizer, pictures: Pictures, *, flip: bool = True, batch: int = 64,
                   resize: bool = False, cache: Path | None = None) -> np.ndarray:
    """Raw embeddings float64 ``[n, d]`` of all n pictures, those of their mirrors added where ``flip``.

    Memory: one batch of pictures and the embeddings. ``cache`` is a folder for files named by content; a file that is
    damaged is an error (``FormatError``), never silently made again.
    """
    parts = [_side(recognizer, pictures, mirrored, batch, resize, cache) for mirrored in ([False, True][:1 + flip])]
    return sum(part.astype(np.float64) for part in parts)[pictures.row_of]


def _side(recognizer: Recognizer, pictures: Pictures, mirrored: bool, batch: int, resize: bool,
          cache: Path | None) -> np.ndarray:
    declared = recognizer.declaration.to_dict()
    place = None
    if cache is not None and declared["sha256"]:
        key = sha256_json([declared["sha256"], {name: declared[name] for name in _INPUT}, pictures.sha256, resize])
        place = Path(cache) / f"{key[:32]}{'-mirror' if mirrored else ''}.safetensors"
        if place.is_file():
            return read_tensors(place, ("raw",))[0]["raw"]
    raw = np.concatenate(list(_raw(recognizer, pictures, mirrored, batch, resize)))
    if place is not None:
        write_tensors(place, {"raw": raw}, {"recognizer": recognizer.declaration.identity, "mirrored": mirrored,
                                            "pictures": pictures.sha256})
    return raw


def _raw(recognizer: Recognizer, pictures: Pictures, mirrored: bool, batch: int, resize: bool) -> Iterator[np.ndarray]:
    label = f"embedding with {recognizer.declaration.name}{', mirrored' if mirrored else ''}"
    for rows in _blocks(track(range(pictures.distinct), label, unit="images"), batch):
        images = [pictures.load(row) for row in rows]
        shapes = {image.shape for image in images}
        if len(shapes) > 1 and not resize:
            odd = next(row for row, image in zip(rows, images) if image.shape != images[0].shape)
            raise InputError(f"pictures differ in size ({', '.join(f'{s[1]}x{s[0]}' for s in sorted(shapes))})",
                             where=pictures.name(odd), fix="align them to one size, or ask for a resize (--resize)")
        for group in _equal_shapes(images):
            block = np.stack(group)
            yield recognizer.raw(np.ascontiguousarray(block[:, :, ::-1]) if mirrored else block, resize=resize)


def _equal_shapes(images: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    start = 0
    for end in range(1, len(images) + 1):
        if end == len(images) or images[end].shape != images[start].shape:
            yield images[start:end]
            start = end


def _blocks(items: Iterable[int], size: int) -> Iterator[list[int]]:
    items = iter(items)
    while block := list(islice(items, size)):
        yield block
