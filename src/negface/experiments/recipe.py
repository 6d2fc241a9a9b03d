"""The run recipe: one TOML file that says what is trained, which strategies are compared on which contexts, and how.

Sections ``autoencoder`` and ``diffusion`` are the training room's recipes; ``contexts`` maps a kind to its seeds,
``strategies`` a name to its weights. docs/run.md explains every key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from negface.contexts import negatives
from negface.foundation.errors import InputError, UnknownNameError
from negface.sampling import guidance
from negface.sampling.schedule import DEFAULT
from negface.training.recipe import AutoencoderRecipe, DiffusionRecipe, Section, load_recipe

BASELINE, PER_IMAGE = "baseline", "random-per-image"
CONTEXTS = ("authentic", "pca", "uniform", "two-stage")
_RULES = {"adaptive": "rising", "falling": "falling"}
_EVERYWHERE = (0.0, float(guidance.T))


@dataclass(frozen=True)
class Strategy:
    """One row of the comparison: its name in the table, the negatives, the guidance rule and its weight ``w``."""

    name: str
    negatives: str
    guidance: str
    weight: float
    scope: str = "identity"

    @property
    def label(self) -> str:
        """Folder name: ``far-w0.5``; the baseline has no weight."""
        return self.name if self.name == BASELINE else f"{self.name}-w{self.weight:g}"

    @property
    def rule(self) -> guidance.Guidance:
        """The guidance rule."""
        kind, interval = guidance_of(self.guidance)
        rule = guidance.make(kind, None if kind == "none" else self.weight)
        return rule if interval == _EVERYWHERE else rule.on(*interval)


def guidance_of(name: str) -> tuple[str, tuple[float, float]]:
    """Kind and timesteps of a guidance by its name: ``rising``, or ``constant@200-800``, which acts at 200 <= t <= 800.

    ``InputError`` for an interval that is none; what the kind may be is for ``guidance.make`` to say.
    """
    kind, limited, interval = name.partition("@")
    if not limited:
        return kind, _EVERYWHERE
    try:
        low, high = map(float, interval.split("-"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= guidance.T:
        raise InputError(f"{interval!r} is no interval of timesteps", where=f"guidance {name}",
                         fix=f"write constant@200-800: from low to high, within 0 to {guidance.T}")
    return kind, (low, high)


def _said(kind: str, interval: tuple[float, float]) -> str:
    """A kind, or a strategy, with its interval behind it, unless that is everywhere."""
    return kind if interval == _EVERYWHERE else f"{kind}@{interval[0]:g}-{interval[1]:g}"


def strategy(name: str, weight: float) -> Strategy:
    """A strategy by its name in results tables.

    ``baseline`` is plain sampling; the name of a negative (``far``) is NegFaceDiff's constant weight (arXiv
    2508.09661); ``adaptive-<negative>`` is AdaptDiff's rising weight (arXiv 2603.29569), ``falling-<negative>`` its
    ablation; ``random-per-image`` draws a new negative for every image; ``<strategy>@200-800`` steers at these
    timesteps only. ``UnknownNameError`` with a suggestion for anything else.
    """
    if name == BASELINE:
        return Strategy(BASELINE, "none", "none", 0.0)
    plain, interval = guidance_of(name)
    first, _, rest = plain.partition("-")
    rule, negative = (_RULES[first], rest) if first in _RULES else ("constant", plain)
    scope = "image" if negative == PER_IMAGE else "identity"
    known = [item for item in negatives.names() if item != "none"]
    if negative not in (PER_IMAGE, *known):
        raise UnknownNameError("strategy", name, [BASELINE, PER_IMAGE, *known, *(f"{prefix}-far" for prefix in _RULES)])
    return Strategy(_said(plain, interval), "random" if scope == "image" else negative, _said(rule, interval),
                    float(weight), scope)


def steered(name: str, rule: str) -> str:
    """The strategy ``name`` under the guidance ``rule``, by its name: ``steered("far", "rising@200-800")`` is
    ``adaptive-far@200-800``, ``steered("far", "constant")`` is ``far``. The baseline has no guidance and stays itself.

    Errors: ``UnknownNameError`` for a rule that is none; ``InputError`` where the name says another one already.
    """
    kind, interval = guidance_of(rule)
    prefixes = {"constant": ""} | {says: f"{prefix}-" for prefix, says in _RULES.items()}
    if kind not in prefixes:
        raise UnknownNameError("guidance", rule, prefixes)
    if name == BASELINE:
        return name
    says, wanted = strategy(name, 1.0).guidance, _said(kind, interval)
    if says not in ("constant", wanted):
        raise InputError(f"the strategy {name!r} is guided by {says}, and guidances say {rule}", where="guidances",
                         fix="name the negative alone (far), or leave guidances out")
    return name if says == wanted else _said(prefixes[kind] + name, interval)


class People(Section):
    """The split by identity where no table of people is given: the ``train_share`` with the lowest keyed numbers."""

    train_share: float = Field(0.7, gt=0.0, lt=1.0)
    seed: int = 0


class Sampling(Section):
    """What is drawn in every cell: the first ``identities`` of a bank of ``bank``, ``images`` of each."""

    bank: PositiveInt = 1000
    identities: PositiveInt = 50
    images: int = Field(10, ge=2)
    steps: PositiveInt = DEFAULT.steps
    scheduler: Literal["ddpm", "ddim", "dpmpp", "unipc"] = DEFAULT.scheduler
    dtype: Literal["fp32", "bf16"] = "fp32"
    batch: PositiveInt = 32
    threads: PositiveInt = 1
    size: PositiveInt = 112
    codec: str = "jpeg"
    device: Literal["cpu", "cuda"] = "cpu"


class Measuring(Section):
    """How cells are measured. ``resize``: let recognisers resize pictures of another size than theirs."""

    bootstrap: int = Field(1000, ge=0)
    seed: int = 0
    flip: bool = False
    resize: bool = False
    shown_people: PositiveInt = 8
    shown_images: PositiveInt = 4


class RunRecipe(Section):
    """``negface run``: training, the grid contexts x seeds x strategies, and its measurement."""

    title: str = "Do negative identities separate people?"
    people: People = People()
    autoencoder: AutoencoderRecipe | None = None
    diffusion: DiffusionRecipe | None = None
    contexts: dict[str, tuple[int, ...]]
    strategies: dict[str, tuple[float, ...]]
    sampling: Sampling = Sampling()
    measuring: Measuring = Measuring()

    @field_validator("contexts", "strategies")
    @classmethod
    def _not_empty(cls, value: dict) -> dict:
        if not any(value.values()):
            raise ValueError("names nothing")
        for name, items in value.items():
            if len(set(items)) != len(items):
                raise ValueError(f"{name} lists a value twice")
        return value

    def grid(self) -> list[tuple[str, int, Strategy]]:
        """Cells ``(contexts, seed, strategy)``: all strategies of the first contexts and seed first."""
        chosen = [strategy(name, weight) for name, weights in self.strategies.items() for weight in weights]
        return [(kind, seed, item) for kind, seeds in self.contexts.items() for seed in seeds for item in chosen]

    def restricted(self, contexts: tuple[str, ...] = (), strategies: tuple[str, ...] = ()) -> RunRecipe:
        """The recipe with only some contexts and strategies; ``UnknownNameError`` for one it does not have."""
        changes = {}
        for field, wanted in (("contexts", contexts), ("strategies", strategies)):
            mine = getattr(self, field)
            for name in wanted:
                if name not in mine:
                    raise UnknownNameError(f"name in the recipe's {field}", name, mine)
            if wanted:
                changes[field] = {name: mine[name] for name in mine if name in wanted}
        return self.model_copy(update=changes)


def check_run_recipe(recipe: RunRecipe, where: object = "recipe") -> RunRecipe:
    """The recipe, if all its names are known; else ``UnknownNameError`` or ``InputError``."""
    for kind in recipe.contexts:
        if kind not in CONTEXTS:
            raise UnknownNameError("contexts", kind, CONTEXTS)
    labels = [item.label for kind, seed, item in recipe.grid() if (kind, seed) == recipe.grid()[0][:2]]
    if len(set(labels)) != len(labels):
        raise InputError("a strategy and weight stands twice", where=where, fix="the baseline takes one weight: [0.0]")
    if recipe.sampling.identities > recipe.sampling.bank:
        raise InputError(f"{recipe.sampling.identities} identities of a bank of {recipe.sampling.bank}", where=where,
                         fix="sampling.bank must be at least sampling.identities")
    return recipe


def load_run_recipe(path: str | os.PathLike) -> RunRecipe:
    """Read and check a run recipe (TOML)."""
    return check_run_recipe(load_recipe(RunRecipe, path), path)
