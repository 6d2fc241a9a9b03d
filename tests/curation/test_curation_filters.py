"""Filters: each rejects what it says, each sees only what those before it kept, and every picture has its fate."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from negface import datasets
from negface.contexts import ContextBank
from negface.curation import Loader, Screen, curate_dataset, make_step, ordered, parse_step
from negface.curation.filters import Pictures, difference_hash
from negface.foundation import registry
from negface.foundation.errors import IncompleteError, InputError, MismatchError, NegFaceError, UnknownNameError
from negface.foundation.files import write_json
from negface.perception import load_recognizer, write_embeddings
from negface.perception.declarations import sidecar_path
from tiny_onnx import RED_DETECTOR, write_linear, write_red_detector

LINEAR = {"name": "linear", "size": [8, 8], "channels": "RGB", "mean": 127.5, "std": 127.5, "dim": 4}


@pytest.fixture
def eye(tmp_path):
    file = write_linear(tmp_path / "eye.onnx")
    write_json(sidecar_path(file), LINEAR)
    return file


@pytest.fixture
def quality(tmp_path):
    file = write_linear(tmp_path / "quality.onnx", dim=1, seed=3)
    write_json(sidecar_path(file), {**LINEAR, "name": "linear-quality", "task": "quality", "dim": 1})
    return file


@pytest.fixture
def detector(tmp_path):
    file = write_red_detector(tmp_path / "red.onnx")
    write_json(sidecar_path(file), RED_DETECTOR)
    return file


@pytest.fixture
def people(face):
    """``people(n)``: a picture of each of n people, as a batch under judgement."""
    return lambda n, image=0: Pictures([face(i, image) for i in range(n)], [str(i) for i in range(n)])


def opened(name: str, loader: Loader | None = None, **values):
    step = make_step(name, values)
    return registry.load("filter", name)(step, loader or Loader())


def seen(eye, pictures: Pictures) -> np.ndarray:
    return pictures.embeddings(load_recognizer(eye))


def test_adherence_rejects_the_picture_of_somebody_else(eye, people):
    pictures = people(6)
    bank = ContextBank.from_vectors(seen(eye, pictures), pictures.identities, normalise=True)
    filter = opened("adherence", Loader(bank), least=0.99, recognizer=eye)
    values, keep = filter.judge(pictures)
    assert keep.all()
    np.testing.assert_allclose(values, 1, atol=1e-6)
    swapped = Pictures(pictures.images, [*pictures.identities[1:], pictures.identities[0]])
    assert not filter.judge(swapped)[1].any()
    with pytest.raises(InputError, match="'9' is not in the bank"):
        filter.judge(Pictures(pictures.images[:1], ["9"]))


def test_adherence_needs_the_recogniser_that_made_the_contexts(eye, people):
    bank = ContextBank.from_vectors(np.eye(4), conditioner={"name": "another", "hash": "ff"})
    with pytest.raises(MismatchError, match="linear did not make these contexts"):
        opened("adherence", Loader(bank), least=0.5, recognizer=eye)
    with pytest.raises(MismatchError, match="gives 4 numbers, the contexts have 5"):
        opened("adherence", Loader(ContextBank.from_vectors(np.eye(5))), least=0.5, recognizer=eye)
    with pytest.raises(InputError, match="needs a bank of contexts"):
        opened("adherence", least=0.5, recognizer=eye)


def test_face_rejects_a_picture_in_which_nothing_is_found(detector):
    blank, red = np.full((64, 64, 3), 60, np.uint8), np.full((64, 64, 3), 60, np.uint8)
    red[24:32, 24:32] = (255, 0, 0)
    values, keep = opened("face", detector=detector).judge(Pictures([blank, red], ["0", "0"]))
    assert values[0] == 0
    assert values[1] > 0.9
    assert keep.tolist() == [False, True]


def test_quality_is_compared_with_the_threshold(quality, people):
    pictures = people(8)
    values, _ = opened("quality", least=0, model=quality).judge(pictures)
    middle = float(np.median(values))
    again, keep = opened("quality", least=middle, model=quality).judge(pictures)
    assert np.array_equal(again, values)
    assert keep.tolist() == [value >= middle for value in values]
    assert 0 < keep.sum() < 8


def test_leakage_is_the_highest_cosine_to_any_training_picture(eye, people, tmp_path):
    pictures, training = people(6), people(3, image=1)
    known = np.concatenate([seen(eye, training), seen(eye, pictures)[:1]])
    write_embeddings(tmp_path / "training.npz", known, np.arange(4))
    filter = opened("leakage", most=0.999, recognizer=eye, training=tmp_path / "training.npz")
    values, keep = filter.judge(pictures)
    slow = [max(float(one @ other) for other in known) for one in seen(eye, pictures)]
    np.testing.assert_allclose(values, slow, atol=1e-6)
    assert keep.tolist() == [value <= 0.999 for value in values]
    assert not keep[0]


def test_leakage_refuses_embeddings_of_another_recogniser(eye, tmp_path):
    write_embeddings(tmp_path / "training.npz", np.eye(4, dtype=np.float32), np.arange(4),
                     provenance={"recognizer": {"name": "other", "hash": "ff"}})
    with pytest.raises(MismatchError, match="another recogniser"):
        opened("leakage", most=0.5, recognizer=eye, training=tmp_path / "training.npz")


def test_a_copy_is_rejected_for_the_same_person_only(face):
    one, other = face(1), face(2)
    slightly = np.clip(one.astype(int) + 3, 0, 255).astype(np.uint8)
    values, keep = opened("duplicates", bits=1).judge(Pictures([one, other, one, slightly, one],
                                                               ["a", "a", "a", "a", "b"]))
    assert keep.tolist() == [True, True, False, False, True]
    assert values[2] == 0
    assert values[1] == (difference_hash(one) != difference_hash(other)).sum()


def test_the_hash_nominates_and_the_eye_confirms(eye, face):
    one = face(1)
    tinted = one.copy()
    tinted[..., 0] = 255 - tinted[..., 0]
    grey = np.asarray(Image.fromarray(one).convert("L"))
    assert opened("duplicates", bits=64).judge(Pictures([one, tinted], ["a", "a"]))[1].tolist() == [True, False]
    with_eye = opened("duplicates", bits=64, cosine=0.99, recognizer=eye)
    assert with_eye.judge(Pictures([one, tinted, one], ["a", "a", "a"]))[1].tolist() == [True, True, False]
    assert grey.shape == one.shape[:2]


def test_a_fresh_screening_remembers_nothing(face):
    screen = Screen([make_step("duplicates", {})], Loader())
    for _ in range(2):
        fates = screen.start().judge([face(1), face(1)], ["a", "a"])
        assert [fate and fate.step for fate in fates] == [None, "duplicates"]


def test_each_step_sees_what_those_before_it_kept_and_copies_come_last(detector, quality, face):
    steps = ordered([make_step("duplicates", {}), make_step("face", {"detector": detector}),
                     make_step("quality", {"least": -1e6, "model": quality})])
    assert [step.name for step in steps] == ["face", "quality", "duplicates"]
    red = np.full((64, 64, 3), 60, np.uint8)
    red[24:32, 24:32] = (255, 0, 0)
    fates = Screen(steps, Loader()).start().judge([face(1, size=64), red, red], ["a", "a", "a"])
    assert [fate and fate.step for fate in fates] == ["face", None, "duplicates"]


def test_batches_do_not_change_a_fate(eye, face, people, tmp_path):
    pictures = people(9)
    write_embeddings(tmp_path / "training.npz", seen(eye, people(4, image=1)), np.arange(4))
    steps = [make_step("leakage", {"most": 0.95, "recognizer": eye, "training": tmp_path / "training.npz"}),
             make_step("duplicates", {"bits": 20})]
    names = ["a"] * 9
    whole = Screen(steps, Loader()).start().judge(pictures.images, names)
    screening = Screen(steps, Loader()).start()
    parts = [fate for start in range(0, 9, 2)
             for fate in screening.judge(pictures.images[start:start + 2], names[start:start + 2])]
    assert parts == whole
    assert {fate and fate.step for fate in whole} == {None, "leakage", "duplicates"}


@pytest.mark.parametrize(("line", "said"), [
    ("fase,detector=x", "did you mean 'face'"), ("face,leest=1,detector=x", "did you mean 'least'"),
    ("face", "needs detector"), ("quality,model=x", "needs least"), ("leakage,most=0.4,recognizer=x", "needs training"),
    ("face,detector", "no key=value"), ("duplicates,bits=two", "number was expected"), ("align", "unknown filter"),
    ("duplicates,bits=nan", "finite")])
def test_a_wrong_line_is_refused(line, said):
    with pytest.raises(InputError, match=said):
        parse_step(line)


def test_a_step_names_its_files_by_content(detector, tmp_path):
    step = parse_step(f"face,least=0.7,detector={detector}")
    assert step.declared["parameters"] == {"least": 0.7}
    assert len(step.declared["files"]["detector"]["sha256"]) == 64
    with pytest.raises(InputError, match="no such detector"):
        _ = parse_step("face,detector=gone.onnx").declared
    with pytest.raises(InputError, match="twice"):
        ordered([step, step])


@pytest.fixture
def source(face_folder, face):
    """Three people, two pictures each; the second person's are copies."""
    root = face_folder(3, 2)
    Image.fromarray(face(1, 0)).save(root / "0001" / "01.png")
    return root


def test_curate_copies_bytes_and_writes_every_fate(source, tmp_path):
    summary = curate_dataset(source, [make_step("duplicates", {"bits": 0})], tmp_path / "kept")
    kept = datasets.open(tmp_path / "kept")
    assert len(kept) == summary["n_kept"] == 5
    assert kept.identities == ("0000", "0001", "0002")
    assert [kept.read(i) for i in range(5)] == [
        (source / name).read_bytes() for name in ("0000/00.png", "0000/01.png", "0001/00.png", "0002/00.png",
                                                  "0002/01.png")]
    fates = [json.loads(line) for line in (tmp_path / "kept" / "curation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in fates] == [None, None, None, "duplicates", None, None]
    assert fates[3]["file"] is None
    assert summary["counts"] == [{"step": "duplicates", "seen": 6, "rejected": 1}]
    assert json.loads((tmp_path / "kept" / "curation.json").read_text()) == summary


def test_people_with_too_few_pictures_are_left_out_and_labels_counted_anew(source, tmp_path):
    summary = curate_dataset(source, [make_step("duplicates", {"bits": 0})], tmp_path / "kept", least_images=2)
    kept = datasets.open(tmp_path / "kept")
    assert kept.identities == ("0000", "0002")
    assert kept.labels.tolist() == [0, 0, 1, 1]
    assert summary["identities_lost"] == ["0001"]
    assert summary["counts"][-1] == {"step": "too few left", "seen": 5, "rejected": 1}


def test_what_a_manifest_said_of_a_picture_stays_with_it(source, tmp_path):
    datasets.convert_dataset(source, tmp_path / "shards", "shards")
    curate_dataset(tmp_path / "shards", [make_step("duplicates", {"bits": 0})], tmp_path / "kept")
    rows = list(datasets.open(tmp_path / "kept").manifest)
    assert [row["name"] for row in rows][:2] == ["0000/00.png", "0000/01.png"]
    assert not any("shard" in row or "offset" in row for row in rows)


def test_curate_without_out_only_counts_and_without_a_picture_left_writes_nothing(source, tmp_path, quality):
    before = sorted(tmp_path.rglob("*"))
    assert curate_dataset(source, [make_step("duplicates", {})])["n_source"] == 6
    with pytest.raises(IncompleteError, match="no picture passes"):
        curate_dataset(source, [make_step("quality", {"least": 1e6, "model": quality})], tmp_path / "kept")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_curates_and_reports(source, tmp_path, negface):
    code, out, err = negface("curate", source, "--filter", "duplicates,bits=0", "--out", tmp_path / "kept", "--json",
                             tmp_path / "r.json")
    assert code == 0, err
    assert "5 of 6 pictures stay, 3 identities" in out
    assert "duplicates: 1 of 6 rejected" in out
    assert json.loads((tmp_path / "r.json").read_text())["n_kept"] == 5
    code, _, err = negface("curate", source, "--filter", "duplicate", "--out", tmp_path / "again")
    assert (code, "did you mean 'duplicates'" in err) == (2, True)
    assert not (tmp_path / "again").exists()


def test_every_filter_that_a_line_can_declare_has_an_example_that_parses():
    for item in registry.entries("filter"):
        if "step" in item.tags:
            assert parse_step(item.load().example).name == item.name
    assert issubclass(UnknownNameError, NegFaceError)
