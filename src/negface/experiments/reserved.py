"""Whom each part of an experiment on procedural people is about: the generator's people, new ones, ceilings, tests.

It follows from the recipe alone, so a person in two parts is refused before anything is rendered or trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from negface.foundation.errors import InputError
from negface.population.protocols import protocol

if TYPE_CHECKING:
    from .grid import ExperimentRecipe, Setting


@dataclass(frozen=True)
class Part:
    """People ``start`` to ``end - 1`` of population ``seed``; ``what`` they are for."""

    what: str
    seed: int
    start: int
    end: int

    @property
    def people(self) -> tuple[str, ...]:
        """Their names, as the population gives them."""
        return tuple(f"s{self.seed}-p{number:06d}" for number in range(self.start, self.end))


def parts_of(recipe: ExperimentRecipe, ceilings: list[Setting]) -> list[Part]:
    """All parts of a recipe that are rendered. ``ceilings``: those of its cells."""
    faces, count, parts = recipe.population, recipe.sampling.identities, []
    if faces is not None:
        parts += [Part(what, faces.seed, part.start, part.start + part.people)
                  for what, part in (("population.known", faces.known), ("population.new", faces.new))]
        starts = {cell.seed: faces.ceiling + cell.seed * count for cell in ceilings}
        parts += [Part(f"the ceiling of seed {seed}", faces.seed, start, start + count)
                  for seed, start in starts.items()]
    if recipe.protocols is not None and recipe.student is not None:
        wanted = recipe.protocols
        reserved = max(protocol(name, people=wanted.people, pairs=wanted.pairs).reserved for name in wanted.names)
        parts.append(Part("[protocols]", wanted.seed, wanted.start, wanted.start + reserved))
    return parts


def check_disjoint(parts: list[Part], where: object) -> None:
    """``InputError`` naming two parts that share people, and whom they share."""
    for one, other in combinations(parts, 2):
        first, end = max(one.start, other.start), min(one.end, other.end)
        if one.seed == other.seed and first < end:
            raise InputError(f"{one.what} and {other.what} share people {first} to {end - 1} of population {one.seed}",
                             where=where, fix="begin one of them elsewhere: nobody is examined on whom anybody learned")
