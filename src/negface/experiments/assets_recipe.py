"""The recipe of what NegFace ships: who is drawn, and how each shipped model is trained on them."""

from __future__ import annotations

from importlib.resources import as_file, files
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from negface.foundation.errors import UnknownNameError
from negface.training.recipe import (
    AnalyserRecipe,
    AutoencoderRecipe,
    DiffusionRecipe,
    RecognitionRecipe,
    Section,
    load_recipe,
)

SIZES = ("cpu", "gpu")
GROUPS = ("conditioner", "judge", "generator", "test")


class Group(Section):
    """People by number: ``start`` to ``start + people``; ``portrait`` takes the portrait spreads."""

    start: int = Field(ge=0)
    people: PositiveInt
    portrait: bool = False


class Populace(Section):
    """Who is drawn: the groups ``conditioner``, ``judge``, ``generator``, ``test``, with ``images`` of each person."""

    seed: int = 0
    size: PositiveInt = 64
    images: PositiveInt = 12
    codec: str = "jpeg"
    groups: dict[str, Group]
    portrait: dict[str, tuple[Any, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _nobody_twice(self) -> Populace:
        if missing := [name for name in GROUPS if name not in self.groups]:
            raise ValueError(f"groups lack {', '.join(missing)}")
        spans = sorted((group.start, group.start + group.people, name) for name, group in self.groups.items())
        for (_, end, name), (start, _, other) in pairwise(spans):
            if start < end:
                raise ValueError(f"groups {name} and {other} share people")
        return self


class AssetsRecipe(Section):
    """``negface assets make``."""

    people: Populace
    conditioner: RecognitionRecipe
    judge: RecognitionRecipe
    analyser: AnalyserRecipe
    autoencoder: AutoencoderRecipe
    diffusion: DiffusionRecipe


def assets_recipe(size: Literal["cpu", "gpu"] = "cpu") -> AssetsRecipe:
    """The recipe that ships with the package: ``cpu`` (two cores) or ``gpu``."""
    if size not in SIZES:
        raise UnknownNameError("size of the assets", size, SIZES)
    with as_file(files(__package__) / ("assets.toml" if size == "cpu" else f"assets-{size}.toml")) as path:
        return load_recipe(AssetsRecipe, path)
