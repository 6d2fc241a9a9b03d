"""Files that NegFace writes itself, damaged: saved pipelines, plans, recipes, banks, selections, checkpoints, results.

Besides damaged bytes (``damage``), values of a sound JSON or TOML tree are replaced by odd ones, so that what lies
behind the parser is reached too.
"""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import again_and_again, check_reader, soon
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from negface.contexts import ContextBank, negatives
from negface.contexts.selection import Selection
from negface.experiments.grid import ExperimentRecipe, check_experiment, load_experiment
from negface.experiments.recipe import RunRecipe, check_run_recipe, load_run_recipe
from negface.foundation.tensors import METADATA_KEY, read_tensors
from negface.generation.estimates import predictions
from negface.generation.inputs import make_inputs
from negface.generation.planning import make_plan
from negface.generation.publish import read_plan
from negface.models import IDiffUNet, VQAutoencoder
from negface.perception import read_embeddings, write_embeddings
from negface.pipelines import NegFaceDiffPipeline
from negface.report import render_file
from negface.training.distill_recipe import DistillRecipe
from negface.training.loop import _checkpoint, _resume
from negface.training.recipe import RecognitionRecipe, load_recipe, parse_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]
RECIPES = Path(__file__).parents[2] / "recipes"
VECTORS = np.eye(4, 8, dtype=np.float32)
ODD = st.sampled_from([None, True, -1, 0, 1, 7, 1e308, float("nan"), float("inf"), 10**6, 10**12, "", "x", "0", [], {},
                       [None], [[]], {"x": 1}, ["a", "a"], "../x"])
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["replace", "replace", "drop", "add"]), ODD), min_size=1,
                   max_size=3)


def places(tree, path=()):
    """The paths of all values of a tree but its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in ((*path, key), *places(value, (*path, key)))]


def changed(tree, changes):
    """A copy of a tree with some values replaced, dropped, or given an odd neighbour."""
    tree = copy.deepcopy(tree)
    for where, what, odd in changes:
        odd, found = copy.deepcopy(odd), places(tree)
        if not found:
            return odd
        *path, last = found[min(int(where * len(found)), len(found) - 1)]
        parent = tree
        for key in path:
            parent = parent[key]
        if what == "replace":
            parent[last] = odd
        elif what == "drop":
            del parent[last]
        elif isinstance(parent, dict):
            parent["odd"] = odd
        else:
            parent.append(odd)
    return tree


def check_tree(tree, read) -> None:
    """``read(tree)`` succeeds on the good tree; on changed ones it succeeds or raises ``NegFaceError``, soon."""
    read(copy.deepcopy(tree))

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(changes=CHANGES)
    def survives(changes):
        soon(lambda: read(changed(tree, changes)))

    again_and_again(survives)


def of_file(path, read):
    """The tree in a JSON file, and what reads the file again with another one in it."""

    def again(tree):
        path.write_text(json.dumps(tree))
        read()

    return json.loads(path.read_text()), again


def of_metadata(path, read):
    """The same for the metadata of a file of tensors."""
    tensors, metadata = read_tensors(path)

    def again(tree):
        save_file(tensors, path, {METADATA_KEY: json.dumps(tree)})
        read()

    return metadata, again


def a_pipeline(folder):
    unet = IDiffUNet(in_channels=3, sample_size=8, initial_channels=32, channel_multipliers=(1,), is_attention=(False,),
                     blocks_per_resolution=1, context_input=8, context_channels=32, condition_type="AdaGN",
                     conditioner={"name": "r", "hash": "0" * 64})
    vae = VQAutoencoder(image_size=16, channels=32, multipliers=(1, 2), blocks=1, codebook_size=4)
    NegFaceDiffPipeline(unet, vae).save_pretrained(folder / "model")
    return folder / "model"


def a_bank(folder):
    bank = ContextBank.from_vectors(VECTORS, seed=1, conditioner={"name": "r", "hash": "0" * 64})
    bank.save(folder / "bank.safetensors")
    return folder / "bank.safetensors"


def planned(model):
    inputs = make_inputs(ContextBank.from_vectors(VECTORS), "far")
    return make_plan(model, inputs, images=2, batch=4), inputs


def pipeline_bytes(folder):
    model = a_pipeline(folder)
    files = sorted(path for path in model.rglob("*") if path.suffix in (".json", ".safetensors"))
    return files, lambda: NegFaceDiffPipeline.from_pretrained(model)


def plan_bytes(folder):
    plan, inputs = planned(a_pipeline(folder))
    (folder / "plan.json").write_text(json.dumps({**plan.to_dict(), "hash": plan.hash}))
    return [folder / "plan.json"], lambda: predictions(read_plan(folder), inputs)


def selection_bytes(folder):
    negatives.select(ContextBank.from_vectors(VECTORS), "random", seed=1).save(folder / "s.safetensors")
    return [folder / "s.safetensors"], lambda: Selection.load(folder / "s.safetensors").strategy


def checkpoint_bytes(folder):
    task = Tiny()
    _checkpoint(task, folder, "key", 2, 1.0)
    return sorted((folder / "checkpoint").iterdir()), lambda: _resume(task, folder, "key")


def recipe_bytes(name, load):
    def reader(folder):
        path = folder / name
        path.write_bytes((RECIPES / name).read_bytes())
        return [path], lambda: load(path)

    reader.__name__ = f"recipe_{name.removesuffix('.toml')}"
    return reader


class Tiny:
    """A task with a network of one layer."""

    name = "tiny"

    def __init__(self):
        self.network = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)
        self.network(torch.ones(1, 2)).sum().backward()
        self.optimizer.step()

    def modules(self):
        return {"network": self.network}

    def optimizers(self):
        return {"weights": self.optimizer}


BYTES = [pipeline_bytes, plan_bytes, selection_bytes, checkpoint_bytes,
         recipe_bytes("recognition-student64.toml", lambda path: load_recipe(RecognitionRecipe, path)),
         recipe_bytes("distill-64.toml", lambda path: load_recipe(DistillRecipe, path)),
         recipe_bytes("real-lfw64.toml", load_run_recipe), recipe_bytes("experiment-population.toml", load_experiment)]


@pytest.mark.parametrize("reader", BYTES, ids=lambda reader: reader.__name__)
def test_a_damaged_file_of_ours_is_read_or_refused_and_never_crashes_or_hangs(tmp_path, reader):
    check_reader(*reader(tmp_path))


def configuration(name):
    def tree(folder):
        model = a_pipeline(folder)
        return of_file(model / name, lambda: (NegFaceDiffPipeline.from_pretrained(model), planned(model)))

    tree.__name__ = f"pipeline_{Path(name).parent.name or 'index'}"
    return tree


def plan(folder):
    made, inputs = planned(a_pipeline(folder))
    (folder / "plan.json").write_text(json.dumps(made.to_dict()))

    def read():
        found = read_plan(folder)
        found.units(), found.hash, found.differences(made), predictions(found, inputs)

    return of_file(folder / "plan.json", read)


def bank(folder):
    path = a_bank(folder)

    def read():
        found = ContextBank.load(path)
        repr(found), found.release_note, found.check_conditioner({"name": "r", "hash": "1" * 64}, allow_mismatch=True)
        found.check_conditioner({"name": "r", "hash": "0" * 64})

    return of_metadata(path, read)


def selection(folder):
    path = folder / "s.safetensors"
    negatives.select(ContextBank.from_vectors(VECTORS), "random", seed=1).save(path)
    return of_metadata(path, lambda: Selection.load(path).strategy)


def embeddings(folder):
    path = folder / "e.safetensors"
    write_embeddings(path, VECTORS, np.array([0, 0, 1, 1]), identities=("a", "b"), images=tuple("wxyz"),
                     provenance={"recognizer": {"name": "r", "hash": "0" * 64}})
    return of_metadata(path, lambda: read_embeddings(path).recognizer)


def checkpoint(folder):
    task = Tiny()
    _checkpoint(task, folder, "key", 2, 1.0)
    return of_file(folder / "checkpoint" / "state.json", lambda: _resume(task, folder, "key"))


def results(folder):
    curve = {"edges": [-1.0, 0.0, 1.0], "genuine": [1, 2], "impostor": [2, 1]}
    values = {"fdr": 2.0, "fdr_low": 1.0, "fdr_high": 3.0, "eer": 0.1, "diversity": 0.1, "n_images": 4}
    cells = [{"strategy": name, "weight": weight, "seed": 0, "contexts": "pca", "metrics": values, "histogram": curve,
              "det": {"fmr": [0.9, 0.1], "fnmr": [0.0, 0.5]}} for name, weight in (("baseline", 0), ("far", 0.5))]
    (folder / "results.json").write_text(json.dumps({
        "title": "t", "command": "c", "warnings": ["w"], "versions": {"torch": "2"}, "provenance": {"judge": "j"},
        "lead": {"sentence": "s", "plots": [{"x": "fdr", "y": "eer", "labels": ["a", "b"]}],
                 "tables": [{"title": "t", "columns": ["a"], "rows": [["b"]]}]}, "cells": cells}))
    return of_file(folder / "results.json", lambda: render_file(folder / "results.json", folder / "page.html"))


def recipe(name, parse):
    def tree(folder):
        return tomllib.loads((RECIPES / name).read_text()), parse

    tree.__name__ = f"recipe_{name.removesuffix('.toml')}"
    return tree


TREES = [configuration("model_index.json"), configuration("unet/config.json"), configuration("vae/config.json"),
         configuration("scheduler/scheduler_config.json"), plan, bank, selection, embeddings, checkpoint, results,
         recipe("recognition-negfacediff.toml", lambda table: parse_recipe(RecognitionRecipe, table, "recipe")),
         recipe("distill-64.toml", lambda table: parse_recipe(DistillRecipe, table, "recipe")),
         recipe("real-lfw64.toml", lambda table: check_run_recipe(parse_recipe(RunRecipe, table, "recipe"))),
         recipe("experiment-population.toml",
                lambda table: check_experiment(parse_recipe(ExperimentRecipe, table, "recipe")))]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.__name__)
def test_odd_values_in_a_file_of_ours_are_read_or_refused(tmp_path, tree):
    check_tree(*tree(tmp_path))
