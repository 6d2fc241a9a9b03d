"""``align``: every picture has a line saying what was done; one without a face meets the fate that was declared."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from negface import datasets
from negface.curation import ARCFACE, Aligner, align_dataset
from negface.foundation.errors import IncompleteError, OutputError, UnknownNameError
from negface.foundation.files import write_json
from negface.perception import load_detector
from negface.perception.declarations import sidecar_path
from tiny_onnx import RED_DETECTOR, write_red_detector


def picture(*cells: tuple[int, int, int], size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Grey ground with red 8 x 8 cells (row, column, redness): "faces" for the red-square detector."""
    canvas = np.full((*size, 3), 60, np.uint8)
    for row, column, redness in cells:
        canvas[8 * row:8 * row + 8, 8 * column:8 * column + 8] = (redness, 0, 0)
    return canvas


def save(root, name: str, array: np.ndarray) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(root / name)


@pytest.fixture
def detector_file(tmp_path):
    file = write_red_detector(tmp_path / "red.onnx")
    write_json(sidecar_path(file), RED_DETECTOR)
    return file


@pytest.fixture
def aligner(detector_file):
    return Aligner(load_detector(detector_file))


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "photographs"
    save(root, "ann/1.png", picture((5, 6, 255)))
    save(root, "ann/2.png", picture((4, 4, 255), (8, 12, 240)))
    save(root, "bob/1.png", picture())
    return root


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "alignment.jsonl").read_text().splitlines()]


def test_the_face_lands_on_the_template(aligner):
    found = aligner.align(picture((5, 6, 255)))
    assert (found.method, found.n_faces, found.image.shape) == ("detected", 1, (112, 112, 3))
    moved = found.points @ found.matrix[:, :2].T + found.matrix[:, 2]
    assert np.abs(moved.mean(0) - ARCFACE.mean(0)).max() < 1e-4
    np.testing.assert_array_equal(aligner(picture((5, 6, 255))), found.image)


def test_largest_and_central_choose_different_faces(detector_file):
    detector = load_detector(detector_file)
    scene = picture((1, 1, 255), (6, 8, 200))
    largest, central = (Aligner(detector, choose=rule).align(scene) for rule in ("largest", "central"))
    assert largest.n_faces == central.n_faces == 2
    assert central.points[:, 0].mean() > largest.points[:, 0].mean() + 40


def test_no_face_is_none_for_who_calls_the_aligner(aligner):
    assert aligner(picture()) is None


def test_skip_writes_a_line_for_the_picture_it_leaves_out(source, tmp_path, aligner):
    summary = align_dataset(source, tmp_path / "out", aligner, on_missing="skip")
    assert summary["counts"] == {"detected": 2, "missing": 1}
    assert summary["identities_lost"] == ["bob"]
    lines = rows(tmp_path / "out")
    assert [(line["source"], line["file"], line["method"]) for line in lines] == [
        ("ann/1.png", "ann/1.jpg", "detected"), ("ann/2.png", "ann/2.jpg", "detected"), ("bob/1.png", None, "missing")]
    assert lines[1]["n_faces"] == 2
    assert len(datasets.open(tmp_path / "out")) == 2


def test_centre_crop_keeps_the_picture_and_says_so(source, tmp_path, aligner):
    summary = align_dataset(source, tmp_path / "out", aligner, on_missing="centre-crop", codec="png")
    assert summary["counts"] == {"centre-crop": 1, "detected": 2}
    assert rows(tmp_path / "out")[2]["method"] == "centre-crop"
    made = datasets.open(tmp_path / "out")
    assert [image.shape for image, _ in made] == [(112, 112, 3)] * 3


def test_refuse_counts_all_and_writes_nothing(source, tmp_path, aligner):
    save(source, "cid/1.png", picture())
    with pytest.raises(IncompleteError, match=r"1\.png and 1 more: no face found in 2 of 4 pictures"):
        align_dataset(source, tmp_path / "out", aligner)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_pictures_whose_names_would_meet_are_both_kept(tmp_path, aligner):
    root = tmp_path / "same"
    save(root, "ann/1.png", picture((5, 6, 255)))
    save(root, "ann/1.bmp", picture((6, 6, 255)))
    align_dataset(root, tmp_path / "out", aligner)
    assert [line["file"] for line in rows(tmp_path / "out")] == ["ann/000000.jpg", "ann/000001.jpg"]
    assert len(datasets.open(tmp_path / "out")) == 2


def test_the_same_source_gives_the_same_bytes(source, tmp_path, aligner):
    for name in ("one", "two"):
        align_dataset(source, tmp_path / name, aligner, on_missing="skip")
    one, two = ({path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
                for name in ("one", "two"))
    assert one == two


def test_a_folder_that_holds_something_is_never_overwritten(source, tmp_path, aligner):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(OutputError, match="exists already"):
        align_dataset(source, tmp_path / "out", aligner, on_missing="skip")
    with pytest.raises(UnknownNameError, match="did you mean 'skip'"):
        align_dataset(source, tmp_path / "new", aligner, on_missing="skpi")
    assert (tmp_path / "out" / "precious").read_text() == "x"


def test_the_command_aligns_and_reports(source, tmp_path, detector_file, negface):
    code, text, _ = negface("align", source, "--out", tmp_path / "out", "--detector", detector_file, "--on-missing",
                            "skip", "--template", "released-96", "--json", tmp_path / "r.json")
    assert code == 0
    assert "aligned 3 pictures (2 detected, 1 missing)" in text
    assert "1 identities have no picture left" in text
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["template"], result["n_written"]) == ("released-96", 2)
    assert result["detector"]["name"] == "red-squares"


@pytest.mark.parametrize("fault", ["refused", "not a picture", "unknown template", "truncated detector"])
def test_the_command_fails_in_one_line_and_leaves_nothing(source, tmp_path, detector_file, negface, fault):
    more = ["--template", "arcfase"] if fault == "unknown template" else []
    if fault == "not a picture":
        (source / "bob" / "1.png").write_text("hello")
    if fault == "truncated detector":
        detector_file.write_bytes(detector_file.read_bytes()[:500])
    code, _, error = negface("align", source, "--out", tmp_path / "out", "--detector", detector_file, *more)
    assert code == (1 if fault == "refused" else 2)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
