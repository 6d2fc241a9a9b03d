"""How a person was photographed: pose, expression, age, light, things worn, background and camera, with stated ranges.

A shot is one row of numbers plus the key of its picture, from which sensor noise and background are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..foundation.errors import InputError, UnknownNameError
from ..foundation.noise import keyed_generator
from .traits import People, check_values


@dataclass(frozen=True)
class Nuisance:
    """One number of a shot: allowed range, neutral value, and how ``wild`` photographs spread.

    ``spread`` is ``(kind, *numbers)``: ``normal, mean, deviation``; ``uniform, low, high``; ``some, probability, low,
    high`` (neutral otherwise). Everything is clipped to the range.
    """

    name: str
    low: float
    high: float
    neutral: float
    spread: tuple
    meaning: str


NUISANCES: tuple[Nuisance, ...] = (
    Nuisance("yaw", -75, 75, 0, ("normal", 0, 24), "degrees; + turns the nose to the left of the picture"),
    Nuisance("pitch", -40, 40, 0, ("normal", 0, 9), "degrees; + looks up"),
    Nuisance("roll", -45, 45, 0, ("normal", 0, 6), "degrees, before alignment; + tilts clockwise in the picture"),
    Nuisance("mouth_open", 0, 1, 0, ("some", 0.4, 0, 0.8), "1 is a wide open jaw"),
    Nuisance("smile", -1, 1, 0, ("normal", 0.25, 0.4), "- corners down"),
    Nuisance("brow_raise", -1, 1, 0, ("normal", 0, 0.35), "- frown"),
    Nuisance("blink", 0, 1, 0, ("some", 0.3, 0, 1), "1 is closed"),
    Nuisance("gaze_x", -25, 25, 0, ("normal", 0, 7), "degrees relative to the head, + to the left of the picture"),
    Nuisance("gaze_y", -20, 20, 0, ("normal", 0, 5), "degrees, + up"),
    Nuisance("age", 16, 85, 30, ("uniform", 18, 75), "years"),
    Nuisance("light_azimuth", -90, 90, 0, ("normal", 0, 38), "degrees, + from the right of the picture"),
    Nuisance("light_elevation", -40, 80, 35, ("normal", 32, 18), "degrees above the camera's axis"),
    Nuisance("light_share", 0, 1, 0.5, ("uniform", 0.2, 0.75), "of the light that comes from the key light"),
    Nuisance("light_warmth", -1, 1, 0, ("normal", 0, 0.4), "colour of the key light"),
    Nuisance("ambient_warmth", -1, 1, 0, ("normal", 0, 0.3), "colour of the rest"),
    Nuisance("shadow_softness", 0, 1, 0.5, ("uniform", 0.1, 1), "width of the shadow's edge"),
    Nuisance("shave", 0, 1, 0, ("uniform", 0, 1), "how much of the beard is shaved off"),
    Nuisance("glasses", 0, 3, 0, ("some", 0.18, 1, 3), "below 0.5 none, then round to square frames"),
    Nuisance("mask", 0, 1, 0, ("some", 0.03, 1, 1), "above 0.5 mouth and nose are covered"),
    Nuisance("hat", 0, 2, 0, ("some", 0.06, 1, 2), "above 0.5 a cap, above 1.5 a woollen hat"),
    Nuisance("hand", 0, 1, 0, ("some", 0.03, 1, 1), "above 0.5 a hand before the chin"),
    Nuisance("distance", 5, 40, 14, ("uniform", 7, 30), "camera to face in decimetres: perspective"),
    Nuisance("exposure", -1.5, 1.5, 0, ("normal", 0, 0.25), "stops"),
    Nuisance("contrast", 0.5, 1.5, 1, ("normal", 1, 0.1), "slope around middle grey"),
    Nuisance("blur", 0, 4, 0, ("some", 0.35, 0.2, 1.2), "Gaussian deviation in pixels of a 112-pixel picture"),
    Nuisance("noise", 0, 40, 0, ("some", 0.6, 0.5, 8), "sensor noise, deviation in grey levels"),
    Nuisance("jpeg", 10, 100, 100, ("some", 0.5, 40, 98), "quality of an earlier compression; 100 is none"),
    Nuisance("background", 0, 1, 0.5, ("uniform", 0, 1), "which background: plain to busy"),
    Nuisance("shift_x", -6, 6, 0, ("normal", 0, 0.6), "error of the alignment, pixels of a 112-pixel picture"),
    Nuisance("shift_y", -6, 6, 0, ("normal", 0, 0.6), "the same, down"),
)
NUISANCE_NAMES = tuple(nuisance.name for nuisance in NUISANCES)
NEUTRAL = np.array([nuisance.neutral for nuisance in NUISANCES], np.float32)


@dataclass(frozen=True)
class Shots:
    """Photographs to be made: ``values`` float32 ``[n, len(NUISANCES)]``; ``keys`` name each picture's own noise."""

    values: np.ndarray
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", check_values(self.values, NUISANCES, "shots"))
        if len(self.keys) != len(self.values):
            raise InputError(f"{len(self.values)} shots have {len(self.keys)} keys", where="shots")

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, indices: Sequence[int]) -> Shots:
        """The shots of some indices, in that order."""
        indices = list(indices)
        return Shots(self.values[indices], tuple(self.keys[i] for i in indices))

    def nuisance(self, name: str) -> np.ndarray:
        """One number of every shot, float32 ``[n]``."""
        return self.values[:, NUISANCE_NAMES.index(name)]


def check_names(fixed: Mapping[str, object]) -> None:
    """``UnknownNameError`` for a name that is no nuisance."""
    for name in fixed:
        if name not in NUISANCE_NAMES:
            raise UnknownNameError("nuisance", name, NUISANCE_NAMES)


_SPREADS = {"normal": ("mean", "deviation"), "uniform": ("low", "high"), "some": ("probability", "low", "high")}


def check_spreads(spreads: Mapping[str, Sequence] | None) -> dict[str, tuple]:
    """Spreads by name as ``Nuisance.spread`` writes them, checked against the nuisances' ranges.

    Raises ``UnknownNameError`` for a nuisance or kind that does not exist, ``InputError`` for numbers that are too
    few, too many, not finite or out of range.
    """
    check_names(spreads or {})
    return {item.name: _checked_spread(item, (spreads or {})[item.name]) for item in NUISANCES
            if item.name in (spreads or {})}


def _checked_spread(item: Nuisance, spread: Sequence) -> tuple:
    kind, *numbers = spread
    where = f"spread of {item.name}"
    if kind not in _SPREADS:
        raise UnknownNameError("kind of spread", kind, _SPREADS)
    try:
        at = dict(zip(_SPREADS[kind], map(float, numbers), strict=True))
    except (TypeError, ValueError):
        raise InputError(f"{kind} with {list(numbers)}", where=where,
                         fix=f"give {' and '.join(_SPREADS[kind])} as numbers") from None
    limits = {"probability": (0, 1), "deviation": (0, item.high - item.low)}
    for name, value in at.items():
        low, high = limits.get(name, (item.low, item.high))
        if not low <= value <= high:
            raise InputError(f"{name} is {value:g}", where=where, fix=f"it must lie in {low:g}..{high:g}")
    return (kind, *at.values())


def neutral_shots(keys: Sequence[str], **fixed: float | np.ndarray) -> Shots:
    """Passport photographs (frontal, even light, no age or expression but the neutral), except what is ``fixed``."""
    check_names(fixed)
    values = np.tile(NEUTRAL, (len(keys), 1))
    for name, value in fixed.items():
        values[:, NUISANCE_NAMES.index(name)] = value
    return Shots(values, tuple(keys))


def _draw(spread: tuple, neutral: float, draw: np.random.Generator) -> float:
    number, uniform, chance = draw.standard_normal(), draw.random(), draw.random()
    kind, *at = spread
    if kind == "normal":
        return at[0] + at[1] * number
    if kind == "uniform":
        return at[0] + (at[1] - at[0]) * uniform
    return at[1] + (at[2] - at[1]) * uniform if chance < at[0] else neutral


def sample_shots(people: People, per_person: int, *, seed: int = 0, start: int = 0,
                 spreads: Mapping[str, tuple] | None = None) -> tuple[People, Shots]:
    """Wild photographs of everybody, person by person: the people repeated, and their shots.

    Args:
        per_person: pictures of each, at least 1.
        seed: of the shots; picture ``i`` of a person does not depend on how many are asked for.
        start: number of the first picture.
        spreads: other distributions for some nuisances, e.g. ``{"yaw": ("uniform", -5, 5)}``.
    """
    if per_person < 1:
        raise InputError(f"{per_person} pictures of each person were asked for", where="population",
                         fix="ask for at least one")
    spreads = check_spreads(spreads)
    rows, keys = [], []
    for person in people.ids:
        for image in range(start, start + per_person):
            draw = keyed_generator("population", "shot", int(seed), person, image)
            row = [_draw(spreads.get(item.name, item.spread), item.neutral, draw) for item in NUISANCES]
            rows.append(row)
            keys.append(f"{seed}/{person}/{image}")
    low, high = (np.array([getattr(item, side) for item in NUISANCES]) for side in ("low", "high"))
    values = np.clip(np.array(rows), low, high).astype(np.float32)
    return people.take(np.repeat(np.arange(len(people)), per_person)), Shots(values, tuple(keys))
