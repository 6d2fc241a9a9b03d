"""The fit finds a known similarity, never mirrors, and is Umeyama's; the warp is OpenCV's where OpenCV is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negface.curation import ARCFACE, TEMPLATES, fit_similarity, template, warp
from negface.curation.alignment import invert
from negface.foundation.errors import InputError, UnknownNameError

FACES = st.lists(st.tuples(st.floats(-200, 200), st.floats(-200, 200)), min_size=5, max_size=5).map(np.array).filter(
    lambda points: np.ptp(points, axis=0).max() > 1)


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The paper's way, by a singular value decomposition (eqs. 34-43)."""
    x, y = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(y.T @ x / len(x))
    sign = np.array([1, 1 if np.linalg.det(u) * np.linalg.det(vt) > 0 else -1])
    linear = (u * sign) @ vt * (d @ sign) / (x**2).sum(1).mean()
    return np.concatenate([linear, (target.mean(0) - linear @ source.mean(0))[:, None]], axis=1)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] / 20
    return np.stack([127 + 100 * np.sin(x + k) * np.cos(y - k) for k in range(3)], axis=-1).astype(np.uint8)


@given(FACES, st.floats(-np.pi, np.pi), st.floats(0.05, 20), st.tuples(st.floats(-500, 500), st.floats(-500, 500)))
def test_a_known_similarity_is_recovered(points, angle, scale, shift):
    matrix = similarity(angle, scale, shift)
    np.testing.assert_allclose(fit_similarity(points, move(points, matrix)), matrix, rtol=1e-6, atol=1e-6)


@given(FACES, FACES)
def test_a_face_is_never_mirrored(source, target):
    assert np.linalg.det(fit_similarity(source, target)[:, :2]) >= 0


@given(FACES, FACES)
def test_the_closed_form_is_umeyamas(source, target):
    expected = umeyama(source, target)
    np.testing.assert_allclose(fit_similarity(source, target), expected, atol=1e-6 * max(1, np.abs(expected).max()))


def test_no_other_similarity_fits_better():
    rng = np.random.default_rng(0)
    points = ARCFACE * 2 + rng.normal(0, 4, (5, 2))
    best = fit_similarity(points, ARCFACE)
    residual = ((move(points, best) - ARCFACE) ** 2).sum()
    for _ in range(50):
        other = best + similarity(*rng.normal(0, 1e-2, 2), rng.normal(0, 1e-1, 2))
        assert ((move(points, other) - ARCFACE) ** 2).sum() > residual


@pytest.mark.parametrize("points", [np.full((5, 2), 7.0), np.full((5, 2), np.nan)])
def test_points_without_a_scale_are_refused(points):
    with pytest.raises(InputError):
        fit_similarity(points, ARCFACE)


def test_the_released_template_lies_eight_pixels_to_the_left():
    np.testing.assert_allclose(TEMPLATES["arcface"] - TEMPLATES["released-96"], np.tile([8.0, 0.0], (5, 1)))
    np.testing.assert_allclose(template("arcface", 224)[0], [2 * 38.2946 + 0.5, 2 * 51.6963 + 0.5])
    with pytest.raises(UnknownNameError, match="did you mean 'arcface'"):
        template("arcfase")


def test_the_identity_returns_the_picture_and_a_shift_brings_black():
    picture = smooth(30, 40)
    np.testing.assert_array_equal(warp(picture, similarity(0, 1, (0, 0)), (30, 40)), picture)
    moved = warp(picture, similarity(0, 1, (5, -3)), (30, 40))
    np.testing.assert_array_equal(moved[:27, 5:], picture[3:, :35])
    assert not moved[:, :5].any()
    assert not moved[27:].any()
    assert not warp(picture, similarity(0, 1, (900, 0)), (30, 40)).any()


@pytest.mark.parametrize(("angle", "scale"), [(0.2, 1.1), (-0.7, 0.6), (3.0, 2.5)])
def test_the_warp_is_opencvs_within_its_rounding(angle, scale):
    cv2 = pytest.importorskip("cv2")
    picture = smooth(150, 130)
    matrix = similarity(angle, scale, (0, 0))
    matrix[:, 2] = 56 - matrix[:, :2] @ [65, 75]
    expected = cv2.warpAffine(picture, matrix, (112, 112), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.full((150, 130), 255, np.uint8), matrix, (112, 112)) == 255
    difference = np.abs(warp(picture, matrix, (112, 112)).astype(int) - expected)[inside]
    assert inside.mean() > 0.3
    assert difference.max() <= 2


def test_a_strong_shrink_averages_instead_of_skipping():
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = warp(stripes, similarity(0, 0.1, (0, 0)), (80, 80))[2:-2, 2:-2]
    assert np.abs(inner.astype(int) - 127).max() <= 2


def test_a_strong_shrink_does_not_move_the_picture():
    ramp = np.broadcast_to(np.arange(250, dtype=np.uint8)[None, :, None], (250, 250, 3))
    matrix = similarity(0, 0.1, (3, 3))
    column = np.arange(5, 25)
    expected = invert(matrix)[0, 0] * column + invert(matrix)[0, 2]
    np.testing.assert_allclose(warp(ramp, matrix, (30, 30))[15, 5:25, 0], expected, atol=1.1)
