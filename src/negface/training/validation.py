"""Validation of recognisers in training: accuracy on verification pairs of people who are in no training set.

The published trainings choose checkpoint, learning rate and stop by the five test benchmarks they then report. Here
test benchmarks are refused for that, unless the selection is called what it is: ``released``. A name proves little, so
the contents go into the declaration, and ``negface verify`` refuses a recogniser on what it was chosen by.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from torch import nn

from negface.datasets import resize_rgb
from negface.evaluation.benchmarks import open_benchmark
from negface.evaluation.provenance import development_text
from negface.evaluation.verification import FOLDS, verification
from negface.foundation.errors import InputError
from negface.foundation.files import read_json
from negface.foundation.hashing import sha256_array
from negface.perception import Declaration, Recognizer
from negface.population.protocol_specs import FIRST_PERSON
from negface.population.protocols import PROTOCOL_NAME

from .recipe import RecognitionValidation

TEST_BENCHMARKS = (
    "lfw", "agedb30", "agedb", "cfpfp", "cfpff", "cfp", "calfw", "cplfw", "vgg2fp", "sllfw", "talfw", "xqlfw", "rfw",
    "ijbb", "ijbc", "megaface",
)
"""Names under which the test sets of the field go round, without ending, capitals, dots, hyphens and underscores."""
HELD_OUT = "heldout"
LISTS = (["pairs"], ["test"])
"""What the list of a benchmark is called within its folder, LFW's own ``lfw/pairs.txt`` among them."""
DEVELOPMENT = ("train", "training", "dev", "development", "val", "valid", "validation")
"""Words that say of a part of a benchmark that it is not the test: ``lfw-train.bin``."""


@dataclass(frozen=True)
class Pairs:
    """Verification pairs in memory: ``images`` uint8 ``[2n, S, S, 3]``, pair i is images 2i and 2i + 1; ``same`` bool
    ``[n]``; ``people``: whose they are, as far as names tell; ``content``: ``Benchmark.sha256`` of the files."""

    name: str
    images: np.ndarray
    same: np.ndarray
    people: frozenset[str]
    content: str

    @property
    def hash(self) -> str:
        """SHA-256 of pictures and flags."""
        return sha256_array(self.images) + sha256_array(self.same)


def is_test_benchmark(path: Path) -> bool:
    """Whether pairs are a test benchmark, as far as names and cards tell.

    So called: a file, or the folder of a file that is only called a list of pairs, with a test benchmark's name among
    its words (``lfw_copy.bin``, ``lfw-heldout/1/pairs.csv``) and none of ``DEVELOPMENT``; anything ``heldout``. So
    declared: a population protocol of the people that are kept for tests.
    """
    path = path.absolute()
    # Numbers are versions: lfw-heldout/1 is lfw-heldout.
    name, folder = [*(part.stem for part in (path, *path.parents) if not part.stem.isdigit()), ""][:2]
    only_a_list = _words(name)[:1] in LISTS and not _is_development(name)
    return (_has_test_name(name) or (only_a_list and _has_test_name(folder))
            or _has_test_people(path if path.is_dir() else path.parent))


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]


def _is_development(name: str) -> bool:
    return any(word in DEVELOPMENT for word in _words(name))


def _has_test_name(name: str) -> bool:
    words = _words(name)
    runs = {"".join(words[first:last]) for last in range(len(words) + 1) for first in range(last)}
    return HELD_OUT in runs or (not _is_development(name) and not runs.isdisjoint(TEST_BENCHMARKS))


def _has_test_people(folder: Path) -> bool:
    card = read_json(folder / PROTOCOL_NAME) if (folder / PROTOCOL_NAME).is_file() else None
    if not isinstance(card, dict) or card.get("kind") != "population-protocol":
        return False
    return max(card.get("reserved_people") or [FIRST_PERSON + 1]) > FIRST_PERSON


def read_development(
    paths: Sequence[str | os.PathLike], size: int, recipe: RecognitionValidation
) -> list[Pairs]:
    """Read ``.bin`` files, pair lists or folders with one for validation, pictures resized to ``size``.

    Raises:
        InputError: a test benchmark, unless the selection is ``released``; a file that is not there, missing pictures,
            too few pairs.
    """
    found = []
    for path in map(Path, paths):
        if recipe.selection != "released" and is_test_benchmark(path):
            raise InputError(
                "is a test benchmark: a recogniser chosen by it has seen the answer", where=path,
                fix='give pairs of other people (of a population: negface population protocol NAME --start 800000), '
                    'or set validation.selection = "released" to do as the published code')
        given = open_benchmark(path)
        if len(given.same) < FOLDS:
            raise InputError(f"{len(given.same)} pairs, and accuracy is taken over {FOLDS} folds", where=path,
                             fix=f"give {FOLDS} pairs or more; hundreds tell something")
        distinct = np.stack([resize_rgb(given.pictures.load(row), size) for row in range(given.pictures.distinct)])
        people = frozenset(PurePosixPath(name).parent.name for name in given.names) - {""}
        found.append(Pairs(path.stem, distinct[given.pictures.row_of], given.same, people, given.sha256))
    return found


def developed_on(development: Sequence[Pairs]) -> str:
    """What the declaration of a recogniser says of the pairs it was chosen by; empty without any."""
    return development_text((item.name, item.content, item.people) for item in development)


def accuracy(backbone: nn.Module, declaration: Declaration, development: Sequence[Pairs], device: str) -> float:
    """Mean accuracy over the pair sets by the 10-fold rule; the backbone is left in evaluation mode."""
    recognizer = Recognizer.from_module(backbone, declaration, device=device)
    return float(np.mean([verification(_raw(recognizer, pairs.images), pairs.same).accuracy for pairs in development]))


def _raw(recognizer: Recognizer, images: np.ndarray) -> np.ndarray:
    return recognizer.raw(images).astype(np.float64) + recognizer.raw(images[:, :, ::-1])
