"""Detector, pose and quality: real graphs of known answers, through the same declarations."""

from __future__ import annotations

import numpy as np
import pytest

from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import write_json
from negface.perception import load_detector, load_pose, load_quality
from negface.perception.declarations import sidecar_path
from tiny_onnx import POINTS, RED_DETECTOR, write_linear, write_red_detector

POSE = {"name": "pose", "task": "pose", "size": [8, 8], "channels": "BGR", "mean": 127.5, "std": 128, "dim": 3,
        "batch": 1}


def field_of(cells: dict[tuple[int, int], int], size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A black picture with red 8 x 8 cells ``{(row, column): redness}``."""
    picture = np.zeros((*size, 3), np.uint8)
    for (row, column), redness in cells.items():
        picture[8 * row:8 * row + 8, 8 * column:8 * column + 8, 0] = redness
    return picture


@pytest.fixture
def red(tmp_path):
    return write_red_detector(tmp_path / "red.onnx")


def test_faces_come_best_first_where_they_are(red):
    found = load_detector(red, RED_DETECTOR).detect(field_of({(2, 3): 200, (6, 10): 250}))
    assert len(found) == 2
    np.testing.assert_allclose(found.scores, [250 / 255, 200 / 255], atol=1e-5)
    np.testing.assert_allclose(found.boxes[0], [8 * 10.5 - 8, 8 * 6.5 - 8, 16, 16], atol=1e-4)
    np.testing.assert_allclose(found.points[1], 8 * (POINTS + 0.5 + [3, 2]), atol=1e-4)


def test_a_large_picture_is_shrunk_and_answered_in_its_own_pixels(red):
    small = field_of({(4, 4): 255})
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    near, far = (load_detector(red, RED_DETECTOR, longest_side=128).detect(picture) for picture in (small, large))
    np.testing.assert_allclose(far.points, (near.points + 0.5) * 4 - 0.5, atol=1e-3)
    np.testing.assert_allclose(far.boxes, near.boxes * 4, atol=1e-3)


def test_no_face_is_an_empty_answer(red):
    found = load_detector(red, RED_DETECTOR).detect(field_of({(1, 1): 100}))
    assert len(found) == 0
    assert found.points.shape == (0, 5, 2)


def test_a_truncated_detector_is_a_format_error(red, capfd):
    red.write_bytes(red.read_bytes()[:900])
    with pytest.raises(FormatError, match="not a YuNet model"):
        load_detector(red, RED_DETECTOR)
    assert capfd.readouterr().err == ""


def test_a_missing_opencv_says_what_to_install(red, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(InputError, match=r"negface\[align\]"):
        load_detector(red, RED_DETECTOR)


def test_pose_is_the_mean_of_its_files(tmp_path):
    files = [write_linear(tmp_path / f"pose{seed}.onnx", dim=3, batch=1, seed=seed) for seed in (1, 2)]
    for file in files:
        write_json(sidecar_path(file), POSE)
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    both, first, second = (load_pose(paths).estimate(images) for paths in (files, files[0], files[1]))
    assert both.shape == (3, 3)
    np.testing.assert_allclose(both, (first + second) / 2, rtol=1e-5)
    assert np.abs(first - second).max() > 1


def test_quality_is_one_number_a_picture(tmp_path):
    file = write_linear(tmp_path / "quality.onnx", dim=1, weights=np.full((192, 1), 1 / 192, np.float32))
    declared = {"name": "brightness", "task": "quality", "size": [8, 8], "channels": "RGB", "mean": 0, "std": 255,
                "dim": 1}
    images = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (0, 51, 255)])
    np.testing.assert_allclose(load_quality(file, declared).score(images), [0, 0.2, 1], atol=1e-5)
