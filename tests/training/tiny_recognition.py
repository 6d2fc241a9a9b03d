"""Tiny real recognition trainings: drawn faces of 32 pixels, a backbone of 20 thousand parameters, a few steps."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from drawn import draw_face
from negface.datasets import write_bin
from negface.training.recipe import RecognitionRecipe, parse_recipe
from negface.training.recognition import train_recognition

TRAIN = {"steps": 6, "batch": 8, "learning_rate": 0.05, "warmup": 0, "precision": "fp32", "log_every": 1,
         "checkpoint_every": 3, "sample_every": 1000, "clip": 5.0}
MODEL = {"architecture": "tiny-recognizer", "dim": 16, "image_size": 32}


def table(**sections):
    """A recipe as a table; sections are merged into the tiny ones."""
    train = {**TRAIN, **sections.pop("train", {})}
    if "epochs" in train:
        train.pop("steps")
    return {"model": {**MODEL, **sections.pop("model", {})}, "train": train, **sections}


def recipe(**sections):
    return parse_recipe(RecognitionRecipe, table(**sections), "tiny")


def fit(faces, out, *, say=lambda line: None, **sections):
    """Train on a folder of faces; keyword arguments of ``train_recognition`` go under ``options``."""
    options = sections.pop("options", {})
    return train_recognition(recipe(**sections), faces, out, say=say, **options)


def encoded(person, shot, size=32):
    buffer = io.BytesIO()
    Image.fromarray(draw_face(person, shot, size)).save(buffer, "PNG")
    return buffer.getvalue()


def pairs_bin(path, people=range(100, 110), *, shuffled=False):
    """A ``.bin`` of genuine and impostor pairs of drawn people, as many of each as there are people."""
    people = list(people)
    pictures, same = [], []
    for place, person in enumerate(people):
        pictures += [encoded(person, 0), encoded(person, 1)]
        pictures += [encoded(person, 2), encoded(people[(place + 3) % len(people)], 3)]
        same += [True, False]
    same = np.random.default_rng(0).permutation(same) if shuffled else np.array(same)
    write_bin(path, pictures, same)
    return path
