"""``negface evaluate`` diversity, fidelity, leakage, identification, fairness and causal: files in, figures out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_twin import people
from PIL import Image

from negface.perception import read_embeddings, write_embeddings
from tiny_onnx import write_linear

JUDGE = {"name": "judge", "hash": "aa" * 32}


def declared(path, task="recognizer", dim=3, size=8, name="tiny", **more):
    write_linear(path, size=size, dim=dim)
    path.with_name(path.name + ".json").write_text(json.dumps({
        "name": name, "task": task, "size": [size, size], "channels": "RGB", "mean": 127.5, "std": 2000, "dim": dim,
        **more}))
    return path


@pytest.fixture
def sets(tmp_path):
    """A made set and a training set by the judge: 40 people with 4 images, 60 with 5."""
    for name, n, images, seed in (("made", 40, 4, 0), ("train", 60, 5, 9)):
        vectors, labels = people(n, images, 16, 0.3, seed=seed)
        write_embeddings(tmp_path / f"{name}.npz", vectors, labels, identities=[f"{name}{k}" for k in range(n)],
                         images=[f"{name}{label}/{row}.png" for row, label in enumerate(labels)],
                         provenance={"recognizer": JUDGE})
    return tmp_path


def result(negface, folder, *arguments):
    code, out, error = negface("evaluate", *arguments, "--json", folder / "out.json")
    assert code == 0, error
    return json.loads((folder / "out.json").read_text()), out


def test_diversity_of_photographs_tells_pose_and_quality(tmp_path, face_folder, negface):
    faces = face_folder(4, 3)
    pose = declared(tmp_path / "pose.onnx", "pose", name="angles")
    quality = declared(tmp_path / "quality.onnx", "quality", 1, name="good")
    found, out = result(negface, tmp_path, "diversity", faces, "--pose", pose, "--quality", quality, "--bootstrap", 20)
    assert set(found["attributes"]) == {"yaw", "pitch", "roll", "quality"}
    assert all(row["low"] <= row["spread"] <= row["high"] for row in found["attributes"].values())
    assert found["analyser"] == "good + angles"
    assert "error unknown" in out
    code, _, error = negface("evaluate", "diversity", faces)
    assert code == 2
    assert "no instrument" in error


def tiny_analyser(folder):
    """An untrained analyser whose errors are known for yaw and age."""
    import torch
    from safetensors.torch import save_file

    from negface.models.analyser import Analyser
    from negface.perception.analyser import VALUES

    options = {"n_values": len(VALUES), "image_size": 16, "widths": [4, 8, 8]}
    torch.manual_seed(0)
    save_file(Analyser(**options).state_dict(), folder / "analyser.safetensors")
    (folder / "analyser.safetensors.json").write_text(json.dumps({
        "name": "tiny-analyser", "task": "analyser", "kind": "torch", "architecture": "analyser", "options": options,
        "size": [16, 16], "channels": "RGB", "mean": 127.5, "std": 127.5, "dim": len(VALUES),
        "measured": {"yaw": 2.5, "age": 9.0}}))
    return folder / "analyser.safetensors"


def test_the_analysers_error_stands_beside_what_it_measured(tmp_path, face_folder, negface):
    from negface.perception.analyser import VALUES

    tiny_analyser(tmp_path)
    given = ("diversity", face_folder(3, 3), "--analyser", tmp_path / "analyser.safetensors", "--bootstrap", 20)
    found, out = result(negface, tmp_path, *given, "--renders")
    assert set(found["attributes"]) == set(VALUES)
    assert found["attributes"]["age"]["error"] == 9
    assert found["attributes"]["yaw"]["unit"] == "degrees"
    assert "(error 2.5; below the error)" in out
    found, out = result(negface, tmp_path, *given)
    assert found["attributes"]["age"]["spread"] is None
    assert found["attributes"]["yaw"]["spread"] > 0
    assert next(line for line in out.splitlines() if " age " in line).endswith("not measured")


def test_fidelity_names_its_network_and_warns_of_few_images(sets, negface):
    found, out = result(negface, sets, "fidelity", sets / "made.npz", "--reference", sets / "train.npz", "--bootstrap",
                        20)
    assert found["feature_network"] == "judge"
    assert found["precision_low"] <= found["precision"] <= found["precision_high"]
    assert "features of judge" in out


def test_leakage_shows_the_closest_pairs_side_by_side(tmp_path, face_folder, negface):
    made, train = face_folder(3, 2, name="made"), face_folder(50, 2, name="train")
    eye = declared(tmp_path / "eye.onnx", dim=12, size=32)
    for faces in (made, train):
        assert negface("embed", faces, "--recognizer", eye, "--out", tmp_path / f"{faces.name}.npz")[0] == 0
    shown = ("leakage", tmp_path / "made.npz", "--train-embeddings", tmp_path / "train.npz", "--bootstrap", 20,
             "--sheet", tmp_path / "closest.png")
    found, out = result(negface, tmp_path, *shown, "--faces", made, "--train-faces", train)
    closest = found["leakage_closest"][0]
    assert closest["cosine"] == pytest.approx(1, abs=1e-5), "made people 0 to 2 are training people 0 to 2"
    assert closest["image_name"] == closest["training_image_name"]
    sheet = np.asarray(Image.open(tmp_path / "closest.png"))
    assert sheet.shape == (126, 3 * 232, 3)
    np.testing.assert_array_equal(sheet[:112, :112], sheet[:112, 112:224])
    assert "not above chance" in out or "above chance" in out
    code, _, error = negface("evaluate", *shown, "--faces", train, "--train-faces", train)
    assert code == 2
    assert "6 embeddings are not of its 100 pictures" in error
    assert negface("evaluate", *shown)[0] == 2


def test_identification_prints_rates_with_intervals(sets, negface):
    found, out = result(negface, sets, "identification", sets / "train.npz", "--bootstrap", 20)
    assert found["tpir_at_fpir_0.1_low"] <= found["tpir_at_fpir_0.1"] <= found["tpir_at_fpir_0.1_high"]
    assert "30 people enrolled" in out


def test_identification_refuses_a_recogniser_that_was_trained_on_these_people_unless_forced(sets, negface):
    plain = read_embeddings(sets / "train.npz")
    write_embeddings(sets / "known.npz", plain.embeddings, plain.labels, identities=plain.identities,
                     provenance={"declaration": {"name": "judge", "trained_on": "[train0..train9]"}})
    code, _, error = negface("evaluate", "identification", sets / "known.npz", "--bootstrap", 9)
    assert code == 2
    assert "judge was trained on 10 of the 60 people of the embeddings" in error
    found, out = result(negface, sets, "identification", sets / "known.npz", "--bootstrap", 9, "--force")
    assert found["trained_on_test_people"] == 10
    assert "WARNING: the recogniser was trained on 10 of these people" in out


def test_fairness_measures_each_attribute_of_a_table(sets, negface):
    (sets / "groups.csv").write_text("identity,region,shoes\n" + "".join(
        f"train{k},{'north' if k % 2 else 'south'},{'big' if k < 25 else 'small'}\n" for k in range(60)))
    found, out = result(negface, sets, "fairness", sets / "train.npz", "--groups", sets / "groups.csv", "--bootstrap",
                        20)
    assert set(found) == {"region", "shoes"}
    assert found["region"]["groups"]["north"]["n_people"] == 30
    assert "by region" in out
    code, _, error = negface("evaluate", "fairness", sets / "train.npz", "--groups", sets / "groups.csv", "--by",
                             "regio")
    assert code == 2
    assert "did you mean 'region'" in error


def test_fairness_adds_adherence_leakage_and_attributes_where_they_can_be_told(tmp_path, face_folder, negface):
    from negface.contexts import ContextBank

    faces = face_folder(8, 3)
    eye = declared(tmp_path / "eye.onnx", dim=12, size=32, name="eye")
    assert negface("embed", faces, "--recognizer", eye, "--out", tmp_path / "judge.npz")[0] == 0
    given = read_embeddings(tmp_path / "judge.npz")
    vectors, labels = people(60, 5, 12, 0.3, seed=9)
    write_embeddings(tmp_path / "train.npz", vectors, labels, identities=[f"t{k}" for k in range(60)],
                     provenance=given.provenance)
    ContextBank(given.embeddings[::3], given.identities).save(tmp_path / "bank.safetensors")
    (tmp_path / "who.csv").write_text("identity,side\n" + "".join(
        f"{name},{'left' if k < 4 else 'right'}\n" for k, name in enumerate(given.identities)))
    asked = ("fairness", tmp_path / "judge.npz", "--groups", tmp_path / "who.csv", "--min-people", 4, "--bootstrap", 20)
    found, out = result(negface, tmp_path, *asked, "--contexts", tmp_path / "bank.safetensors",
                        "--conditioner-embeddings", tmp_path / "judge.npz",
                        "--train-embeddings", tmp_path / "train.npz", "--faces", faces, "--analyser",
                        tiny_analyser(tmp_path), "--renders")
    for group in found["side"]["groups"].values():
        assert {"adherence", "adherence_rank1", "leakage_rate", "yaw_spread", "age_spread", "genuine_std"} <= set(group)
    assert found["side"]["instruments"]["yaw"]["error"] == 2.5
    assert "adherence: worst" in out
    assert "(instrument's error 2.5 degrees)" in out
    found, _ = result(negface, tmp_path, *asked, "--faces", faces, "--analyser", tmp_path / "analyser.safetensors")
    assert set(found["side"]["instruments"]) == {"yaw", "pitch", "roll"}, "of photographs only pose counts"
    code, _, error = negface("evaluate", *asked, "--faces", faces)
    assert (code, "give --faces and --analyser" in error) == (2, True)


def test_causal_asks_a_recogniser_and_refuses_one_that_knew_the_people(tmp_path, negface):
    eye = declared(tmp_path / "eye.onnx", dim=8, size=16)
    asked = ("causal", eye, "--attribute", "skin_tone", "--level", 0.1, "--level", 0.9, "--people", 4, "--images", 2,
             "--size", 32, "--bootstrap", 20, "--fmr", 0.1)
    found, out = result(negface, tmp_path, *asked)
    assert (found["attribute"], found["recognizer"]["name"], len(found["levels"])) == ("skin_tone", "tiny", 2)
    assert "skin_tone 0.1 -> 0.9: genuine_mean" in out
    knew = declared(tmp_path / "knew.onnx", trained_on="[s0-p900003..s0-p900010]")
    code, _, error = negface("evaluate", "causal", knew, *asked[2:])
    assert code == 2
    assert "trained on 1 of the 4 people of the experiment: s0-p900003" in error
