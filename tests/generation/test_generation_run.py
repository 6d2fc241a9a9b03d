"""Carrying out a plan: bytes, counts, resuming, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from negface import datasets
from negface.foundation.errors import IncompleteError, InputError, MismatchError, NegFaceError, OutputError
from negface.generation import Tools, generate
from negface.generation.batches import BatchSampler, load_pipeline
from negface.generation.claims import claim
from negface.generation.publish import Folder, publish
from negface.sampling import guidance


def test_every_identity_gets_exactly_the_images_asked_for(made):
    result, folder = made()
    faces = datasets.open(folder)
    assert np.bincount(faces.labels).tolist() == [3, 3, 3, 3]
    assert faces.identities == ("0", "1", "2", "3")
    image, label = faces[4]
    assert (image.shape, label) == ((16, 16, 3), 1)
    assert image.std() > 5
    assert result["images"] == result["images_made"] == 12
    assert not (folder / "units").exists()


def test_shards_hold_the_same_pictures_as_folders(made):
    import webdataset

    _, folder = made("folders")
    _, shards = made("shards", format="shards")
    one, two = datasets.open(folder), datasets.open(shards)
    assert [one.read(i) for i in range(12)] == [two.read(i) for i in range(12)]
    urls = [str(path) for path in sorted((shards / "shards").iterdir())]
    reader = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("jpg", "cls")
    assert [label for _, label in reader] == two.labels.tolist()


def test_equal_plans_give_equal_bytes(made, digests):
    assert digests(made("a")[1]) == digests(made("b")[1])


def test_another_seed_or_identity_or_image_gives_another_picture(made):
    faces, other = (datasets.open(made(name, seed=seed)[1]) for name, seed in (("a", 0), ("b", 1)))
    pictures = {faces.read(i) for i in range(12)} | {other.read(i) for i in range(12)}
    assert len(pictures) == 24


def test_more_identities_leave_the_first_ones_as_they_were(made):
    """Noise is keyed by the image, so a larger dataset holds the smaller one (batches are cut the same here)."""
    few, many = datasets.open(made("few", strategy="antipodal", identities=2)[1]), \
        datasets.open(made("many", strategy="antipodal", identities=4)[1])
    assert [few.read(i) for i in range(6)] == [many.read(i) for i in range(6)]


@pytest.mark.parametrize("scheduler", ["ddpm", "dpmpp"])
def test_another_batch_shape_changes_rounding_only(planned, model, scheduler):
    items = [(label, image) for label in range(4) for image in range(3)]
    finals, pictures = [], []
    for batch in (3, 7):
        plan, inputs = planned(batch=batch, steps=4, scheduler=scheduler)
        sampler = BatchSampler(plan, inputs, load_pipeline(model, plan))
        runs = [items[start:start + batch] for start in range(0, 12, batch)]
        finals.append(np.concatenate([sampler.call(run, output_type="latent").numpy() for run in runs]))
        pictures.append(np.concatenate([sampler(run) for run in runs]).astype(int))
    assert np.abs(finals[0] - finals[1]).max() <= 1e-4 * np.abs(finals[0]).max()
    assert (np.abs(pictures[0] - pictures[1]) > 1).mean() <= 1e-3


def test_a_row_says_enough_to_make_its_picture_again(made, model, bank):
    """From the row alone (and the bank it names): the pipeline gives the pixels that were written."""
    from negface.contexts import negatives
    from negface.pipelines import NegFaceDiffPipeline

    _, folder = made(codec_name="png", scheduler="ddpm", guidance=guidance.rising(1.0), batch=1)
    faces = datasets.open(folder)
    row, people = faces.manifest[7], bank(4)
    assert row["bank"] == people.hash
    pipe = NegFaceDiffPipeline.from_pretrained(model)
    wanted = people.ids.index(row["identity"])
    negative = people.contexts[[row["negative"]["index"]]]
    assert row["negative"]["index"] == negatives.select(people, row["negative"]["strategy"]).indices[wanted]
    picture = pipe(people.contexts[[wanted]], negative, guidance.from_dict(row["guidance"]), row["steps"],
                   seeds=[(row["seed"], row["identity"], row["image"])], scheduler=row["scheduler"],
                   output_type="uint8").images[0]
    assert np.array_equal(picture, faces[7][0])
    assert row["mean_weight"] == pytest.approx(0.5, abs=0.26)


def test_a_finished_dataset_is_left_alone(made):
    _, folder = made()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    result, _ = made()
    assert result["images_made"] == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("format", ["folder", "shards"])
def test_a_damaged_dataset_is_mended_to_the_same_bytes(made, digests, format):
    _, folder = made(format=format)
    before = digests(folder)
    victim = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".tar"))[1]
    victim.write_bytes(victim.read_bytes()[:-700])
    made(format=format)
    assert digests(folder) == before


def test_a_missing_picture_is_made_again(made, digests):
    _, folder = made()
    before = digests(folder)
    next(folder.rglob("*.jpg")).unlink()
    result, _ = made()
    assert result["images_made"] == 6
    assert digests(folder) == before


class Dies(BaseException):
    """Stands for a kill in the middle of a unit."""


def dying(pipeline, calls: int):
    """The pipeline, which dies after so many calls."""
    left = [calls]

    def call(*args, **options):
        if not left[0]:
            raise Dies
        left[0] -= 1
        return pipeline(*args, **options)
    return call


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_a_run_that_died_anywhere_resumes_to_the_same_bytes(made, planned, model, digests, calls):
    _, whole = made("whole")
    plan, _ = planned()
    with pytest.raises(Dies):
        made("cut", tools=Tools(pipeline=dying(load_pipeline(model, plan), calls)))
    with pytest.raises(InputError, match="not finished"):
        datasets.open(whole.parent / "cut")
    result, cut = made("cut")
    assert digests(cut) == digests(whole)
    assert result["images_kept"] == (calls // 2) * 6


def test_publication_that_fails_leaves_no_half_unit(made, monkeypatch, digests):
    _, whole = made("whole")
    real, count = os.replace, [0]

    def full(source, target):
        count[0] += 1
        if count[0] == 4:
            raise OSError(28, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="no space left"):
        made("full")
    monkeypatch.undo()
    folder = whole.parent / "full"
    assert not [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]
    assert not list(folder.glob("units/*.json"))
    made("full")
    assert digests(folder) == digests(whole)


def test_leftovers_of_killed_writers_are_removed(made, digests):
    _, whole = made("whole")
    cut = whole.parent / "cut"
    (cut / "images" / ".tmp-12345678-000000").mkdir(parents=True)
    (cut / "images" / ".tmp-12345678-000000" / "00000.jpg").write_bytes(b"half")
    (cut / "plan.json").write_bytes((whole / "plan.json").read_bytes())
    made("cut")
    assert digests(cut) == digests(whole)


def test_a_folder_of_another_plan_is_refused_and_says_what_differs(made, digests):
    _, folder = made()
    before = digests(folder)
    with pytest.raises(MismatchError, match=r"seed: 0 / 5.*"):
        made(seed=5)
    with pytest.raises(MismatchError, match=r"guidance\.rule: constant\(0\.5\) / constant\(1\)"):
        made(guidance=guidance.constant(1.0))
    assert digests(folder) == before


def test_a_folder_with_something_else_in_it_is_refused(planned, model, tmp_path):
    plan, inputs = planned()
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        generate(plan, inputs, tmp_path, Tools(model=str(model)))
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
    with pytest.raises(OutputError):
        generate(plan, inputs, tmp_path / "diary.txt" / "set", Tools(model=str(model)))


def test_contexts_that_are_not_the_plans_are_refused(planned, model, tmp_path):
    plan, other = planned()[0], planned(n=6)[1]
    with pytest.raises(InputError, match="not those of the plan"):
        generate(plan, other, tmp_path / "set", Tools(model=str(model)))


def some_faces(every: int):
    """An aligner that misses each ``every``-th picture it is shown, by content."""
    def make():
        return lambda image: None if int(image.astype(int).sum()) % every == 0 else image
    return make


def test_pictures_without_a_face_are_replaced_to_the_exact_count(made, digests, tmp_path, model):
    detector = tmp_path / "detector.onnx"
    detector.write_bytes(b"named by its content only")
    tools = Tools(model=str(model), aligner=some_faces(3))
    result, folder = made("a", tools=tools, align="detect", detector=detector, images=6)
    faces = datasets.open(folder)
    assert np.bincount(faces.labels).tolist() == [6, 6, 6, 6]
    assert result["faces_not_found"] > 0
    numbers = [row["image"] for row in faces.manifest]
    assert max(numbers) >= 6
    assert digests(made("b", tools=tools, align="detect", detector=detector, images=6)[1]) == digests(folder)


def test_an_identity_without_faces_ends_with_exit_code_1_and_the_rest_published(made, planned, tmp_path, model):
    detector = tmp_path / "detector.onnx"
    detector.write_bytes(b"x")
    shown = []

    def first_identity_has_no_face():
        def align(image):
            shown.append(1)
            return None if len(shown) <= 9 else image
        return align

    with pytest.raises(IncompleteError, match=r"1 of 4 units.*'0'") as caught:
        made(tools=Tools(model=str(model), aligner=first_identity_has_no_face), align="detect", detector=detector,
             unit_images=3)
    assert caught.value.exit_code == 1
    assert len(list((tmp_path / "set" / "images").iterdir())) == 3
    assert not (tmp_path / "set" / "images" / "000000").exists()


def test_card_marks_banks_of_real_people(made, planned, bank):
    from negface.generation import make_inputs

    _, plain = made("plain")
    assert "not for release as anonymous" not in (plain / "README.md").read_text().lower()
    assert "not measured" in (plain / "README.md").read_text()
    _, real = made("real", inputs=make_inputs(bank(source="authentic", describes_real_people=True)))
    assert "not for release as anonymous" in (real / "README.md").read_text().lower()


def test_an_id_that_is_no_plain_name_is_kept_in_the_manifest(made):
    from negface.contexts import ContextBank
    from negface.generation import make_inputs

    vectors = np.random.default_rng(1).standard_normal((2, 16))
    bank = ContextBank.from_vectors(vectors, ["Ana María, the 2nd", "-rf *"], normalise=True)
    _, folder = made(inputs=make_inputs(bank))
    assert datasets.open(folder).identities == ("Ana María, the 2nd", "-rf *")


def test_a_claim_is_held_by_one_and_dropped_at_the_end(tmp_path):
    with claim(tmp_path / "lock") as mine:
        with claim(tmp_path / "lock") as other:
            assert (mine, other) == (True, False)
    with claim(tmp_path / "lock") as again:
        assert again


def test_a_unit_of_wrong_content_is_not_sound(planned, tmp_path):
    from negface.generation.finishing import Made
    from negface.generation.publish import prepare, read_part
    from negface.generation.soundness import is_sound
    from negface.generation.units import Harvest

    plan, _ = planned()
    folder, unit = prepare(tmp_path / "set", plan), plan.units()[0]
    items = [Made(label, image, b"abc") for label in unit.labels for image in range(2)]
    folder.units.mkdir()
    publish(folder, unit, Harvest(items), {}, {(item.label, item.image): {} for item in items})
    assert not is_sound(folder, unit, *read_part(folder, unit))


def test_workers_errors_reach_the_caller(planned, tmp_path, model, monkeypatch):
    """In this process: the worker's main sends its error through its channel instead of dying with it."""
    from multiprocessing import Pipe

    from negface.generation.local import serve
    from negface.generation.publish import prepare
    from negface.generation.workers import FATAL

    plan, inputs = planned()
    folder = prepare(tmp_path / "set", plan)
    folder.units.mkdir()
    inputs.save(folder.units)
    mine, theirs = Pipe()
    mine.send(0)
    serve(theirs, str(folder.root), Tools(model=str(tmp_path / "gone")), "worker 0")
    event = mine.recv()
    assert event.kind == FATAL
    assert "gone" in event.value[0]
    assert event.value[1] == 2


def command(model, bank_file, out, *more) -> list[str]:
    options = {"--model": model, "--contexts": bank_file, "--out": out, "--images": 6, "--steps": 6, "--batch": 4,
               "--unit": 6, "--size": 16, "--scheduler": "ddpm"}
    return ["generate", *(str(part) for pair in options.items() for part in pair), *map(str, more)]


@pytest.mark.process
def test_two_workers_killed_in_the_middle_and_one_that_resumes_give_the_bytes_of_one(model, bank, tmp_path, digests,
                                                                                     negface):
    """kill -9 of the whole process group; no picture is lost, made twice, or different."""
    bank(6).save(tmp_path / "bank.safetensors")
    common = (model, tmp_path / "bank.safetensors")
    assert negface(*command(*common, tmp_path / "one", "--steps", 20))[0] == 0
    two = tmp_path / "two"
    run = [sys.executable, "-m", "negface", *command(*common, two, "--steps", 20, "--workers", 2)]
    process = subprocess.Popen(run, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while process.poll() is None and len(list(two.glob("units/0*.json"))) < 1:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (two / "manifest.jsonl").exists()
    code, out, err = negface(*command(*common, two, "--steps", 20), "--json", "-")
    assert code == 0, err
    assert json.loads(out)["images"] == 36
    assert 0 < json.loads(out)["images_kept"] < 36
    assert digests(two) == digests(tmp_path / "one")


@pytest.mark.process
@pytest.mark.slow
def test_three_workers_give_the_bytes_of_one(model, bank, tmp_path, digests, negface):
    bank(12).save(tmp_path / "bank.safetensors")
    common = (model, tmp_path / "bank.safetensors")
    for name, workers in (("one", 1), ("three", 3)):
        assert negface(*command(*common, tmp_path / name, "--workers", workers, "--format", "shards"))[0] == 0
    assert digests(tmp_path / "three") == digests(tmp_path / "one")


def test_command_prints_mean_weight_and_rate(model, bank, tmp_path, negface):
    bank(2).save(tmp_path / "bank.safetensors")
    code, out, err = negface(*command(model, tmp_path / "bank.safetensors", tmp_path / "set", "--guidance", "rising",
                                      "--weight", "1", "--format", "shards"))
    assert code == 0, err
    assert "mean guidance weight of the run: 0.4" in err
    assert "images/s" in out


def test_command_takes_a_file_of_negatives(model, bank, tmp_path, negface):
    from negface.contexts import negatives

    bank(3).save(tmp_path / "bank.safetensors")
    negatives.select(bank(3), "close").save(tmp_path / "close.safetensors")
    common = (model, tmp_path / "bank.safetensors")
    assert negface(*command(*common, tmp_path / "a", "--negatives", tmp_path / "close.safetensors"))[0] == 0
    assert negface(*command(*common, tmp_path / "b", "--negatives", "close"))[0] == 0
    one, two = datasets.open(tmp_path / "a"), datasets.open(tmp_path / "b")
    assert [one.read(i) for i in range(18)] == [two.read(i) for i in range(18)]


def test_dry_run_forecasts_and_writes_nothing(model, bank, tmp_path, negface, monkeypatch):
    monkeypatch.setattr("negface.generation.estimates.CALIBRATION_SECONDS", 0.2)
    bank(3).save(tmp_path / "bank.safetensors")
    code, out, _ = negface(*command(model, tmp_path / "bank.safetensors", tmp_path / "set", "--dry-run"))
    assert code == 0
    assert "216 predictions" in out
    assert "TFLOP" in out
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(("more", "said"), [
    (("--negatives", "farr"), "did you mean 'far'"), (("--scheduler", "euler"), "unknown scheduler"),
    (("--align", "detect"), "needs --detector"), (("--negative-scope", "image"), "scope"),
    (("--guidance", "constnt"), "did you mean 'constant'"), (("--weight", "-1"), ">= 0"),
    (("--images", "0"), "at least 1"),
    (("--contexts", "none.safetensors"), "no such file"), (("--model", "nowhere"), "no such model folder"),
    (("--negatives", "gone.safetensors"), "no such file"), (("--interval", "800", "200"), "low <= high")])
def test_wrong_use_is_one_line_exit_code_2_and_no_output(model, bank, tmp_path, negface, more, said):
    bank(3).save(tmp_path / "bank.safetensors")
    code, _, err = negface(*command(model, tmp_path / "bank.safetensors", tmp_path / "set", *more))
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "set").exists()


def test_truncated_bank_and_model_are_refused_without_output(model, bank, tmp_path, negface):
    import shutil

    bank(3).save(tmp_path / "bank.safetensors")
    data = (tmp_path / "bank.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-40])
    assert negface(*command(model, tmp_path / "cut.safetensors", tmp_path / "set"))[0] == 2
    copy = shutil.copytree(model, tmp_path / "copy")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    code, _, err = negface(*command(copy, tmp_path / "bank.safetensors", tmp_path / "set"))
    assert code == 2, err
    assert not (tmp_path / "set").exists()
    assert negface(*command(model, tmp_path / "bank.safetensors", tmp_path / "set"))[0] == 0


def test_errors_are_of_the_family():
    assert issubclass(IncompleteError, NegFaceError)
    assert Folder.name(7) == "000007"
