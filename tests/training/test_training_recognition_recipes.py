"""The shipped recipes in a smoke form, the command, ONNX, and two processes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_recognition import fit, pairs_bin, recipe, table
from tiny_training import log_rows, toml

from negface import datasets
from negface.foundation import registry
from negface.foundation.errors import InputError
from negface.models.mobilefacenet import MobileFaceNet
from negface.perception import Declaration, load_recognizer
from negface.training.loop import KeyedOrder
from negface.training.onnx_export import export_onnx
from negface.training.recipe import RecognitionRecipe, load_recipe
from negface.training.recognition import RecognitionTask, make_backbone, train_recognition
from negface.training.recognition_course import resolved
from negface.training.recognition_data import Pictures
from negface.training.trainers import make_accelerator

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("recognition-*.toml"))


def smoke(path):
    """The recipe at 32 pixels with two steps of four pictures and the smallest backbone of its kind."""
    full = load_recipe(RecognitionRecipe, path)
    deep = full.model.architecture.startswith("iresnet")
    options = {"blocks": [1, 1], "widths": [8, 16]} if deep else {"width": 0.25}
    name = "iresnet" if deep else full.model.architecture
    model = full.model.model_copy(update={
        "architecture": name, "options": {**full.model.options, **options}, "dim": 8, "image_size": 32})
    train = full.train.model_copy(update={"steps": 2, "epochs": None, "batch": 4, "log_every": 1})
    return full.model_copy(update={"model": model, "train": train,
                                   "data": full.data.model_copy(update={"threads": 1, "memory": 0.1})})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs_in_a_smoke_form(path, face_folder, tmp_path):
    small = smoke(path)
    pairs = [pairs_bin(tmp_path / "dev.bin")] if small.validation.stop_after else []
    made = train_recognition(small, face_folder(4, 3), tmp_path / "out", development=pairs, say=lambda line: None)
    assert made["steps"] == 2
    assert np.isfinite(made["loss"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_names_a_backbone_that_can_be_built(path):
    full = load_recipe(RecognitionRecipe, path)
    with torch.device("meta"):
        made = make_backbone(full)
    assert made.image_size == full.model.image_size


@pytest.fixture
def work(tmp_path, face_folder):
    face_folder(6, 4)
    (tmp_path / "r.toml").write_text(toml(table()))
    return tmp_path


def test_command_trains_exports_and_says_what_was_made(work, negface):
    line = ["train", "recognition", work / "r.toml", "--faces", work / "faces", "--out", work / "out", "--name", "tiny",
            "--onnx"]
    code, out, err = negface(*line, "--json", work / "r.json")
    assert code == 0, err
    found = json.loads((work / "r.json").read_text())
    assert (found["steps"], found["n_images"], found["n_identities"]) == (6, 24, 6)
    assert "images/s" in out
    assert "ONNX differs by" in out
    assert found["onnx_difference"] < 1e-5
    pictures = np.stack([datasets.open(work / "faces")[i][0] for i in range(5)])
    made, trained = (load_recognizer(work / f"out/model/recognizer.{kind}") for kind in ("onnx", "safetensors"))
    assert made.declaration.trained_on == trained.declaration.trained_on
    np.testing.assert_allclose(made.embed(pictures), trained.embed(pictures), atol=1e-4)
    (work / "held.txt").write_text("0003\n")
    code, _, err = negface(*line[:-1], "--held-out", work / "held.txt")
    assert code == 2
    assert "0003" in err


@pytest.mark.parametrize(("name", "options"), [
    ("iresnet", {"blocks": [1, 1], "widths": [8, 16]}), ("resnet", {"blocks": [1, 1], "widths": [8, 16]}),
    ("mobilefacenet", {"width": 0.25})])
def test_every_backbone_becomes_onnx(name, options, tmp_path):
    options = {"dim": 8, "image_size": 32, **options}
    network = registry.load("model", name)(**options)
    network(torch.randn(8, 3, 32, 32))
    declaration = Declaration(name=name, kind="torch", size=(32, 32), dim=8, architecture=name, options=options)
    assert export_onnx(network, declaration, tmp_path / "made.onnx") < 1e-5


def test_an_operation_that_onnx_export_does_not_know_is_refused_by_name(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1).cumsum(1)

    declaration = Declaration(name="odd", kind="torch", size=(2, 2), dim=12, architecture="odd")
    with pytest.raises(InputError, match="cumsum"):
        export_onnx(Odd(), declaration, tmp_path / "odd.onnx")
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import sys
from negface.cli.main import main
from negface.models.mobilefacenet import MobileFaceNet
from negface.training.recognition_data import Pictures
steps, frozen = int(sys.argv[1]), sys.argv[2] == "frozen"
real, calls = Pictures.batch, []
def batch(self, places):
    calls.append(1)
    if len(calls) > steps:
        sys.exit(0)
    return real(self, places)
Pictures.batch = batch
if frozen:
    MobileFaceNet.train = lambda self, mode=True: super(MobileFaceNet, self).train(False)
main(sys.argv[3:])
"""


def in_two_processes(work, steps, out, norms="trained"):
    """torchrun over gloo of ``half.toml``; exits before batch number ``steps`` + 1."""
    (work / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
               work / "script.py", steps, norms, "train", "recognition", work / "half.toml", "--faces", work / "faces",
               "--out", out, "--threads", "1"]
    done = subprocess.run([str(item) for item in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def first_losses_of_halves(faces, recipe, out):
    """What each of two processes should find in the first step: fresh weights, every second row."""
    train, pictures = resolved(recipe, 24), Pictures(datasets.open(faces), np.arange(24), 32, recipe.data)
    order, found = KeyedOrder(24, train.batch, train.seed), []
    for rank in range(2):
        task = RecognitionTask(recipe, train, pictures, order, make_accelerator(train), None, out)
        task.share = slice(rank, None, 2)
        found.append(task.step(0, order.rows(0)[rank::2], 0.0)["loss"])
    pictures.close()
    return found


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_share_every_batch(work):
    (work / "half.toml").write_text(toml(table(train={"steps": 1})))
    in_two_processes(work, 1, work / "two")
    halves = first_losses_of_halves(work / "faces", recipe(train={"steps": 1}), work)
    assert float(log_rows(work / "two")[0]["loss"]) == pytest.approx(np.mean(halves), rel=1e-4)


def weights(out):
    return {key: value for name in ("backbone", "head")
            for key, value in load_file(out / f"checkpoint/{name}.safetensors").items()}


def cut_in_one_process(faces, out, steps, sections):
    real, calls = Pictures.batch, []

    def batch(self, places):
        calls.append(1)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return real(self, places)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pictures, "batch", batch)
        with pytest.raises(KeyboardInterrupt):
            fit(faces, out, **sections)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(("first", "head"), [("two", {}), ("one", {"sample_rate": 0.5})], ids=["whole", "sampled"])
def test_another_number_of_processes_goes_on_as_the_uninterrupted_training(first, head, work, monkeypatch):
    """Cut in the third step, after the checkpoint of the second. Batch norms are frozen: what they see of a batch is
    the only thing that may differ. Measured: weights within 1e-7, losses to the last digit of the log; from fresh
    weights losses are 20 % off, without the momentum 9 %."""
    monkeypatch.setattr(MobileFaceNet, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
    sections = {"train": {"steps": 6, "checkpoint_every": 2}, "head": head}
    (work / "half.toml").write_text(toml(table(**sections)))
    fit(work / "faces", work / "whole", **sections)
    if first == "two":
        in_two_processes(work, 3, work / "cut", "frozen")
        made = fit(work / "faces", work / "cut", **sections)
    else:
        cut_in_one_process(work / "faces", work / "cut", 3, sections)
        in_two_processes(work, 99, work / "cut", "frozen")
        made = json.loads((work / "cut/training.json").read_text())
    assert made["resumed_at"] == 2
    found, expected = ([float(row["loss"]) for row in log_rows(work / name)] for name in ("cut", "whole"))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    torch.testing.assert_close(weights(work / "cut"), weights(work / "whole"), rtol=0, atol=3e-6)
