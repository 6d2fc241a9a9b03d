"""Validation of recognisers in training: accuracy on verification pairs of people who are in no training set.

The published trainings choose checkpoint, learning rate and stop by the five test benchmarks they then report. Here
test benchmarks are refused for that, unless the selection is called what it is: ``released``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from torch import nn

from negface.datasets import load_rgb, open_pairs, resize_rgb
from negface.evaluation.verification import verification
from negface.foundation.errors import InputError
from negface.foundation.hashing import sha256_array
from negface.perception import Declaration, Recognizer

from .recipe import RecognitionValidation

TEST_BENCHMARKS = (
    "lfw", "agedb30", "agedb", "cfpfp", "cfpff", "cfp", "calfw", "cplfw", "vgg2fp", "sllfw", "talfw", "xqlfw", "rfw",
    "ijbb", "ijbc", "megaface",
)
"""Names under which the test sets of the field go round, without ending, capitals, dots, hyphens and underscores."""
LISTS = ("pairs", "test")
"""What the list of a benchmark is called within its folder, LFW's own ``lfw/pairs.txt`` among them."""


@dataclass(frozen=True)
class Pairs:
    """Verification pairs in memory: ``images`` uint8 ``[2n, S, S, 3]``, pair i is images 2i and 2i + 1; ``same`` bool
    ``[n]``; ``people``: whose they are, as far as names tell."""

    name: str
    images: np.ndarray
    same: np.ndarray
    people: frozenset[str]

    @property
    def hash(self) -> str:
        """SHA-256 of pictures and flags."""
        return sha256_array(self.images) + sha256_array(self.same)


def is_test_benchmark(path: Path) -> bool:
    """Whether a file, or the folder of a file that is only called a list of pairs, has a test benchmark's name."""
    name, folder = (re.sub(r"[\W_]", "", item.lower()) for item in (path.stem, path.absolute().parent.name))
    return name in TEST_BENCHMARKS or (name in LISTS and folder in TEST_BENCHMARKS)


def read_development(
    paths: Sequence[str | os.PathLike], size: int, recipe: RecognitionValidation
) -> list[Pairs]:
    """Read ``.bin`` files or pair lists for validation, pictures resized to ``size``.

    Raises:
        InputError: a test benchmark, unless the selection is ``released``; a file that is not there, missing pictures.
    """
    found = []
    for path in map(Path, paths):
        if recipe.selection != "released" and is_test_benchmark(path):
            raise InputError(
                "is a test benchmark: a recogniser chosen by it has seen the answer", where=path,
                fix='give pairs of other people, or set validation.selection = "released" to do as the published code')
        pairs = open_pairs(path)
        images = np.empty((2 * len(pairs), size, size, 3), np.uint8)
        for place, data in enumerate(pairs.images()):
            images[place] = resize_rgb(load_rgb(data, where=f"{path}, picture {place}"), size)
        people = frozenset(PurePosixPath(name).parent.name for name in pairs.names) - {""}
        found.append(Pairs(path.stem, images, pairs.same, people))
    return found


def accuracy(backbone: nn.Module, declaration: Declaration, development: Sequence[Pairs], device: str) -> float:
    """Mean accuracy over the pair sets by the 10-fold rule; the backbone is left in evaluation mode."""
    recognizer = Recognizer.from_module(backbone, declaration, device=device)
    return float(np.mean([verification(_raw(recognizer, pairs.images), pairs.same).accuracy for pairs in development]))


def _raw(recognizer: Recognizer, images: np.ndarray) -> np.ndarray:
    return recognizer.raw(images).astype(np.float64) + recognizer.raw(images[:, :, ::-1])
