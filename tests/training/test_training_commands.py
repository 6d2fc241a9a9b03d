"""``negface train``: in this process, and by torchrun in two."""

import json
import os
import subprocess
import sys

import pytest
from tiny_training import TRAIN, UNET, VAE, embeddings, log_rows, toml, vae_folder

from negface.perception import write_embeddings

PROGRAM = """
import sys
import negface.training.diffusion as diffusion
from negface.cli.main import main
diffusion.SHEET_IMAGES = diffusion.SHEET_STEPS = 1
for line in open(sys.argv[1]):
    code = main(line.split())
    if code:
        sys.exit(code)
"""


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch):
    monkeypatch.setattr("negface.training.diffusion.SHEET_IMAGES", 1)
    monkeypatch.setattr("negface.training.diffusion.SHEET_STEPS", 1)


@pytest.fixture
def work(tmp_path, face_folder):
    """A folder with faces, embeddings, recipes, and an autoencoder that nobody trained."""
    face_folder(3, 2, size=16)
    given = embeddings()
    write_embeddings(tmp_path / "tiny.npz", given.embeddings, given.labels, provenance=given.provenance)
    vae_folder(tmp_path / "vae")
    (tmp_path / "a.toml").write_text(toml({"model": VAE, "train": TRAIN, "adversary": {"start": 2, "channels": 8}}))
    (tmp_path / "d.toml").write_text(toml({"model": {**UNET, "context_dropout_probability": 0.0}, "train": TRAIN}))
    (tmp_path / "people.txt").write_text("0000\n\n0002\n")
    return tmp_path


def autoencoder(work, out, *more):
    return ["train", "autoencoder", work / "a.toml", "--faces", work / "faces", "--out", work / out, *more]


def diffusion(work, out, *more):
    return ["train", "diffusion", work / "d.toml", "--faces", work / "faces", "--embeddings", work / "tiny.npz",
            "--autoencoder", work / "vae", "--out", work / out, *more]


def test_train_commands_say_what_was_made(work, negface):
    code, _, err = negface(*autoencoder(work, "a", "--json", work / "a.json"))
    assert code == 0, err
    found = json.loads((work / "a.json").read_text())
    assert (found["steps"], found["n_images"], found["n_identities"], found["resumed_at"]) == (6, 6, 3, 0)
    assert (work / "a/model/config.json").exists()
    code, out, err = negface(*diffusion(work, "d", "--people", work / "people.txt"))
    assert code == 0, err
    assert "6 steps on 4 images of 2 people" in out
    assert json.loads((work / "d/training.json").read_text())["identities"] == ["0000", "0002"]
    assert (work / "d/model/model_index.json").exists()


@pytest.mark.parametrize(("change", "what"), [
    ({"a.toml": "train = {step = 3}"}, "did you mean 'train.steps'"),
    ({"a.toml": "train = {steps = -3}"}, "greater than 0"),
    ({"a.toml": "train = {"}, "not valid TOML"),
    ({"people.txt": "0009"}, "'0009'")])
def test_bad_input_ends_in_one_line_and_code_2_and_no_model(work, negface, change, what):
    for name, text in change.items():
        (work / name).write_text(text)
    code, _, err = negface(*autoencoder(work, "a", "--people", work / "people.txt"))
    assert code == 2
    assert what in err
    assert len(err.strip().splitlines()) == 1
    assert not (work / "a/model").exists()


@pytest.mark.process
def test_two_processes_make_the_losses_of_one(work, negface):
    """torchrun, gloo, CPU; with the adversary, and without dropout of components (drawn per process)."""
    lines = [" ".join(map(str, line)) for line in (autoencoder(work, "a2"), diffusion(work, "d2"))]
    (work / "lines").write_text("\n".join(lines))
    (work / "program.py").write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d",
              "--rdzv_endpoint=127.0.0.1:0", "--local_addr=127.0.0.1", work / "program.py", work / "lines"]
    done = subprocess.run(list(map(str, launch)), capture_output=True, text=True, check=False, timeout=240,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-3000:]
    for line in (autoencoder(work, "a1"), diffusion(work, "d1")):
        code, _, err = negface(*line)
        assert code == 0, err
    for kind in "ad":
        one, two = log_rows(work / f"{kind}1"), log_rows(work / f"{kind}2")
        assert [row["step"] for row in two] == ["1", "2", "3", "4", "5", "6"]
        for name in one[0]:
            assert [float(row[name]) for row in two] == pytest.approx([float(row[name]) for row in one], rel=1e-3), name
    assert (work / "a2/model/config.json").exists()
    assert done.stdout.count("autoencoder: 6 steps") == 1
