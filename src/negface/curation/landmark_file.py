"""Landmarks that another detector found: a text file with five points a picture, in place of a detector.

A line is a name and ten numbers, x and y of the five points in pixels, perhaps a score; blanks, tabs or commas part
them. So CelebA's lists (a count and a line of titles first), VGGFace2's CSV and IJB's ``name_5pts_score.txt`` are read.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..datasets import is_image_name
from ..foundation.errors import FormatError, InputError
from ..foundation.files import existing_file
from ..foundation.hashing import sha256_file
from ..perception.faces import Detections

_NUMBERS = 10
_TITLES = 2  # lines before the first row


@dataclass(frozen=True)
class Landmarks:
    """Five points of faces by the picture's name.

    ``names`` of the n rows; ``points`` float32 ``[n, 5, 2]`` in the order of ``Detections``; ``scores`` float32
    ``[n]``, NaN where the file has none.
    """

    path: Path
    names: tuple[str, ...]
    points: np.ndarray
    scores: np.ndarray

    def of(self, files: Sequence[str]) -> tuple[list[Detections], int]:
        """The faces of each picture, and how many rows are of no picture.

        A name is a picture's path in the dataset, its ending may differ or be left out; names without folders are
        file names, if those of the dataset differ. ``InputError`` if no picture is named.
        """
        rows = defaultdict(list)
        for row, name in enumerate(self.names):
            rows[_bare(name)].append(row)
        wanted = [_bare(file) for file in files]
        short = [PurePosixPath(name).name for name in wanted]
        if not any("/" in name for name in rows) and len(set(short)) == len(short):
            wanted = short
        found = [self._one(files[index], rows.get(name, [])) for index, name in enumerate(wanted)]
        used = {int(row) for picked in found for row in picked}
        if not used:
            raise InputError(f"names none of the {len(files)} pictures: it has {self.names[0]!r}, the dataset has "
                             f"{files[0]!r}", where=self.path, fix="names are paths inside the dataset")
        return [self._faces(picked) for picked in found], len(self.names) - len(used)

    def _one(self, file: str, rows: list[int]) -> list[int]:
        exact = [row for row in rows if self.names[row] == file]
        return exact or rows

    def _faces(self, rows: list[int]) -> Detections:
        points = self.points[rows].reshape(-1, 5, 2)
        low, high = points.min(axis=1), points.max(axis=1)
        return Detections(np.concatenate([low, high - low], axis=1), points, self.scores[rows])

    def to_dict(self) -> dict[str, Any]:
        """What a summary says of it."""
        return {"file": self.path.name, "sha256": sha256_file(self.path), "n_rows": len(self.names)}


def _bare(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if is_image_name(name) else name


def read_landmarks(path: str | os.PathLike, *, least_score: float | None = None) -> Landmarks:
    """Read a landmark file.

    Args:
        path: see above; points are the eye on the left of the picture, the other eye, nose, mouth corner on the left,
            the other corner.
        least_score: rows of a smaller score are left out (a picture without another then counts as without a face).

    Raises:
        FormatError: a line that is no row, points that coincide, a count that is not held, eyes the other way round
            in most rows; names the line.
    """
    path = existing_file(Path(path), "landmark file")
    names, values, announced = [], [], None
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as handle:
        for number, line in enumerate(handle, 1):
            words = _words(line)
            if not words:
                continue
            row = _numbers(words[1:])
            if not names and number <= _TITLES and len(words) == 1 and words[0].isdecimal():
                announced = int(words[0][:12])
                continue
            if not names and number <= _TITLES and _are_titles(words):
                continue
            _check(row, words, number, path)
            names.append(words[0])
            values.append((row + [np.nan])[: _NUMBERS + 1])
    if announced is not None and announced != len(names):
        raise FormatError(f"announces {announced} rows, holds {len(names)}", where=path, fix="copy it again")
    if not names:
        raise FormatError("holds no landmarks", where=path, fix="a line is: name x1 y1 x2 y2 x3 y3 x4 y4 x5 y5")
    return _landmarks(path, names, np.asarray(values, np.float64), least_score)


def _landmarks(path: Path, names: list[str], values: np.ndarray, least_score: float | None) -> Landmarks:
    points = values[:, :_NUMBERS].astype(np.float32).reshape(-1, 5, 2)
    turned = int((points[:, 0, 0] > points[:, 1, 0]).sum())
    if 2 * turned > len(names):
        raise FormatError(f"the first eye is to the right of the second in {turned} of {len(names)} rows", where=path,
                          fix="order: eye on the left of the picture, the other, nose, left and right mouth corner")
    scores = values[:, _NUMBERS].astype(np.float32)
    if least_score is None:
        return Landmarks(path, tuple(names), points, scores)
    if np.isnan(scores).any():
        raise InputError("has rows without a score, so none can be too weak", where=path, fix="leave --least-score out")
    kept = np.flatnonzero(scores >= least_score)
    if not len(kept):
        raise InputError(f"no row has a score of {least_score:g} or more", where=path)
    return Landmarks(path, tuple(names[row] for row in kept), points[kept], scores[kept])


def _words(line: str) -> list[str]:
    line = line.strip()
    separator = "," if "," in line else "\t" if "\t" in line else None
    words = [word.strip().strip('"') for word in line.split(separator)] if line else []
    return words[:-1] if len(words) > 1 and not words[-1] else words


def _numbers(words: list[str]) -> list[float] | None:
    try:
        return [float(word) for word in words] if len(words) in (_NUMBERS, _NUMBERS + 1) else None
    except ValueError:
        return None


def _are_titles(words: list[str]) -> bool:
    return _NUMBERS <= len(words) <= _NUMBERS + 2 and all(_numbers([word] * _NUMBERS) is None for word in words)


def _check(row: list[float] | None, words: list[str], number: int, path: Path) -> None:
    if row is None or not words[0]:
        raise FormatError(f"line {number} has {len(words)} columns that are not a name, ten numbers and perhaps a "
                          "score", where=path)
    if not all(abs(value) < 1e6 for value in row):
        raise FormatError(f"line {number}: a number is not finite or no place in a picture", where=path)
    if np.ptp(row[:_NUMBERS:2]) + np.ptp(row[1:_NUMBERS:2]) < 1e-3:
        raise FormatError(f"line {number}: the points of {words[0]!r} coincide", where=path,
                          fix="remove the line: the picture then counts as one without a face")
