"""A whole run in seconds: drawn faces of 16 pixels, two linear recognisers, networks of a few thousand weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import PEOPLE, PICTURES, SIZE, TABLE

from negface.evaluation.provenance import people_text
from negface.experiments.demo_faces import write_faces
from tiny_onnx import write_linear


def recogniser(folder: Path, name: str, dim: int, seed: int) -> Path:
    """A linear recogniser with its declaration beside it."""
    path = write_linear(folder / f"{name}.onnx", size=SIZE, dim=dim, seed=seed)
    declared = {"name": name, "size": [SIZE, SIZE], "channels": "RGB", "mean": 127.5, "std": 127.5, "dim": dim,
                "trained_on": people_text(["nobody-1", "nobody-2"])}
    (folder / f"{name}.onnx.json").write_text(json.dumps(declared))
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> dict[str, Path]:
    """Faces, a conditioner and a judge on disk."""
    root = tmp_path_factory.mktemp("world")
    write_faces(root / "faces", range(PEOPLE), PICTURES, seed=0, size=SIZE)
    return {"faces": root / "faces", "conditioner": recogniser(root, "conditioner", 24, 1),
            "judge": recogniser(root, "judge", 16, 2)}


@pytest.fixture
def recipe():
    """``recipe(**sections)``: the tiny recipe with some top-level keys replaced."""
    from negface.experiments.recipe import RunRecipe, check_run_recipe
    from negface.training.recipe import parse_recipe

    def make(**changes):
        return check_run_recipe(parse_recipe(RunRecipe, {**TABLE, **changes}, "test"))

    return make


@pytest.fixture
def setup(world, tmp_path):
    """``setup(**changes)``: what a run is given, quiet, writing to a folder of this test."""
    from negface.experiments import Setup

    plain = Setup(**world, out=tmp_path / "run", threads=1, say=lambda _: None, command="negface run tiny.toml")
    return lambda **changes: replace(plain, **changes)


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory):
    """A finished run, shared: its folder and its summary. Not to be changed; ``copied`` gives a copy."""
    from negface.experiments import Setup, run
    from negface.experiments.recipe import RunRecipe
    from negface.training.recipe import parse_recipe

    out = tmp_path_factory.mktemp("finished") / "run"
    setup = Setup(**world, out=out, threads=1, say=lambda _: None, command="negface run tiny.toml")
    return out, run(parse_recipe(RunRecipe, TABLE, "test"), setup)


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished run that a test may change."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"
