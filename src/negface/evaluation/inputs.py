"""What evaluation accepts: embeddings with labels, checked at the door, grouped by identity and brought to unit length.

Nothing behind this door looks for NaN, for zero rows or for wrong lengths again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import existing_file
from negface.foundation.npz import open_npz

_BLOCK, _SHARE = 512, 8192
_LAST_PLACE = 2.0**-23


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
    """Check a float array ``[n, d]`` and return it as float32 unit rows; ``InputError`` names the first bad row.

    Rows that are all of unit length are returned as they are, without a copy.
    """
    array = _checked_array(embeddings, what)
    lengths = _checked_lengths(array, what)
    return array if _all_unit(lengths) else _divided(array, lengths)


def _checked_array(embeddings: object, what: str) -> np.ndarray:
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise InputError(f"an array of numbers [n, d] is expected, got {array.dtype} {list(array.shape)}", where=what)
    return np.ascontiguousarray(array, dtype=np.float32)


def _checked_lengths(array: np.ndarray, what: str) -> np.ndarray:
    """Length of every row, float64 ``[n]``."""
    lengths = np.empty(len(array))

    def measure(rows: slice) -> None:
        lengths[rows] = np.sqrt(np.einsum("nd,nd->n", array[rows], array[rows], dtype=np.float64))

    _for_blocks(measure, len(array))
    for bad, reason in ((~np.isfinite(lengths), "holds NaN or infinity"), (lengths == 0, "is all zero")):
        if bad.any():
            raise InputError(f"row {int(np.flatnonzero(bad)[0])} {reason} ({int(bad.sum())} such rows of {len(bad)})",
                             where=what, fix="embed these images again, or leave them out and say so")
    return lengths


def _all_unit(lengths: np.ndarray) -> bool:
    """Whether dividing by the lengths would only round once more: they are 1 within a float32's last place."""
    return bool((np.abs(lengths - 1) <= _LAST_PLACE).all())


def _divided(array: np.ndarray, lengths: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """Rows divided by their length, in ``order``: one copy, for the first touch of new memory costs more than
    the arithmetic."""
    unit = np.empty_like(array)

    def divide(rows: slice) -> None:
        chosen = rows if order is None else order[rows]
        np.divide(array[chosen], lengths[chosen, None], out=unit[rows], dtype=np.float64, casting="same_kind")

    _for_blocks(divide, len(array))
    return unit


def _for_blocks(work: Callable[[slice], None], n: int) -> None:
    """``work`` on slices of ``n`` rows that stay in the processor's cache, in threads."""
    def share(start: int) -> None:
        for at in range(start, min(start + _SHARE, n), _BLOCK):
            work(slice(at, at + _BLOCK))

    starts = range(0, n, _SHARE)
    if len(starts) == 1:
        share(0)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(share, starts))


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
    """Checked unit embeddings in order of identity, stable within one; the caller's own array where it is that."""
    array = _checked_array(embeddings, what)
    lengths = _checked_lengths(array, what)
    names, codes = np.unique(checked_labels(labels, len(array), f"labels of {what}"), return_inverse=True)
    sizes = np.bincount(codes, minlength=len(names)).astype(np.int64)
    order, in_order = np.argsort(codes, kind="stable"), bool((np.diff(codes) >= 0).all())
    if _all_unit(lengths):
        unit = array if in_order else array[order]
    else:
        unit = _divided(array, lengths, None if in_order else order)
    return Gallery(unit, codes[order].astype(np.int32), order, names, sizes)


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
