"""Benchmarks as one kind of thing: pictures, what to compare, and whose pictures they are where that is known.

A verification ``.bin``, a pair list with a folder (LFW's form, CSV, lines), or an IJB folder. Opening one looks for
every picture, so that a missing one is told before anything is embedded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from negface.datasets import IjbMeta, load_rgb, open_pairs, read_ijb
from negface.datasets.ijb import SETS
from negface.foundation.errors import InputError
from negface.foundation.hashing import sha256_array, sha256_json

from .pair_embeddings import Pictures, distinct_pictures

LIST_NAMES = ("pairs.csv", "pairs.txt")
Align = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""An aligner by landmarks: ``(image uint8 [H, W, 3], points [5, 2]) -> uint8 [112, 112, 3]``."""


@dataclass(frozen=True)
class Benchmark:
    """A 1:1 benchmark.

    ``pictures``; ``same`` bool ``[n]``; ``people`` and ``names``, one a picture in the order of pairs (2n, empty = not
    known); ``ijb`` only for templates; ``sha256`` of pictures and pairs.
    """

    name: str
    pictures: Pictures
    same: np.ndarray
    people: tuple[str, ...]
    sha256: str
    names: tuple[str, ...] = ()
    ijb: IjbMeta | None = None


def open_benchmark(path: str | os.PathLike, *, name: str = "", images: str | os.PathLike | None = None,
                   align: Align | None = None) -> Benchmark:
    """Open a benchmark and make sure that its pictures are there.

    Args:
        path: a ``.bin``, a pair list, a folder with ``pairs.csv`` or ``pairs.txt``, or an IJB folder.
        name: what tables call it; default its file's or folder's name.
        images: the folder that a pair list's names start from (default: where the list lies).
        align: brings an IJB crop to the recognisers' template; needed for IJB only.

    Raises:
        InputError: pictures that are missing (how many, the first names), no benchmark; FormatError: a damaged one.
    """
    path = Path(path)
    name = name or path.stem
    if path.is_dir():
        if _is_ijb(path):
            return _templates(path, name, align)
        path = _list_in(path)
    pairs = open_pairs(path, images)
    pictures = distinct_pictures(pairs.read, 2 * len(pairs), pairs.names)
    content = sha256_json([pictures.sha256, sha256_array(pictures.row_of), sha256_array(pairs.same)])
    return Benchmark(name, pictures, pairs.same, people_of(pairs.names), content, pairs.names)


def people_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """The person of each picture: the folder that holds it; empty if a name has no folder."""
    people = tuple(os.path.basename(os.path.dirname(name)) for name in names)
    return people if all(people) else ()


def _is_ijb(folder: Path) -> bool:
    meta = folder / "meta" if (folder / "meta").is_dir() else folder
    return any((meta / f"{name}_face_tid_mid.txt").is_file() for name in SETS)


def _list_in(folder: Path) -> Path:
    found = next((folder / name for name in LIST_NAMES if (folder / name).is_file()), None)
    if found is None:
        raise InputError("holds no benchmark", where=folder,
                         fix=f"expected {' or '.join(LIST_NAMES)} or IJB meta files; name a .bin or a list itself")
    return found


def _templates(folder: Path, name: str, align: Align | None) -> Benchmark:
    if align is None:
        raise InputError("IJB's crops must be aligned by their landmarks", where=folder, fix="give an aligner")
    meta = read_ijb(folder)
    missing = [picture for picture in meta.names if not (meta.images / picture).is_file()]
    if missing:
        raise InputError(f"{len(missing)} of {len(meta.names)} pictures are not there: {', '.join(missing[:3])}"
                         f"{', ...' if len(missing) > 3 else ''}", where=meta.images,
                         fix="put the loose crops into loose_crop/ beside meta/")

    def load(index: int) -> np.ndarray:
        return align(load_rgb(meta.path(index)), meta.landmarks[index])

    # Hundreds of thousands of crops are not read only to be hashed: names, sizes and landmarks stand for them.
    sizes = np.array([meta.path(index).stat().st_size for index in range(len(meta.names))])
    content = sha256_json([list(meta.names), sha256_array(sizes), sha256_array(meta.landmarks)])
    pictures = Pictures(np.arange(len(meta.names)), load, lambda index: str(meta.path(index)), content)
    whole = [content, *(sha256_array(getattr(meta, key)) for key in ("templates", "media", "scores", "pairs", "same"))]
    return Benchmark(name, pictures, meta.same, (), sha256_json(whole), ijb=meta)
