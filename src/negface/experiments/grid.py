"""The experiment recipe: a declared grid of settings, the students trained on their pictures, and their examination.

``[[grid]]`` blocks are products of identity sources, strategies with their weights, guidance rules, schedulers,
variations and seeds; equal settings of two blocks are one cell. docs/experiments.md explains every key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from negface.contexts.variation import variation_of
from negface.foundation.errors import InputError, UnknownNameError
from negface.population.protocol_specs import FIRST_PERSON
from negface.training.recipe import RecognitionRecipe, Section, load_recipe

from .compare import VARIED
from .recipe import BASELINE, CONTEXTS, Measuring, Sampling, Strategy, steered, strategy
from .reserved import Part, check_disjoint, parts_of

FLOOR, CEILING = "floor", "ceiling"


@dataclass(frozen=True)
class Setting:
    """One cell: all that tells it from the others of its experiment. ``student``: whether one is trained on it."""

    source: str
    seed: int
    strategy: Strategy
    scheduler: str
    variation: str = "none"
    student: bool = True

    @property
    def reference(self) -> bool:
        """Whether it is the floor or the ceiling, which nothing generates."""
        return self.strategy.name in (FLOOR, CEILING)

    @property
    def name(self) -> str:
        """The strategy as tables call it: ``far``, ``far + angular-0.6``."""
        return self.strategy.name if self.variation == "none" else f"{self.strategy.name}{VARIED}{self.variation}"

    @property
    def label(self) -> str:
        """Start of the cell's folder name."""
        named = self.strategy.name if self.reference else self.strategy.label
        parts = [self.source, f"seed{self.seed}", self.scheduler, named]
        return "-".join(parts if self.variation == "none" else [*parts, self.variation])


class Block(Section):
    """A product of settings.

    ``strategies``: name = weights; ``guidances`` empty: what the strategies' names say (``far`` is constant,
    ``adaptive-far`` rising); ``schedulers`` empty: that of ``sampling``.
    """

    sources: tuple[str, ...] = Field(("pca",), min_length=1)
    strategies: dict[str, tuple[float, ...]] = Field(min_length=1)
    guidances: tuple[str, ...] = ()
    schedulers: tuple[Literal["ddpm", "ddim", "dpmpp", "unipc"], ...] = ()
    variations: tuple[str, ...] = Field(("none",), min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    students: bool = True

    def settings(self, scheduler: str) -> list[Setting]:
        """Its cells; seeds vary slowest, so that a run that is stopped has whole seeds."""
        # A weight of 0 is plain sampling, whatever the negative: one cell, the baseline.
        chosen = [strategy(name, weight) if weight else strategy(BASELINE, 0.0)
                  for name, weights in self._steered() for weight in weights]
        return [Setting(source, seed, item, each, variation, self.students)
                for source in self.sources for each in self.schedulers or (scheduler,) for seed in self.seeds
                for variation in self.variations for item in chosen]

    def _steered(self) -> list[tuple[str, tuple[float, ...]]]:
        """Strategies under every guidance rule, by the names that say it, with their weights."""
        if not self.guidances:
            return list(self.strategies.items())
        return [(steered(name, rule), weights) for rule in self.guidances for name, weights in self.strategies.items()]


class Range(Section):
    """People ``start`` to ``start + people - 1`` of a population."""

    start: NonNegativeInt
    people: PositiveInt


class PopulationFaces(Section):
    """Rendered people instead of a folder of faces.

    ``known``: people the generator learned from (contexts ``pca``, negatives of ``authentic``, leakage); ``new``:
    people it never saw (contexts ``authentic``); ``images`` of each. ``ceiling``: number of the ceiling's first person.
    ``spreads``: how all of them are photographed, where it is not in the wild (``negface population``).
    """

    seed: int = 0
    size: PositiveInt = 64
    images: int = Field(4, ge=1)
    known: Range
    new: Range
    ceiling: NonNegativeInt
    spreads: dict[str, tuple[Any, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _disjoint(self) -> PopulationFaces:
        low, high = sorted((self.known, self.new), key=lambda part: part.start)
        if low.start + low.people > high.start:
            raise ValueError("known and new share people")
        return self


class Student(Section):
    """What is trained on every set, and how it is examined: ``flip`` sums picture and mirror."""

    recipe: RecognitionRecipe
    flip: bool = True

    def for_seed(self, seed: int) -> RecognitionRecipe:
        """The training recipe of a cell: its seed also moves the student's."""
        train = self.recipe.train
        return self.recipe.model_copy(update={"train": train.model_copy(update={"seed": train.seed + seed})})


class Protocols(Section):
    """Population protocols the students are examined on; ``start``: first person, whom nobody has seen. ``people`` and
    ``pairs``: other counts than published."""

    names: tuple[str, ...] = Field(min_length=1)
    seed: int = 0
    start: NonNegativeInt = FIRST_PERSON
    size: PositiveInt = 64
    people: PositiveInt | None = None
    pairs: PositiveInt | None = None


class ExperimentRecipe(Section):
    """``negface experiment``. ``model``, ``conditioner``, ``judge``: ``"shipped"``, or given on the command line."""

    title: str = "Which negatives make the better training set?"
    model: Literal["shipped"] | None = None
    conditioner: Literal["shipped"] | None = None
    judge: Literal["shipped"] | None = None
    population: PopulationFaces | None = None
    grid: tuple[Block, ...] = Field(min_length=1)
    references: tuple[Literal["floor", "ceiling"], ...] = ()
    sampling: Sampling = Sampling()
    measuring: Measuring = Measuring()
    student: Student | None = None
    protocols: Protocols | None = None

    @field_validator("references")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    def settings(self) -> list[Setting]:
        """All cells once: the first block's students, floor and ceiling for every seed, then block after block.

        Students come first, so that a run that is stopped holds what they are compared with.
        """
        found: dict[Setting, bool] = {}
        for block in self.grid:
            for item in block.settings(self.sampling.scheduler):
                key = replace(item, student=False)
                found[key] = found.get(key, False) or (item.student and self.student is not None)
        cells = sorted((replace(key, student=student) for key, student in found.items()), key=lambda c: not c.student)
        opening = {replace(item, student=True) for item in self.grid[0].settings(self.sampling.scheduler)}
        first = sum(cell in opening for cell in cells)
        return [*cells[:first], *self._references(cells), *cells[first:]]

    def parts(self) -> list[Part]:
        """Whom each part is about, where faces are rendered; which seeds have a ceiling follows from the cells."""
        return parts_of(self, [cell for cell in self.settings() if cell.strategy.name == CEILING])

    def _references(self, cells: list[Setting]) -> list[Setting]:
        first = cells[0]
        seeds = dict.fromkeys(cell.seed for cell in cells if cell.student and cell.source == first.source)
        return [Setting(first.source, seed, Strategy(name, "none", "none", 0.0), first.scheduler)
                for name in self.references for seed in seeds]


def check_experiment(recipe: ExperimentRecipe, where: object = "recipe") -> ExperimentRecipe:
    """The recipe, if its names are known and its numbers fit; else ``UnknownNameError`` or ``InputError``."""
    for block in recipe.grid:
        for source in block.sources:
            if source not in CONTEXTS:
                raise UnknownNameError("contexts", source, CONTEXTS)
        for name in block.variations:
            variation_of(name, 0)
    if recipe.sampling.identities > recipe.sampling.bank:
        raise InputError(f"{recipe.sampling.identities} identities of a bank of {recipe.sampling.bank}", where=where,
                         fix="sampling.bank must be at least sampling.identities")
    if recipe.references and recipe.student is None:
        raise InputError("floor and ceiling are for students, and there is no section [student]", where=where)
    check_disjoint(recipe.parts(), where)
    cells = recipe.settings()
    if FLOOR in recipe.references and not any(cell.strategy.name == BASELINE and cell.student for cell in cells):
        raise InputError("the floor shuffles the names of the baseline's pictures, and no block with students has it",
                         where=where, fix="add baseline = [0] to the first block's strategies")
    return recipe


def load_experiment(path: str | os.PathLike) -> ExperimentRecipe:
    """Read and check an experiment recipe (TOML)."""
    return check_experiment(load_recipe(ExperimentRecipe, path), path)
