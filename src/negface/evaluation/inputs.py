"""What evaluation accepts: embeddings with labels, checked at the door, grouped by identity and brought to unit length.

Nothing behind this door looks for NaN, for zero rows or for wrong lengths again.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import existing_file
from negface.foundation.npz import open_npz

_BLOCK, _SHARE = 512, 8192


@dataclass(frozen=True)
class Gallery:
    """Unit embeddings in order of identity.

    ``embeddings`` float32 ``[n, d]``; ``codes`` int32 ``[n]``, ascending, the rank of each image's label; ``order``
    int64 ``[n]``, the caller's index of each row; ``names`` the distinct labels; ``sizes`` int64, images per identity.
    """

    embeddings: np.ndarray
    codes: np.ndarray
    order: np.ndarray
    names: np.ndarray
    sizes: np.ndarray

    @property
    def n_identities(self) -> int:
        return len(self.names)

    @property
    def n_genuine(self) -> int:
        """Pairs of images of one person, each counted once."""
        return int((self.sizes * (self.sizes - 1)).sum()) // 2

    @property
    def n_impostor(self) -> int:
        """Pairs of images of two people, each counted once."""
        total = int(self.sizes.sum())
        return (total * total - int((self.sizes**2).sum())) // 2


def unit_rows(embeddings: object, what: str = "embeddings") -> np.ndarray:
    """Check a float array ``[n, d]`` and return it as float32 unit rows; ``InputError`` names the first bad row."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise InputError(f"an array of numbers [n, d] is expected, got {array.dtype} {list(array.shape)}", where=what)
    array = np.ascontiguousarray(array, dtype=np.float32)
    unit, lengths = _divided_by_length(array)
    for bad, reason in ((~np.isfinite(lengths), "holds NaN or infinity"), (lengths == 0, "is all zero")):
        if bad.any():
            raise InputError(f"row {int(np.flatnonzero(bad)[0])} {reason} ({int(bad.sum())} such rows of {len(bad)})",
                             where=what, fix="embed these images again, or leave them out and say so")
    return unit


def _divided_by_length(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows divided by their length, and the lengths; in threads: most of the time is the first touch of new memory."""
    unit, lengths = np.empty_like(array), np.empty(len(array))

    def divide(start: int) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):  # such rows are refused by the caller
            for at in range(start, min(start + _SHARE, len(array)), _BLOCK):
                rows = slice(at, at + _BLOCK)
                lengths[rows] = np.sqrt(np.einsum("nd,nd->n", array[rows], array[rows], dtype=np.float64))
                np.divide(array[rows], lengths[rows, None], out=unit[rows], dtype=np.float64, casting="same_kind")

    starts = range(0, len(array), _SHARE)
    if len(starts) == 1:
        divide(0)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(divide, starts))
    return unit, lengths


def checked_labels(labels: object, n: int, what: str = "labels") -> np.ndarray:
    """Labels as a one-dimensional array of ``n`` integers or strings; ``InputError`` otherwise."""
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) != n:
        raise InputError(f"one label for each of the {n} embeddings is expected, got shape {list(array.shape)}",
                         where=what)
    if array.dtype.kind not in "iuUSb":
        raise InputError(f"labels are integers or strings, got {array.dtype}", where=what,
                         fix="labels name identities; they are not scores")
    return array


def grouped(embeddings: object, labels: object, what: str = "embeddings") -> Gallery:
    """Checked unit embeddings in order of identity, stable within one."""
    unit = unit_rows(embeddings, what)
    names, codes = np.unique(checked_labels(labels, len(unit), f"labels of {what}"), return_inverse=True)
    sizes = np.bincount(codes, minlength=len(names)).astype(np.int64)
    order = np.argsort(codes, kind="stable")
    ordered = unit if (np.diff(codes) >= 0).all() else unit[order]
    return Gallery(ordered, codes[order].astype(np.int32), order, names, sizes)


def gallery(embeddings: object, labels: object) -> Gallery:
    """As ``grouped``; needs two identities, one of them with two images (``InputError``)."""
    people = grouped(embeddings, labels)
    if people.n_identities < 2:
        raise InputError("separability needs at least two identities; all images carry one label", where="labels")
    if people.sizes.max() < 2:
        raise InputError("no identity has two images, so there is no genuine pair", where="labels",
                         fix="embed at least two images of a person")
    return people


def read_pose(path: str | os.PathLike) -> tuple[np.ndarray, str]:
    """``pose`` float ``[n, 3]`` (or ``yaw``, ``pitch``, ``roll`` ``[n]``) in degrees, and ``pose_model`` if named.

    An ``.npz`` of plain arrays; ``FormatError`` for anything else.
    """
    path = existing_file(path, "pose file")
    with open_npz(path) as archive:
        angles = ("yaw", "pitch", "roll")
        if "pose" in archive:
            pose = archive["pose"]
        elif all(angle in archive for angle in angles):
            pose = np.stack([archive[angle] for angle in angles], axis=1)
        else:
            raise FormatError("has neither pose nor yaw, pitch and roll", where=path)
        return pose, str(archive["pose_model"]) if "pose_model" in archive else "not named"
