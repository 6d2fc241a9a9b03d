"""Five-point alignment: the least-squares similarity to a template (Umeyama, PAMI 1991), then a bilinear warp.

In the plane a similarity without reflection is one complex multiplication and one addition, z -> a z + b, and its
least-squares fit is closed: a = sum(conj(p) q) / sum(|p|^2) over centred points. So a face is never mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..datasets.templates import TEMPLATE_SIZE, fit_similarity, template
from ..foundation.errors import InputError, UnknownNameError
from ..perception.faces import Detections


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse ``[2, 3]`` of an affine map ``[2, 3]``."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)


def _shrink(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average whole blocks when the warp would skip pixels: bilinear sampling alone aliases below half size."""
    factor = int(1.0 / np.hypot(matrix[0, 0], matrix[1, 0]) + 1e-6)
    if factor < 2:
        return image, matrix
    small = np.asarray(Image.fromarray(image).reduce(factor))
    # block centres: x = factor * x' + (factor - 1) / 2
    offset = matrix[:, :2] @ np.full((2, 1), (factor - 1) / 2)
    return small, np.concatenate([matrix[:, :2] * factor, matrix[:, 2:] + offset], axis=1)


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Warp a picture by a similarity, bilinear, black outside.

    Args:
        image: uint8 ``[H, W, 3]``.
        matrix: similarity, float ``[2, 3]``, from pixels of ``image`` to pixels of the result (x, y; centres are
            whole numbers).
        size: height and width of the result.

    Returns:
        uint8 ``[*size, 3]``. Computed in float64 by numpy alone, so it is the same wherever it runs; differs from
        OpenCV's ``warpAffine`` by its rounding of coordinates to 1/32 pixel, and where a picture is shrunk more than
        twice (block averages are taken first, OpenCV would alias).
    """
    image, matrix = _shrink(image, np.asarray(matrix, np.float64))
    height, width = image.shape[:2]
    back = invert(matrix)
    y, x = np.mgrid[0:size[0], 0:size[1]]
    u = back[0, 0] * x + back[0, 1] * y + back[0, 2]
    v = back[1, 0] * x + back[1, 1] * y + back[1, 2]
    # one black row and column around the picture; whatever lies further out is moved onto it
    framed = np.pad(image, ((1, 2), (1, 2), (0, 0)))
    u, v = np.clip(u + 1, 0, width + 1), np.clip(v + 1, 0, height + 1)
    left, top = u.astype(np.intp), v.astype(np.intp)
    across, down = (u - left)[..., None], (v - top)[..., None]
    upper = framed[top, left] * (1 - across) + framed[top, left + 1] * across
    lower = framed[top + 1, left] * (1 - across) + framed[top + 1, left + 1] * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def largest_face(found: Detections, shape: tuple[int, ...]) -> int:
    """Index of the face with the largest box (NegFaceDiff's rule)."""
    return int(np.argmax(found.boxes[:, 2] * found.boxes[:, 3]))


def central_face(found: Detections, shape: tuple[int, ...]) -> int:
    """Index of the face with the largest box area less twice its squared distance to the centre (as insightface)."""
    centres = found.boxes[:, :2] + found.boxes[:, 2:] / 2 - np.array([shape[1], shape[0]]) / 2
    return int(np.argmax(found.boxes[:, 2] * found.boxes[:, 3] - 2 * np.sum(centres**2, axis=1)))


CHOICES: dict[str, Callable[[Detections, tuple[int, ...]], int]] = {"largest": largest_face, "central": central_face}


class FaceFinder(Protocol):
    """What an ``Aligner`` needs of a detector, ours or anybody's."""

    def detect(self, image: np.ndarray) -> Detections:
        """Faces in one uint8 ``[H, W, 3]`` RGB picture."""
        ...


def _identity(detector: FaceFinder | None) -> dict[str, str] | None:
    declaration = getattr(detector, "declaration", None)
    if declaration is not None:
        return declaration.identity
    return None if detector is None else {"name": type(detector).__qualname__, "hash": ""}


def _rounded(value: Any) -> Any:
    return None if value is None or np.isnan(value).any() else np.round(np.asarray(value, np.float64), 4).tolist()


@dataclass(frozen=True)
class Alignment:
    """What was done to one picture. ``image`` is None when ``method`` is ``missing``."""

    image: np.ndarray | None
    method: str
    n_faces: int
    score: float | None = None
    points: np.ndarray | None = None
    matrix: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values without the picture: points and matrix rounded to 1e-4 pixel."""
        return {"method": self.method, "n_faces": self.n_faces, "score": _rounded(self.score),
                "points": _rounded(self.points), "matrix": _rounded(self.matrix)}


def centre_crop(image: np.ndarray, size: int = TEMPLATE_SIZE) -> np.ndarray:
    """The largest centred square, resized to ``size`` x ``size`` (Pillow bicubic)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(np.ascontiguousarray(image[top:top + side, left:left + side]))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


class Aligner:
    """Detector and template in one: ``aligner(image)`` gives the aligned picture, or None if no face was found.

    ``detector``: ``load_detector(...)``, any object with its ``detect``, or None where faces are handed to ``align``.
    """

    def __init__(self, detector: FaceFinder | None, *, template_name: str = "arcface", size: int = TEMPLATE_SIZE,
                 choose: str = "largest"):
        if choose not in CHOICES:
            raise UnknownNameError("choice of face", choose, CHOICES)
        self.detector, self.template_name, self.size, self.choose = detector, template_name, size, choose
        self._target = template(template_name, size)

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        return self.align(image).image

    def align(self, image: np.ndarray, found: Detections | None = None) -> Alignment:
        """Align one uint8 ``[H, W, 3]`` RGB picture and say how; ``found``: its faces, where they are known."""
        given = found is not None
        if found is None:
            if self.detector is None:
                raise InputError("there is neither a detector nor landmarks", where="alignment")
            found = self.detector.detect(image)
        if not len(found):
            return Alignment(None, "missing", 0)
        index = CHOICES[self.choose](found, image.shape)
        matrix = fit_similarity(found.points[index], self._target)
        return Alignment(warp(image, matrix, (self.size, self.size)), "landmarks" if given else "detected",
                         len(found), float(found.scores[index]), found.points[index], matrix)

    def to_dict(self) -> dict[str, Any]:
        """What a manifest must say to align the same way again."""
        return {"detector": _identity(self.detector), "template": self.template_name, "size": self.size,
                "choose": self.choose}
