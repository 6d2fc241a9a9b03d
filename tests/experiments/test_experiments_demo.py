"""The demo from scratch draws people reproducibly, trains two different recognisers and runs to a page."""

from __future__ import annotations

import numpy as np

from negface.experiments import demo_from_scratch
from negface.experiments.demo_faces import draw_face
from negface.experiments.demo_run import demo_recipe
from negface.experiments.demo_scratch import scratch_recipe
from negface.foundation.files import read_json


def test_a_drawn_picture_depends_on_its_key_alone():
    first = draw_face(0, 3, 1)
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, draw_face(0, 3, 1))
    for other in (draw_face(1, 3, 1), draw_face(0, 4, 1), draw_face(0, 3, 2)):
        assert np.abs(first.astype(int) - other).mean() > 1


def test_the_demo_compares_the_headline_strategy_with_the_baseline():
    for recipe in (demo_recipe(), scratch_recipe()):
        assert "baseline" in recipe.strategies
        assert 0.5 in recipe.strategies["far"]
        assert next(iter(recipe.contexts)) == "authentic"


def test_the_demo_from_scratch_runs_to_a_page_that_says_its_faces_are_drawn_and_makes_nothing_twice(tmp_path, recipe):
    model = {"image_size": 32, "latent_channels": 2, "channels": 32, "multipliers": [1, 2], "blocks": 1,
             "codebook_size": 16, "patch": 2}
    tiny = recipe(autoencoder={**recipe().autoencoder.model_dump(), "model": model}, contexts={"authentic": [0]},
                  sampling={**recipe().sampling.model_dump(), "size": 32})
    options = {"recipe": tiny, "people": 8, "eye_steps": 2, "eye_people": 4, "say": lambda _: None}
    summary = demo_from_scratch(tmp_path / "demo", **options)
    assert (tmp_path / "demo" / "report.html").is_file()
    assert any("drawn faces" in warning for warning in summary["warnings"])
    declared = [read_json(tmp_path / f"demo/material/{name}.safetensors.json") for name in ("conditioner", "judge")]
    assert declared[0]["trained_on"] != declared[1]["trained_on"]
    assert declared[0]["architecture"] != declared[1]["architecture"]
    assert demo_from_scratch(tmp_path / "demo", **options)["steps_made"] == 0
