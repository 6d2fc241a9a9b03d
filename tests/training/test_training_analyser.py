"""The analyser learns from renders, mirrors its labels with its pictures, and says its errors in their units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from negface import population
from negface.foundation.errors import InputError
from negface.models.analyser import Analyser
from negface.perception import load_analyser
from negface.perception.analyser import VALUES
from negface.training.analyser import AnalyserTask, analyser_errors, load_truth, train_analyser
from negface.training.recipe import AnalyserRecipe
from negface.training.trainers import make_accelerator

SIDE = 32


def recipe(steps):
    return AnalyserRecipe.model_validate({
        "model": {"image_size": SIDE, "widths": (8, 16, 16)},
        "train": {"steps": steps, "batch": 8, "learning_rate": 3e-3, "warmup": 5, "precision": "fp32",
                  "ema": {"kind": "exponential", "decay": 0.5}}})


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth") / "people"
    population.make(folder, people=6, images=6, size=SIDE, seed=3, workers=1)
    return folder


def test_training_lowers_the_error_of_what_it_was_shown(people, tmp_path):
    before = train_analyser(recipe(1), people, tmp_path / "short", say=lambda text: None)
    after = train_analyser(recipe(60), people, tmp_path / "long", say=lambda text: None)
    short, long = (analyser_errors(load_analyser(f"{result['model']}/analyser.safetensors"), people)
                   for result in (before, after))
    assert long["landmarks"] < 0.7 * short["landmarks"]
    assert long["parsing"] > short["parsing"]
    assert set(long) == {*VALUES, "landmarks", "parsing"}


def test_a_mirrored_batch_is_what_the_mirror_of_the_population_says(people):
    data = load_truth(people, SIDE)
    task = AnalyserTask(recipe(1), data, make_accelerator(recipe(1).train))
    rows = np.arange(4)
    plain, mirrored = (task._batch(rows, np.full(4, flip)) for flip in (False, True))
    assert torch.equal(plain[0].flip(3), mirrored[0])
    names = dict(zip(VALUES, range(len(VALUES))))
    model = task.objective.model
    yaw, other = (batch[1] * model.value_std + model.value_mean for batch in (plain, mirrored))
    for name in ("yaw", "roll", "light_azimuth"):
        assert torch.allclose(yaw[:, names[name]], -other[:, names[name]], atol=1e-4)
    assert torch.allclose(yaw[:, names["age"]], other[:, names["age"]])
    # The chin (point 8) stays the chin; the jaw's first point becomes its last, on the other side.
    assert torch.allclose(plain[2][:, 8, 0], -mirrored[2][:, 8, 0])
    assert torch.allclose(plain[2][:, 0, 0], -mirrored[2][:, 16, 0])


def test_landmarks_are_told_in_pixels_of_the_picture_given(people, tmp_path):
    train_analyser(recipe(2), people, tmp_path / "a", say=lambda text: None)
    analyser = load_analyser(tmp_path / "a" / "model" / "analyser.safetensors")
    images = load_truth(people, SIDE).images[:2]
    _, small, _ = analyser.read(images)
    _, large, _ = analyser.read(images.repeat(2, 1).repeat(2, 2))
    assert np.allclose((small + 0.5) * 2 - 0.5, large, atol=0.2)
    assert analyser.declaration.task == "analyser"


def test_pictures_without_truth_are_refused(tmp_path, people):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(people, copy)
    (copy / "labels.jsonl").unlink()
    with pytest.raises(InputError, match="population make"):
        train_analyser(recipe(1), copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_side_that_cannot_be_halved_three_times_is_refused():
    with pytest.raises(InputError, match="multiple of 8"):
        Analyser(n_values=3, image_size=60)
