"""What else the eyes see: where a face is (YuNet), how it is turned (FSA-Net), how usable it is (LightQNet)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..foundation.errors import FormatError, InputError
from .declarations import Declaration, resolve_declaration
from .inputs import check_images, resize_images
from .networks import Network, answers, available_threads, open_network


@dataclass(frozen=True)
class Detections:
    """Faces in one picture, best score first, in its pixels (a pixel's centre has whole coordinates).

    ``boxes`` float32 ``[k, 4]`` (left, top, width, height); ``points`` float32 ``[k, 5, 2]`` (x, y of the eye on the
    left of the picture, the other eye, nose, mouth corner on the left, the other corner); ``scores`` float32 ``[k]``.
    """

    boxes: np.ndarray
    points: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


class Detector:
    """YuNet through OpenCV (Wu, Peng, Yu 2023). It finds faces of 10 to 300 pixels, so large pictures are shrunk."""

    def __init__(self, net: Any, declaration: Declaration, *, longest_side: int):
        self.declaration, self.longest_side, self._net = declaration, longest_side, net

    def detect(self, image: np.ndarray) -> Detections:
        """Faces in one uint8 ``[H, W, 3]`` RGB picture of any size."""
        image = check_images(image[None])[0]
        height, width = image.shape[:2]
        scale = min(1.0, self.longest_side / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        small = resize_images(image[None], size)[0]
        self._net.setInputSize((size[1], size[0]))
        found = self._net.detect(np.ascontiguousarray(small[..., ::-1]))[1]
        rows = np.zeros((0, 15), np.float32) if found is None else np.asarray(found, np.float32)
        rows = rows[np.argsort(-rows[:, 14], kind="stable")]
        stretch = np.array([width / size[1], height / size[0]], np.float32)
        # resizing maps pixel centres as x' = (x + 0.5) * s - 0.5
        points = (rows[:, 4:14].reshape(-1, 5, 2) + 0.5) * stretch - 0.5
        return Detections(rows[:, :4] * np.tile(stretch, 2), points, rows[:, 14])


@contextlib.contextmanager
def _only_errors(cv2: Any) -> Iterator[None]:
    """OpenCV 5 warns on standard error of what it always does; a failure raises anyway."""
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def load_detector(path: str | os.PathLike, declaration: Declaration | Mapping | str | os.PathLike | None = None, *,
                  least_score: float = 0.6, longest_side: int = 640) -> Detector:
    """Open a YuNet ONNX file.

    Args:
        least_score: detections scored lower are dropped.
        longest_side: a larger picture is shrunk to this many pixels for detection.
    """
    found = resolve_declaration(path, declaration, task="detector")
    try:
        import cv2
    except ImportError as error:
        raise InputError("face detection needs OpenCV", where=path, fix="pip install 'negface[align]'") from error
    try:
        with _only_errors(cv2):
            net = cv2.FaceDetectorYN.create(os.fspath(path), "", (320, 320), least_score, 0.3, 5000)
            net.setInputSize((64, 64))
            net.detect(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
        reason = " ".join(str(error).split())[:160]
        raise FormatError(f"not a YuNet model OpenCV can run ({reason})", where=path,
                          fix="make or copy it again") from error
    return Detector(net, found, longest_side=longest_side)


class PoseEstimator:
    """Head pose by FSA-Net (Yang et al., CVPR 2019): the mean answer of one or more files."""

    def __init__(self, networks: Sequence[tuple[Network, Declaration]], *, threads: int):
        self.declarations, self.threads = tuple(declaration for _, declaration in networks), threads
        self._networks = tuple(network for network, _ in networks)

    def estimate(self, images: np.ndarray) -> np.ndarray:
        """Yaw, pitch, roll in degrees, float32 ``[n, 3]``, of uint8 ``[n, H, W, 3]`` RGB crops (resized inside).

        A positive yaw turns the nose towards the left of the picture. On aligned 112 x 112 crops of LFW the mirror
        changes the sign of yaw as it should (correlation -0.98).
        """
        images = check_images(images)
        each = [answers(network, resize_images(images, declaration.size), declaration, threads=self.threads)
                for network, declaration in zip(self._networks, self.declarations)]
        return np.mean(each, axis=0, dtype=np.float32)


def load_pose(paths: str | os.PathLike | Sequence[str | os.PathLike], *, threads: int | None = None) -> PoseEstimator:
    """Open one head-pose file or several to be averaged (declared by sidecar or built in)."""
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not paths:
        raise InputError("no head-pose file given", where="pose")
    declared = [resolve_declaration(path, task="pose") for path in paths]
    networks = [(open_network(Path(path), item), item) for path, item in zip(paths, declared)]
    return PoseEstimator(networks, threads=threads or available_threads())


class QualityEstimator:
    """Face image quality in 0..1 by LightQNet (Chen, Yi, Lv 2021); higher is more usable for recognition."""

    def __init__(self, network: Network, declaration: Declaration, *, threads: int):
        self.declaration, self.threads, self._network = declaration, threads, network

    def score(self, images: np.ndarray) -> np.ndarray:
        """Quality, float32 ``[n]``, of uint8 ``[n, H, W, 3]`` RGB aligned faces (resized inside)."""
        images = resize_images(check_images(images), self.declaration.size)
        return answers(self._network, images, self.declaration, threads=self.threads)[:, 0]


def load_quality(path: str | os.PathLike, declaration: Declaration | Mapping | str | os.PathLike | None = None, *,
                 threads: int | None = None) -> QualityEstimator:
    """Open a face-image-quality file."""
    found = resolve_declaration(path, declaration, task="quality")
    return QualityEstimator(open_network(Path(path), found), found, threads=threads or available_threads())
