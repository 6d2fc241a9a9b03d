"""Five-point templates that aligned faces share, and the least-squares similarity to them (Umeyama, PAMI 1991).

They stand here, below every room that makes aligned faces: ``curation`` from photographs, ``population`` from truth.
In the plane a similarity without reflection is one complex multiplication and one addition, z -> a z + b, and its
least-squares fit is closed: a = sum(conj(p) q) / sum(|p|^2) over centred points. So a face is never mirrored.
"""

from __future__ import annotations

import numpy as np

from ..foundation.errors import InputError, UnknownNameError

# x, y of: the eye on the left of the picture, the other eye, nose, mouth corner on the left, the other corner.
ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
TEMPLATES = {"arcface": ARCFACE, "released-96": ARCFACE - [8.0, 0.0]}
"""On a 112 x 112 picture. ``released-96`` is the 96-wide variant with which NegFaceDiff's training crops were made:
8 pixels to the left of the benchmark crops (``arcface``), a shift that the release carries."""
TEMPLATE_SIZE = 112


def template(name: str, size: int = TEMPLATE_SIZE) -> np.ndarray:
    """Five points float64 ``[5, 2]`` of a named template on a ``size`` x ``size`` picture (pixel centres are whole)."""
    if name not in TEMPLATES:
        raise UnknownNameError("alignment template", name, TEMPLATES)
    return (TEMPLATES[name] + 0.5) * (size / TEMPLATE_SIZE) - 0.5 if size != TEMPLATE_SIZE else TEMPLATES[name].copy()


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity (rotation, one scale, shift; no reflection) that brings ``source`` nearest to ``target``.

    Args:
        source, target: points ``[k, 2]``, k >= 2.

    Returns:
        float64 ``[2, 3]``: ``target ~ source @ m[:, :2].T + m[:, 2]``.

    Raises ``InputError`` when points are not finite or all of ``source`` coincide.
    """
    p, q = (np.asarray(points, np.float64) @ [1, 1j] for points in (source, target))
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise InputError("points are not finite", where="alignment")
    p_mean, q_mean = p.mean(), q.mean()
    spread = np.sum(np.abs(p - p_mean) ** 2)
    if spread <= 1e-12 * max(1.0, float(np.abs(p_mean)) ** 2):
        raise InputError("the points coincide: no scale can be found", where="alignment")
    a = np.sum(np.conj(p - p_mean) * (q - q_mean)) / spread
    b = q_mean - a * p_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
