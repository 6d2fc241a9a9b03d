"""``negface verify``: recognisers times benchmarks, on drawn faces and a small fake IJB set."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest

from negface.datasets import codec, convert_pairs, read_ijb
from negface.datasets.templates import ARCFACE
from negface.evaluation.benchmarks import open_benchmark, people_of
from negface.evaluation.bootstrap import multiplicities
from negface.evaluation.pair_embeddings import distinct_pictures, embed_pictures
from negface.evaluation.pair_scores import people_units
from negface.evaluation.provenance import people_text
from negface.evaluation.template_protocol import template_verification
from negface.evaluation.verification import verification, wilson
from negface.evaluation.verification import verify as verify_pairs
from negface.evaluation.verify_table import _pairs, verify_all
from negface.foundation.errors import InputError
from negface.perception import load_recognizer
from tiny_onnx import write_linear

SIZE, PEOPLE = 16, 12


def recogniser(folder, name, dim=6, seed=0, trained_on="unknown", size=SIZE):
    path = write_linear(folder / f"{name}.onnx", size=size, dim=dim, seed=seed)
    (folder / f"{name}.onnx.json").write_text(json.dumps({
        "name": name, "size": [size, size], "channels": "RGB", "mean": 127.5, "std": 127.5, "dim": dim,
        "trained_on": trained_on}))
    return path


@pytest.fixture
def drawn(tmp_path, face):
    """Twenty-four pairs of twelve drawn people as a list with pictures and as a .bin; two recognisers."""
    lines = ["image_a,image_b,same"]
    for person in range(PEOPLE):
        (tmp_path / f"faces/p{person:02d}").mkdir(parents=True)
        for image in range(2):
            (tmp_path / f"faces/p{person:02d}/{image}.png").write_bytes(codec("png").encode(face(person, image, SIZE)))
        other = (person + 1) % PEOPLE
        lines += [f"p{person:02d}/0.png,p{person:02d}/1.png,1", f"p{person:02d}/0.png,p{other:02d}/1.png,0"]
    (tmp_path / "lfw.csv").write_text("\n".join(lines) + "\n")
    convert_pairs(tmp_path / "lfw.csv", tmp_path / "packed.bin", images=tmp_path / "faces")
    return tmp_path, [recogniser(tmp_path, "one"), recogniser(tmp_path, "two", 9, 1)]


def arguments(drawn, *more):
    folder, eyes = drawn
    return ["verify", f"lfw={folder / 'lfw.csv'}", "--images", f"lfw={folder / 'faces'}", *(
        item for eye in eyes for item in ("--recognizer", eye)), "--folds", "4", "--bootstrap", "30", *more]


def test_every_recogniser_meets_every_benchmark_in_one_table(drawn, negface):
    folder, eyes = drawn
    code, out, _ = negface(*arguments(drawn, folder / "packed.bin", "--csv", folder / "t.csv", "--json",
                                      folder / "t.json"))
    assert code == 0
    rows = json.loads((folder / "t.json").read_text())["rows"]
    assert [(row["benchmark"], row["recognizer"]) for row in rows] == [
        ("lfw", "one"), ("lfw", "two"), ("packed", "one"), ("packed", "two")]
    written = list(csv.DictReader((folder / "t.csv").open()))
    for row, line in zip(rows, written):
        assert float(line["eer"]) == row["eer"]
        assert row["eer_low"] <= row["eer"] <= row["eer_high"]
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert (row["resampled"], row["n_resampled"], row["n_pairs"]) == ("identities", PEOPLE, 24)
    # The .bin knows its names from the sidecar, so both forms tell the same.
    assert all(rows[at][key] == rows[at + 2][key] for at in (0, 1) for key in ("eer", "eer_low", "accuracy"))
    assert "lfw: intervals over 12 identities" in out
    pairs = open_benchmark(folder / "packed.bin")
    assert rows[0]["accuracy"] == verify_pairs(load_recognizer(eyes[0]), _as_pairs(folder), folds=4).accuracy
    assert pairs.pictures.distinct == 2 * PEOPLE


def test_the_interval_of_accuracy_is_over_the_people_of_the_row(drawn):
    """Both pairs of every fourth person are decided wrongly: 24 pairs are no 24 independent cases."""
    folder, _ = drawn
    benchmark = open_benchmark(folder / "lfw.csv", images=folder / "faces")
    right = np.repeat(np.arange(PEOPLE) % 4 > 0, 2)
    found = dataclasses.replace(verification(np.random.default_rng(0).normal(size=(48, 4)), benchmark.same, folds=4),
                                right=right)
    units = people_units(benchmark.people)
    row = _pairs(found, np.linspace(0, 1, 24, dtype=np.float32), units, benchmark, 4, (0.1,), 200, 5)
    replicates = []
    for copies in multiplicities(PEOPLE, 200, 5).T:
        weights = [copies[a] if a == b else copies[a] * copies[b] for a, b in zip(units.first, units.second)]
        replicates.append(np.average(right, weights=weights))
    ends = row["accuracy_low"], row["accuracy_high"]
    assert ends == pytest.approx(tuple(np.quantile(replicates, [0.025, 0.975])))
    low, high = wilson(int(right.sum()), len(right))
    assert ends[1] - ends[0] > high - low


def _as_pairs(folder):
    from negface.datasets import open_pairs

    return open_pairs(folder / "lfw.csv", folder / "faces")


def test_a_bin_without_names_resamples_folds_and_says_so(drawn, negface):
    folder, eyes = drawn
    (folder / "packed.bin.csv").unlink()
    code, out, _ = negface("verify", folder / "packed.bin", "--recognizer", eyes[0], "--folds", "4", "--bootstrap", "9")
    assert code == 0
    assert "packed: intervals over 4 folds" in out
    assert "overlap was not checked" in out


def test_flip_changes_the_figures_and_each_picture_is_embedded_once(drawn, monkeypatch):
    folder, eyes = drawn
    eye, seen = load_recognizer(eyes[0]), []
    raw = eye.raw
    monkeypatch.setattr(eye, "raw", lambda images, **how: seen.append(len(images)) or raw(images, **how))
    pictures = open_benchmark(folder / "lfw.csv", images=folder / "faces").pictures
    plain = embed_pictures(eye, pictures, flip=False, batch=5)
    assert sum(seen) == 2 * PEOPLE
    flipped = embed_pictures(eye, pictures, flip=True)
    images = np.stack([pictures.load(row) for row in pictures.row_of])
    np.testing.assert_array_equal(plain, raw(images))
    np.testing.assert_array_equal(flipped, raw(images).astype(float) + raw(images[:, :, ::-1]))


def test_cached_embeddings_are_read_and_belong_to_their_content(drawn, monkeypatch):
    folder, eyes = drawn
    one, two = map(load_recognizer, eyes)
    pairs = _as_pairs(folder)
    pictures = distinct_pictures(pairs.read, 2 * len(pairs), pairs.names)
    cache = folder / "cache"
    first = embed_pictures(one, pictures, cache=cache)
    assert len(list(cache.iterdir())) == 2
    assert embed_pictures(two, pictures, cache=cache).shape[1] == 9
    monkeypatch.setattr(one, "raw", None)
    np.testing.assert_array_equal(embed_pictures(one, pictures, cache=cache), first)
    (folder / "faces/p00/0.png").write_bytes((folder / "faces/p01/0.png").read_bytes())
    with pytest.raises(TypeError):
        embed_pictures(one, distinct_pictures(pairs.read, 2 * len(pairs), pairs.names), cache=cache)


def test_missing_pictures_are_counted_and_named_before_anything_is_embedded(drawn, negface):
    folder, _ = drawn
    for image in ("p03/0.png", "p03/1.png"):
        (folder / "faces" / image).unlink()
    code, _, error = negface(*arguments(drawn, "--csv", folder / "t.csv"))
    assert code == 2
    assert "2 of 24 listed pictures are not there, first 'p03/" in error
    assert not (folder / "t.csv").exists()


def test_a_recogniser_trained_on_the_benchmarks_people_is_refused(drawn, negface):
    folder, _ = drawn
    eye = recogniser(folder, "student", trained_on=people_text(f"p{n:02d}" for n in range(9, 40)))
    given = ("verify", f"lfw={folder / 'lfw.csv'}", "--images", f"lfw={folder / 'faces'}", "--recognizer", eye,
             "--folds", "4", "--bootstrap", "9")
    code, _, error = negface(*given)
    assert code == 2
    assert "student was trained on 3 of the 12 people of lfw: p09, p10, p11" in error
    code, out, _ = negface(*given, "--force")
    assert code == 0
    assert "WARNING: student was trained on 3 people of lfw" in out


def test_a_benchmark_is_told_by_group(drawn, negface):
    folder, _ = drawn
    (folder / "who.csv").write_text("identity,side\n" + "".join(
        f"p{n:02d},{'left' if n < 6 else 'right'}\n" for n in range(PEOPLE)))
    code, out, _ = negface(*arguments(drawn, "--groups", f"lfw={folder / 'who.csv'}", "--min-people", 4, "--json",
                                      folder / "t.json", "--csv", folder / "t.csv"))
    assert code == 0
    found = json.loads((folder / "t.json").read_text())["rows"][0]["groups"]["side"]
    assert [found["groups"][side]["n_pairs"] for side in ("left", "right")] == [11, 11]
    assert found["n_without_group"] == 2, "p05 against p06 and p11 against p00"
    assert "lfw by side, one" in out
    assert all(found["groups"]["left"][key] is not None for key in ("accuracy", "accuracy_low", "eer"))
    assert found["gaps"]["accuracy"]["worst"] in ("left", "right")
    assert "groups" not in (folder / "t.csv").read_text()


@pytest.mark.parametrize(("more", "said"), [
    (["--groups", "cfp=x"], "--groups names 'cfp'"), (["--images", "cfp=x"], "--images names 'cfp'"),
    (["lfw=other.csv"], "is given twice"),
    (["nowhere.bin"], "no such verification file"), (["--recognizer", "none.onnx"], "no such model file")])
def test_wrong_arguments_are_one_line(drawn, negface, more, said):
    code, _, error = negface(*arguments(drawn, *more))
    assert (code, error.count("\n")) == (2, 1)
    assert said in error


def test_people_are_known_only_where_every_picture_has_a_folder():
    assert people_of(("a/1.jpg", "x/b/2.jpg")) == ("a", "b")
    assert people_of(("a/1.jpg", "2.jpg")) == people_of(()) == ()


@pytest.fixture
def fake_ijb(tmp_path, face):
    """Five people, three templates each of one or two media; crops turned, scaled and shifted off the template."""
    from PIL import Image

    (tmp_path / "ijb/meta").mkdir(parents=True)
    (tmp_path / "ijb/loose_crop").mkdir()
    members, points, templates = [], [], []
    random = np.random.default_rng(0)
    for person in range(5):
        for image in range(6):
            number = 6 * person + image
            angle = random.uniform(-0.3, 0.3)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * 1.3
            name, landmarks = f"{number}.png", ARCFACE @ turn.T + (40, 40)
            # The drawn face lies on the template, then the whole picture is moved as its landmarks are.
            inverse = np.linalg.inv(turn)
            offset = -inverse @ (40, 40)
            picture = Image.fromarray(face(person, image, 112)).transform(
                (220, 220), Image.Transform.AFFINE, [*inverse[0], offset[0], *inverse[1], offset[1]],
                Image.Resampling.BILINEAR)
            picture.save(tmp_path / "ijb/loose_crop" / name)
            template_id = 100 * (person + 1) + image // 2
            members.append(f"{name} {template_id} {number if image != 1 else number - 1}")
            points.append(f"{name} {' '.join(f'{value:.4f}' for value in landmarks.ravel())} {random.uniform(0.5, 1)}")
            templates.append(template_id)
    templates = sorted(set(templates))
    pairs = [f"{a} {b} {int(a // 100 == b // 100)}" for i, a in enumerate(templates) for b in templates[i + 1:]]
    for end, lines in (("face_tid_mid", members), ("name_5pts_score", points), ("template_pair_label", pairs)):
        (tmp_path / f"ijb/meta/ijbc_{end}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_ijb_runs_from_loose_crops_to_tar_at_far(fake_ijb, negface, face):
    eye = recogniser(fake_ijb, "eye", 32, size=112)
    code, out, _ = negface("verify", fake_ijb / "ijb", "--recognizer", eye, "--bootstrap", "20", "--json",
                           fake_ijb / "t.json")
    assert code == 0
    row = json.loads((fake_ijb / "t.json").read_text())["rows"][0]
    assert (row["protocol"], row["n_templates"], row["n_pairs"], row["n_genuine"]) == ("ijb-1:1/1", 15, 105, 15)
    assert (row["resampled"], row["n_resampled"], row["n_people"]) == ("identities", 5, 5)
    assert row["tar_at_far_1e-1_low"] <= row["tar_at_far_1e-1"] <= row["tar_at_far_1e-1_high"]
    assert row["tar_at_far_1e-4"] is None
    assert "ijb: intervals over 5 identities" in out
    meta = read_ijb(fake_ijb / "ijb")
    flat = np.stack([face(person, image, 112) for person in range(5) for image in range(6)])
    raw = load_recognizer(eye).raw(flat).astype(float) + load_recognizer(eye).raw(flat[:, :, ::-1])
    upright = template_verification(raw, meta, fars=(0.1,))["operating_points"][0]
    # Aligned crops are as good as the pictures they were made from.
    assert row["tar_at_far_1e-1"] == pytest.approx(upright["tar"], abs=0.2)


def test_ijb_crops_are_aligned_to_the_template(fake_ijb, face):
    from negface.cli.verify import _aligned

    opened = open_benchmark(fake_ijb / "ijb", align=_aligned)
    for row in (0, 7, 29):
        drawn = face(row // 6, row % 6, 112).astype(int)
        assert np.abs(opened.pictures.load(row)[20:-20, 20:-20].astype(int) - drawn[20:-20, 20:-20]).mean() < 6


def test_ijb_without_its_pictures_is_refused(fake_ijb, negface):
    for number in range(4):
        (fake_ijb / f"ijb/loose_crop/{number}.png").unlink()
    eye = recogniser(fake_ijb, "eye", size=112)
    code, _, error = negface("verify", fake_ijb / "ijb", "--recognizer", eye)
    assert code == 2
    assert "4 of 30 pictures are not there: 0.png, 1.png, 2.png, ..." in error


def test_a_folder_that_is_no_benchmark_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match="pairs.csv or pairs.txt or IJB"):
        open_benchmark(tmp_path)
    with pytest.raises(InputError, match="no recogniser"):
        verify_all([], [])
