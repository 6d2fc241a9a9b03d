"""Landmarks of another detector: every form of the file, which picture a row is of, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from negface.curation import ARCFACE, Aligner, align_dataset, read_landmarks, warp
from negface.datasets.templates import fit_similarity
from negface.foundation.errors import FormatError, InputError
from negface.perception import Detections

POINTS = {"ann/1": 0.8 * ARCFACE + [20, 10], "ann/2": 0.5 * ARCFACE + [5, 7], "bob/1": 0.6 * ARCFACE + [30, 3]}


def numbers(points, separator=" "):
    return separator.join(f"{value:.3f}" for value in np.ravel(points))


def celeba(points):
    titles = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    return "\n".join([str(len(points)), titles, *(f"{n}.png  {numbers(p)}" for n, p in points.items())]) + "\n"


def vggface2(points):
    titles = "NAME_ID," + ",".join(f"P{k}{axis}" for k in range(1, 6) for axis in "XY")
    return "\n".join([titles, *(f'"{name}",{numbers(p, ",")}' for name, p in points.items())]) + "\n"


def ijb(points):
    return "".join(f"{name}.jpg {numbers(p)} 0.9\n" for name, p in points.items())


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    for name in POINTS:
        path = tmp_path / "photographs" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (120, 140, 3), np.uint8)).save(path)
    return tmp_path / "photographs"


def written(tmp_path, text):
    (tmp_path / "points.txt").write_text(text)
    return tmp_path / "points.txt"


@pytest.mark.parametrize("form", [celeba, vggface2, ijb])
def test_every_form_of_the_file_brings_the_faces_to_the_template(source, tmp_path, form):
    told = read_landmarks(written(tmp_path, form(POINTS)))
    summary = align_dataset(source, tmp_path / "out", Aligner(None), landmarks=told, codec="png")
    assert summary["counts"] == {"landmarks": 3}
    assert summary["landmarks"]["n_unused"] == 0
    assert summary["detector"] is None
    for name, points in POINTS.items():
        raw = np.asarray(Image.open(source / f"{name}.png"))
        expected = warp(raw, fit_similarity(np.float32(np.round(points, 3)), ARCFACE), (112, 112))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / f"{name}.png")), expected)


def test_the_command_says_what_it_did_with_pictures_that_the_file_does_not_name(source, tmp_path, negface):
    some = {name: POINTS[name] for name in ("ann/1", "bob/1")} | {"cid/1": POINTS["ann/1"]}
    code, said, err = negface("align", source, "--out", tmp_path / "out", "--landmarks", written(tmp_path, ijb(some)),
                              "--on-missing", "centre-crop", "--json", "-")
    assert code == 0, err
    summary = json.loads(said)
    assert summary["counts"] == {"centre-crop": 1, "landmarks": 2}
    assert summary["landmarks"]["n_unused"] == 1
    rows = [json.loads(line) for line in (tmp_path / "out" / "alignment.jsonl").read_text().splitlines()]
    assert [(row["source"], row["method"], row["score"]) for row in rows] == [
        ("ann/1.png", "landmarks", 0.9), ("ann/2.png", "centre-crop", None), ("bob/1.png", "landmarks", 0.9)]
    for more in ([], ["--landmarks", tmp_path / "points.txt", "--detector", tmp_path / "points.txt"]):
        code, _, err = negface("align", source, "--out", tmp_path / "other", *more)
        assert (code, "either --detector or --landmarks" in err) == (2, True)


def test_names_without_folders_are_file_names_only_where_these_differ(source, tmp_path):
    told = read_landmarks(written(tmp_path, celeba({"2": POINTS["ann/2"]})))
    faces, unused = told.of(["ann/1.png", "ann/2.jpg", "bob/3.png"])
    assert ([len(found) for found in faces], unused) == ([0, 1, 0], 0)
    with pytest.raises(InputError, match=r"points\.txt: names none of the 2 pictures: it has '2\.png'.*'ann/2\.png'"):
        told.of(["ann/2.png", "bob/2.png"])


def test_several_rows_of_a_picture_are_several_faces_and_weak_ones_can_be_left_out(tmp_path):
    text = (f"a/1.png {numbers(0.4 * ARCFACE)} 0.9\na/1.png {numbers(0.8 * ARCFACE)} 0.3\n"
            f"a/1.jpg {numbers(ARCFACE)} 0.8\n")
    both, strong = (read_landmarks(written(tmp_path, text), least_score=least) for least in (None, 0.5))
    image = np.zeros((112, 112, 3), np.uint8)
    found = Aligner(None).align(image, both.of(["a/1.png", "a/1.jpg"])[0][0])
    assert (found.n_faces, found.score) == (2, pytest.approx(0.3))
    assert Aligner(None).align(image, strong.of(["a/1.png"])[0][0]).n_faces == 1


@pytest.mark.parametrize(("text", "words"), [
    ("", "no landmarks"), (f"a.png {numbers(ARCFACE)} 1 2\n", "line 1 has 13 columns"),
    (f"a.png {numbers(ARCFACE)}\nb.png 1 2 3\n", "line 2 has 4 columns"),
    ("a.png 1 2 3 4\n", "line 1 has 5 columns"), (f"a.png {'nan ' * 10}\n", "line 1: a number is not finite"),
    (f"a.png {'-1 ' * 10}\n", r"line 1: the points of 'a\.png' coincide.*without a face"),
    (f"3\na.png {numbers(ARCFACE)}\n", "announces 3 rows, holds 1"),
    (f"a.png {numbers(ARCFACE[[1, 0, 2, 4, 3]])}\n", "first eye is to the right of the second in 1 of 1 rows"),
], ids=["empty", "too many", "short row", "short first row", "NaN", "no face", "truncated", "mirrored"])
def test_what_is_no_row_is_refused_by_line(tmp_path, text, words):
    with pytest.raises(FormatError, match=rf"points\.txt: .*{words}"):
        read_landmarks(written(tmp_path, text))


def test_least_score_needs_scores(tmp_path):
    with pytest.raises(InputError, match="rows without a score"):
        read_landmarks(written(tmp_path, celeba(POINTS)), least_score=0.5)


class Own:
    """Somebody's detector: it finds what it was told."""

    def detect(self, image):
        points = np.float32(0.5 * ARCFACE)[None]
        return Detections(np.float32([[0, 0, 50, 50]]), points, np.float32([0.7]))


def test_any_object_that_detects_is_a_detector(source, tmp_path):
    summary = align_dataset(source, tmp_path / "out", Aligner(Own()))
    assert summary["detector"] == {"name": "Own", "hash": ""}
    assert summary["counts"] == {"detected": 3}
