"""IJB-B and IJB-C meta files, as insightface hands them out: which picture is of which template, and which to compare.

``<set>_face_tid_mid.txt``: picture, template, media. ``<set>_template_pair_label.txt``: template, template, same.
``<set>_name_5pts_score.txt``: picture, five landmarks x y in ``loose_crop``, detector score. Source: insightface's
IJB evaluation; the sets are those of Whitelam et al. (2017) and Maze et al. (2018).
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import existing_file, existing_folder

SETS = ("ijbc", "ijbb")
PICTURES = "loose_crop"
_BLOCK = 1_000_000


@dataclass(frozen=True)
class IjbMeta:
    """The 1:1 protocol of IJB-B or IJB-C.

    ``names`` of the n pictures in ``images``; ``templates``, ``media`` int32 ``[n]``; ``landmarks`` float32
    ``[n, 5, 2]`` (x, y in pixels of the loose crop: eyes, nose, mouth corners); ``scores`` float32 ``[n]`` of the
    detector; ``pairs`` int32 ``[p, 2]`` of templates; ``same`` bool ``[p]``.
    """

    images: Path
    names: tuple[str, ...]
    templates: np.ndarray
    media: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray
    pairs: np.ndarray
    same: np.ndarray

    def path(self, index: int) -> Path:
        """The file of picture ``index``."""
        return self.images / self.names[index]


def read_ijb(root: str | os.PathLike) -> IjbMeta:
    """Read the meta files of ``root`` (with ``meta/`` and ``loose_crop/``, or the meta folder itself).

    Takes 9 bytes a pair (141 MB for the 15.7 million of IJB-C). Pictures are not looked for.

    Raises:
        InputError: no meta files. FormatError: a line that does not fit, files that tell of other pictures, a pair of
        a template without pictures; names file and line or template.
    """
    root = existing_folder(root, "IJB folder")
    meta = root / "meta" if (root / "meta").is_dir() else root
    chosen = [name for name in SETS if (meta / f"{name}_face_tid_mid.txt").is_file()]
    if len(chosen) != 1:
        raise InputError("holds no IJB meta files" if not chosen else "holds the meta files of two sets", where=meta,
                         fix=f"expected one of {', '.join(f'{name}_face_tid_mid.txt' for name in SETS)}")
    names, templates, media = _membership(meta / f"{chosen[0]}_face_tid_mid.txt")
    landmarks, scores = _landmarks(meta / f"{chosen[0]}_name_5pts_score.txt", names)
    pairs, same = _pairs(meta / f"{chosen[0]}_template_pair_label.txt", templates)
    pictures = (root if meta != root else root.parent) / PICTURES
    return IjbMeta(pictures, names, templates, media, landmarks, scores, pairs, same)


def _rows(path: Path, columns: int) -> tuple[tuple[str, ...], np.ndarray]:
    """First column as text, the others as float64."""
    names, values = [], []
    with open(existing_file(path, "IJB meta file"), encoding="utf-8", errors="replace") as handle:
        for number, line in enumerate(handle, 1):
            words = line.split()
            if not words:
                continue
            try:
                numbers = [float(word) for word in words[1:]]
            except ValueError as error:
                raise FormatError(f"line {number}: {error}", where=path) from error
            if len(words) != columns:
                raise FormatError(f"line {number} has {len(words)} columns, {columns} were expected", where=path)
            names.append(words[0])
            values.append(numbers)
    if not names:
        raise InputError("is empty", where=path)
    array = np.asarray(values)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise FormatError(f"the numbers of {names[bad[0]]} are not finite", where=path)
    return tuple(names), array


def _membership(path: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    names, values = _rows(path, 3)
    if (values != np.floor(values)).any() or np.abs(values).max() >= 2**31:
        row = int(np.flatnonzero((values != np.floor(values)).any(1) | (np.abs(values) >= 2**31).any(1))[0])
        raise FormatError(f"template and media of {names[row]} are not numbers of such", where=path)
    return names, values[:, 0].astype(np.int32), values[:, 1].astype(np.int32)


def _landmarks(path: Path, expected: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    names, values = _rows(path, 12)
    if names != expected:
        at = next((i for i, (a, b) in enumerate(zip(names, expected)) if a != b), min(len(names), len(expected)))
        raise FormatError(f"tells of other pictures than face_tid_mid from row {at + 1} on ({len(names)} rows, "
                          f"{len(expected)} there)", where=path, fix="both must list the same pictures in order")
    return values[:, :10].astype(np.float32).reshape(-1, 5, 2), values[:, 10].astype(np.float32)


def _pairs(path: Path, templates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    blocks, count = [], 0
    with open(existing_file(path, "IJB meta file"), encoding="utf-8", errors="replace") as handle:
        while True:
            block = _block(handle, path, count)
            if not len(block):
                break
            blocks.append((block[:, :2].copy(), block[:, 2] == 1))
            count += len(block)
    if not count:
        raise InputError("is empty", where=path)
    pairs, same = (np.concatenate([block[i] for block in blocks]) for i in (0, 1))
    unknown = np.setdiff1d(pairs, templates)
    if len(unknown):
        raise FormatError(f"compares template {unknown[0]}, which has no pictures", where=path)
    return pairs, same


def _block(handle: TextIO, path: Path, before: int) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty rest is the end of the file
            block = np.loadtxt(handle, dtype=np.int32, max_rows=_BLOCK, ndmin=2, comments=None)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"not three whole numbers a line after line {before} ({error})", where=path) from error
    if block.size and (block.shape[1] != 3 or not np.isin(block[:, 2], (0, 1)).all()):
        raise FormatError(f"not 'template template 0|1' after line {before}", where=path)
    return block
