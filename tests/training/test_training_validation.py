"""Development pairs: which are refused, what the declaration says of them, and where it stops the recogniser."""

from pathlib import Path

import numpy as np
import pytest
from tiny_recognition import fit, pairs_bin

from negface import datasets
from negface.evaluation.benchmarks import open_benchmark
from negface.foundation.errors import InputError, MismatchError
from negface.foundation.files import read_json, write_json
from negface.perception import load_recognizer
from negface.training.recipe import RecognitionValidation
from negface.training.validation import is_test_benchmark, read_development


@pytest.fixture
def faces(face_folder):
    return face_folder(6, 4)


@pytest.mark.parametrize(("path", "refused"), [
    ("LFW.bin", True), ("agedb_30.bin", True), ("cfp-fp.bin", True), ("lfw/pairs.txt", True), ("lfw/mine.csv", False),
    ("people/pairs.csv", False), ("lfw-train.bin", False), ("lfw_copy.bin", True), ("copy of AgeDB30.bin", True),
    ("lfw-heldout/pairs.csv", True), ("lfw-heldout/1/pairs.csv", True), ("pairs_heldout.csv", True),
    ("held-out.bin", True), ("lfw/pairs_10.txt", True), ("lfw/pairsDevTrain.txt", False), ("dev.bin", False),
    ("flower.bin", False)])
def test_a_test_benchmark_is_known_by_the_words_of_its_name_or_its_folders(path, refused):
    assert is_test_benchmark(Path(path)) == refused


@pytest.mark.parametrize(("start", "refused"), [(900000, True), (899990, True), (800000, False)])
def test_a_population_protocol_is_a_test_where_it_has_people_that_are_kept_for_tests(tmp_path, start, refused):
    write_json(tmp_path / "protocol.json", {"kind": "population-protocol", "reserved_people": [start, start + 20]})
    assert [is_test_benchmark(path) for path in (tmp_path / "pairs.csv", tmp_path)] == [refused, refused]
    write_json(tmp_path / "protocol.json", {"kind": "something else"})
    assert not is_test_benchmark(tmp_path / "pairs.csv")


def test_test_benchmarks_select_only_under_their_name(faces, tmp_path):
    pairs = pairs_bin(tmp_path / "lfw.bin")
    with pytest.raises(InputError, match="is a test benchmark"):
        fit(faces, tmp_path / "out", options={"development": [pairs]})
    made = fit(faces, tmp_path / "out", validation={"selection": "released"}, options={"development": [pairs]})
    assert made["validation"] > 0


def test_pairs_are_read_in_their_order_whatever_pictures_they_share(face_folder):
    faces = face_folder(3, 2)
    names = ["0000/00.png", "0000/01.png", "0001/00.png", "0000/00.png"] * 5
    datasets.write_pairs(faces / "dev.csv", names, np.array([True, False] * 5))
    [pairs] = read_development([faces / "dev.csv"], 32, RecognitionValidation())
    wanted = np.stack([datasets.load_rgb((faces / name).read_bytes()) for name in names])
    assert np.array_equal(pairs.images, wanted)
    assert (pairs.same.tolist(), pairs.people) == ([True, False] * 5, {"0000", "0001"})


def test_a_recogniser_chosen_by_pairs_says_so_and_is_refused_on_a_copy_of_them(faces, tmp_path, negface):
    pairs = pairs_bin(tmp_path / "dev.bin")
    fit(faces, tmp_path / "out", options={"development": [pairs]})
    eye = tmp_path / "out/model/recognizer.safetensors"
    said = load_recognizer(eye).declaration.developed_on
    assert said == f"dev: content {open_benchmark(pairs).sha256}, no names"
    # The very same pairs under a name that gives nothing away, and others.
    copy = tmp_path / "mystery.bin"
    copy.write_bytes(pairs.read_bytes())
    verify = ("verify", copy, "--recognizer", eye, "--bootstrap", 9, "--json", tmp_path / "t.json")
    code, _, error = negface(*verify)
    assert code == 2
    assert "were chosen by these pairs" in error
    assert not (tmp_path / "t.json").exists()
    code, out, _ = negface(*verify, "--force")
    assert code == 0
    assert "WARNING: the weights of recognizer were chosen by mystery" in out
    assert read_json(tmp_path / "t.json")["rows"][0]["developed_on_benchmark"] is True
    other = pairs_bin(tmp_path / "other.bin", range(200, 210))
    code, out, _ = negface("verify", other, "--recognizer", eye, "--bootstrap", 9, "--json", tmp_path / "t.json")
    assert code == 0
    assert read_json(tmp_path / "t.json")["rows"][0]["developed_on_benchmark"] is False


def test_other_pairs_of_the_people_it_was_chosen_by_are_refused_by_name(face_folder, tmp_path, negface):
    faces, others = face_folder(6, 4), face_folder(4, 4, name="others")
    for folder in sorted(others.iterdir()):
        folder.rename(others / f"005{folder.name[-1]}")
    genuine = [f"{name}/{shot:02d}.png" for name in ("0050", "0051", "0052", "0053") for shot in (0, 1, 2, 3)]
    impostor = ["0050/00.png", "0051/00.png", "0052/00.png", "0053/00.png"] * 2
    same = np.array([True] * 8 + [False] * 4)
    datasets.write_pairs(others / "dev.csv", genuine + impostor, same)
    datasets.write_pairs(others / "new.csv", genuine[::-1] + impostor, same)
    options = {"options": {"development": [others / "dev.csv"]}}
    fit(faces, tmp_path / "out", **options)
    eye = tmp_path / "out/model/recognizer.safetensors"
    code, _, error = negface("verify", others / "new.csv", "--recognizer", eye, "--folds", 2, "--bootstrap", 9)
    assert code == 2
    assert "were chosen by pairs of 4 of its 4 people, 0050 first" in error


def test_too_few_pairs_for_the_folds_are_refused_before_training(faces, tmp_path):
    pairs = pairs_bin(tmp_path / "dev.bin", range(100, 104))
    with pytest.raises(InputError, match="8 pairs, and accuracy is taken over 10 folds"):
        fit(faces, tmp_path / "out", options={"development": [pairs]})
    assert not (tmp_path / "out").exists()


def test_a_recogniser_without_development_declares_what_it_did_before(faces, tmp_path):
    fit(faces, tmp_path / "out")
    assert "developed_on" not in read_json(tmp_path / "out/model/recognizer.safetensors.json")


def test_development_people_in_the_training_set_are_refused(faces, tmp_path):
    names = [f"{person:04d}/{shot:02d}.png" for person in range(6) for shot in (0, 1, 2, 3)]
    datasets.write_pairs(faces / "dev.csv", names, np.array([True] * 11 + [False]))
    with pytest.raises(MismatchError, match="people of dev"):
        fit(faces, tmp_path / "out", options={"development": [faces / "dev.csv"]})
