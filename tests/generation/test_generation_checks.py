"""A finished dataset again: filters and what they replaced, ``--verify``, ``--remake``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from negface import datasets
from negface.curation import Loader, Screen, make_step
from negface.curation.steps import Step
from negface.foundation.errors import IncompleteError, InputError, MismatchError
from negface.foundation.files import write_json
from negface.generation import Tools, make_inputs, remake, verify
from negface.generation.batches import load_pipeline
from negface.perception import load_recognizer, write_embeddings
from negface.perception.declarations import sidecar_path
from tiny_onnx import write_linear


@pytest.fixture
def quality(tmp_path):
    """A "quality" that is a random linear function of the pixels: half of all pictures are above its median."""
    file = write_linear(tmp_path / "quality.onnx", size=16, dim=1)
    write_json(sidecar_path(file), {"name": "linear", "task": "quality", "size": [16, 16], "channels": "RGB",
                                    "mean": 127.5, "std": 127.5, "dim": 1})
    return file


@pytest.fixture
def filters(quality, made):
    """A quality filter that about a third of the pictures fail."""
    from negface.perception import load_quality

    faces = datasets.open(made("unfiltered", images=6, codec_name="png")[1])
    values = load_quality(quality).score(np.stack([faces[i][0] for i in range(len(faces))]))
    return (make_step("quality", {"least": float(np.quantile(values, 0.35)), "model": quality}),)


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rejected_pictures_are_replaced_until_the_count_holds_and_are_counted(made, filters, digests, model):
    result, folder = made("set", filters=filters, images=4, codec_name="png", tries=8)
    faces, lost = datasets.open(folder), lines(folder / "rejected.jsonl")
    assert np.bincount(faces.labels).tolist() == [4, 4, 4, 4]
    assert lost
    pictures = [faces[i][0] for i in range(16)]
    assert Screen(filters, Loader()).start().judge(pictures, ["0"] * 16) == [None] * 16
    assert all(row["value"] < filters[0].parameters["least"] for row in lost)
    assert result["rejected"] == [{"step": "quality", "seen": 16 + len(lost), "rejected": len(lost)}]
    record = json.loads((folder / "curation.json").read_text())
    assert record["counts"] == result["rejected"]
    assert record["filters"] == [filters[0].declared]
    assert f"| {16 + len(lost)} | {len(lost)} |" in (folder / "README.md").read_text()
    again = made("again", filters=filters, images=4, codec_name="png", tries=8, run={"shard": (1, 1)})[1]
    assert digests(again) == digests(folder)
    assert verify(folder)["sound"]
    numbers = {(row["label"], row["image"]) for row in faces.manifest} | {(row["label"], row["image"]) for row in lost}
    assert len(numbers) == 16 + len(lost)


def test_filters_are_part_of_the_plan_and_none_leaves_it_as_it_was(planned, filters):
    plain, filtered = planned()[0], planned(filters=filters)[0]
    assert "filters" not in plain.to_dict()
    assert filtered.hash != plain.hash
    assert any(text.startswith("filters") for text in plain.differences(filtered))
    assert type(filtered).from_dict(json.loads(json.dumps(filtered.to_dict()))) == filtered


def test_a_person_who_cannot_reach_the_count_is_named_with_the_reason(made, quality):
    never = (make_step("quality", {"least": 1e6, "model": quality}),)
    with pytest.raises(IncompleteError, match=r"identity '0': only 0 of 6 pictures pass \(6 by quality rejected\)"):
        made("set", filters=never, tries=2)


def test_filters_of_other_files_than_the_plans_are_refused(made, filters, quality, model, tmp_path):
    other = write_linear(tmp_path / "other.onnx", size=16, dim=1, seed=5)
    write_json(sidecar_path(other), json.loads(sidecar_path(quality).read_text()))
    wrong = Step("quality", filters[0].parameters, {"model": str(other)})
    with pytest.raises(MismatchError, match="not those of the plan"):
        made("set", tools=Tools(model=str(model), filters=(wrong,)), filters=filters)
    assert not (tmp_path / "set").exists()


def test_adherence_in_a_run_looks_at_the_runs_own_contexts(made, tmp_path, bank):
    eye = write_linear(tmp_path / "eye.onnx", size=16, dim=16, seed=2)
    write_json(sidecar_path(eye), {"name": "eye", "size": [16, 16], "channels": "RGB", "mean": 127.5, "std": 127.5,
                                   "dim": 16})
    step = make_step("adherence", {"least": -0.05, "recognizer": eye})
    _, folder = made("set", filters=(step,), codec_name="png", tries=20)
    faces, eyes = datasets.open(folder), load_recognizer(eye)
    seen = eyes.embed(np.stack([faces[i][0] for i in range(12)]))
    cosines = (seen * bank(4).contexts[faces.labels]).sum(axis=1)
    assert (cosines >= -0.05 - 1e-5).all()
    write_embeddings(tmp_path / "training.npz", seen, faces.labels)
    leak = make_step("leakage", {"most": 0.999, "recognizer": eye, "training": tmp_path / "training.npz"})
    _, other = made("other", filters=(step, leak), codec_name="png", tries=20)
    assert {row["step"] for row in lines(other / "rejected.jsonl")} >= {"leakage"}
    assert not {datasets.open(other).read(i) for i in range(12)} & {faces.read(i) for i in range(12)}


@pytest.mark.parametrize("format", ["folder", "shards"])
def test_verify_finds_what_is_missing_changed_and_extra(made, format, negface):
    _, folder = made(format=format)
    code, out, _ = negface("generate", "--verify", folder)
    assert (code, "12 pictures are what the manifest says" in out) == (0, True)
    pictures = sorted((folder / ("images" if format == "folder" else "shards")).rglob("*.*"))
    pictures[0].unlink()
    data = bytearray(pictures[1].read_bytes())
    data[-1] ^= 1
    pictures[1].write_bytes(data)
    (folder / "notes.txt").write_text("mine")
    (folder / "README.md").write_text("better")
    code, out, err = negface("generate", "--verify", folder, "--json", folder.parent / "r.json")
    found = json.loads((folder.parent / "r.json").read_text())
    names = [path.relative_to(folder).as_posix() for path in pictures]
    assert code == 1
    assert "is not what its manifest says" in err
    assert (found["missing"], found["changed"], found["extra"]) == ([names[0]], [names[1], "README.md"], ["notes.txt"])
    assert f"missing: {names[0]}" in out


def test_verify_finds_a_manifest_of_another_plan_and_rejections_that_do_not_fit(made, filters):
    _, folder = made(filters=filters, tries=8)
    rows = lines(folder / "manifest.jsonl")
    rows[3]["steps"] = 99
    datasets.write_rows(folder / "manifest.jsonl", rows)
    datasets.write_rows(folder / "rejected.jsonl", lines(folder / "rejected.jsonl")[1:])
    found = verify(folder)
    assert "manifest.jsonl: line 4 is not of this plan, or out of order" in found["wrong"]
    assert any("rejections do not fit" in text for text in found["wrong"])
    assert "curation.json" in found["changed"]


def test_verify_refuses_what_is_no_finished_dataset(made, tmp_path, face_folder):
    with pytest.raises(InputError, match=r"no plan\.json"):
        verify(face_folder(1, 1))
    _, folder = made()
    (folder / "manifest.jsonl").unlink()
    with pytest.raises(InputError, match="not finished"):
        verify(folder)


def test_every_picture_is_made_again_to_the_byte_even_those_that_replaced_others(made, filters, model, planned):
    _, folder = made(filters=filters, tries=8)
    faces, tools = datasets.open(folder), Tools(pipeline=load_pipeline(model, planned()[0]))
    inputs = planned()[1]
    assert max(row["image"] for row in faces.manifest) > 2
    for index, row in enumerate(faces.manifest):
        if row["image"] > 2 or index % 4 == 0:
            again = remake(folder, row["identity"], row["image"], inputs, tools)
            assert again.identical, row
            assert again.data == faces.read(index)


def test_the_command_makes_one_picture_again(made, model, bank, tmp_path, negface):
    _, folder = made(format="shards")
    bank(4).save(tmp_path / "bank.safetensors")
    common = ("--out", folder, "--model", model, "--contexts", tmp_path / "bank.safetensors")
    code, out, err = negface("generate", "--remake", "2/1", *common, "--to", tmp_path / "picture.jpg")
    assert code == 0, err
    assert "2/1: the same bytes" in out
    faces = datasets.open(folder)
    assert (tmp_path / "picture.jpg").read_bytes() == faces.read(7)
    for picture, said in (("2/9", "has no image 9"), ("7/0", "'7' is not in it"), ("2", "names no picture")):
        code, _, err = negface("generate", "--remake", picture, *common)
        assert (code, said in err) == (2, True), err


def test_a_picture_that_comes_out_otherwise_is_exit_code_1(made, model, planned):
    _, folder = made()
    rows = lines(folder / "manifest.jsonl")
    rows[0]["sha256"] = "0" * 64
    datasets.write_rows(folder / "manifest.jsonl", rows)
    assert not remake(folder, "0", 0, planned()[1], Tools(model=str(model))).identical


def test_another_bank_or_other_negatives_are_refused(made, model, planned, bank):
    _, folder = made()
    with pytest.raises(MismatchError, match="contexts"):
        remake(folder, "0", 0, planned(n=5)[1], Tools(model=str(model)))
    with pytest.raises(MismatchError, match="negatives"):
        remake(folder, "0", 0, make_inputs(bank(4), "close"), Tools(model=str(model)))


def test_the_command_filters_and_says_what_was_rejected(model, bank, tmp_path, negface, filters):
    bank(3).save(tmp_path / "bank.safetensors")
    step = filters[0]
    code, out, err = negface(
        "generate", "--model", model, "--contexts", tmp_path / "bank.safetensors", "--images", 4, "--size", 16,
        "--batch", 4, "--steps", 2, "--scheduler", "ddim", "--tries", 9, "--out", tmp_path / "filtered", "--filter",
        f"quality,least={step.parameters['least']},model={step.files['model']}")
    assert code == 0, err
    assert "rejected and replaced" in out
    code, _, err = negface("generate", "--verify", tmp_path / "filtered")
    assert code == 0, err
    code, _, err = negface("generate", "--out", tmp_path / "x")
    assert (code, "--model is missing" in err) == (2, True)
